"""The fixed-path machine: gradients through gates that are averaged over training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_pullback.attribution import ExcitationPullback
from captum_pullback.engine.models import on_copies
from captum_pullback.lens.arrays import Floats
from captum_pullback.lens.paths import FixedPaths
from captum_pullback.lens.reading import Reader
from captum_pullback.lens.stability import step_weights
from captum_pullback.lens.watched import device_of, in_eval_mode

__all__ = ["Alignment", "aligned", "averaged_gates", "machine_gradients"]


@dataclass(frozen=True)
class Alignment:
    """How close gradients come to the one through gates averaged over training.

    Attributes:
        gradient: Cosine similarity of the plain gradient with it, for each example, (N,).
        pullback: The same of the excitation pullback, for each temperature.
    """

    gradient: Floats
    pullback: Mapping[float, Floats]

    @property
    def best(self) -> float:
        """The temperature of the largest mean cosine."""
        return max(self.pullback, key=lambda t: float(self.pullback[t].mean()))


@contextmanager
def averaged_gates(reader: Reader, examples: slice, since: float) -> Iterator[None]:
    """See `TrainingLens.averaged_gates`."""
    steps = reader.span(since)
    weights = step_weights(steps)
    with reader.files.read(steps[0]) as first:
        keys = [key for key in first if key.startswith(("open:", "choice:"))]
        shapes = [first[f"shape:{number}"] for number in range(len(keys))]
    gates: list[Any] = [0.0 if key.startswith("open:") else [] for key in keys]
    for weight, step in zip(weights, steps, strict=True):
        with reader.files.read(step) as arrays:
            for number, (key, shape) in enumerate(zip(keys, shapes, strict=True)):
                states = arrays[key][examples]
                if key.startswith("choice:"):
                    gates[number].append(torch.from_numpy(states.astype(np.int64)))
                else:
                    bits = np.unpackbits(states, axis=1, count=int(shape.prod()))
                    opened = torch.from_numpy(bits).reshape(-1, *shape.tolist())
                    gates[number] = gates[number] + weight * opened
    given = [
        (torch.stack(gate), torch.from_numpy(weights)) if isinstance(gate, list) else gate
        for gate in gates
    ]
    with FixedPaths(given):
        yield


def machine_gradients(reader: Reader, model: nn.Module, since: float) -> Tensor:
    """See `TrainingLens.machine`."""
    gradients = []
    with in_eval_mode(model):
        for batch, inputs, labels in reader.watched.on(device_of(model)):
            with averaged_gates(reader, batch, since):
                gradients.append(_gradient(model, inputs, labels).cpu())
    return torch.cat(gradients)


def aligned(
    reader: Reader, model: nn.Module, temperatures: Sequence[float], since: float
) -> Alignment:
    """See `TrainingLens.alignment`."""
    machines = machine_gradients(reader, model, since)
    plain: list[Floats] = []
    soft: dict[float, list[Floats]] = {float(t): [] for t in temperatures}
    pullback = ExcitationPullback(model)
    with in_eval_mode(model):
        for batch, inputs, labels in reader.watched.on(device_of(model)):
            plain.append(_cosine(_gradient(model, inputs, labels), machines[batch]))
            pullbacks = pullback.attribute_temperatures(inputs, list(soft), labels)
            for found, each in zip(soft.values(), pullbacks, strict=True):
                found.append(_cosine(each, machines[batch]))
    return Alignment(np.concatenate(plain), {t: np.concatenate(parts) for t, parts in soft.items()})


def _gradient(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    leaf = inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        picked = on_copies(model, leaf).gather(1, labels[:, None]).sum()
        return torch.autograd.grad(picked, leaf)[0]


def _cosine(gradient: Tensor, other: Tensor) -> Floats:
    one, two = gradient.flatten(1).double().cpu(), other.flatten(1).double().cpu()
    similarity: Floats = torch.cosine_similarity(one, two, dim=1).numpy()
    return similarity
