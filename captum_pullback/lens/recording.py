"""Recording effective weights and gates of a network in training, to files."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captum_pullback.effective import effective_weights
from captum_pullback.engine.models import on_copies
from captum_pullback.lens.paths import Gate, read_gates
from captum_pullback.lens.stepfiles import LensError, StepFiles
from captum_pullback.lens.watched import Watched, device_of, in_eval_mode

__all__ = ["Recorder", "Rows"]

Array = npt.NDArray[Any]
Rows = Literal["label", "all"]


class Recorder:
    """Writes gates and weights at the watched examples; its arguments are `TrainingLens`'s."""

    def __init__(
        self,
        watched: Watched,
        files: StepFiles,
        gates: bool,
        weights: Rows | None,
        kept: int,
        max_bytes: int,
    ) -> None:
        self.watched, self.files = watched, files
        self.gates, self.weights, self.kept, self.max_bytes = gates, weights, kept, max_bytes

    def record(self, model: nn.Module, step: int) -> bool:
        """See `TrainingLens.record`."""
        if step < 0:
            raise ValueError(f"step must be 0 or more, not {step}")
        if step in self.files:
            return False
        arrays: dict[str, Array] = {}
        with in_eval_mode(model):
            if self.gates:
                for number, (gate, states) in enumerate(self._gates(model)):
                    kind = "open" if gate.open is not None else "choice"
                    arrays[f"{kind}:{number}:{gate.name}"] = states
                    arrays[f"shape:{number}"] = np.array(_states(gate).shape[1:])
            if self.weights is not None:
                arrays |= self._weights(model)
        self.files.write(step, arrays)
        return True

    def _gates(self, model: nn.Module) -> list[tuple[Gate, Array]]:
        """Return each gate of one batch, and its packed states for all examples."""
        parts: list[list[Gate]] = []
        for _, inputs, _ in self.watched.on(device_of(model)):
            gates, _ = read_gates(model, inputs)
            parts.append(gates)
            if [gate.name for gate in gates] != [gate.name for gate in parts[0]]:
                raise LensError("the network runs different gates for different inputs")
        return [
            (calls[0], np.concatenate([_packed(call) for call in calls]))
            for calls in zip(*parts, strict=True)
        ]

    def _weights(self, model: nn.Module) -> dict[str, Array]:
        device, labels = device_of(model), self.watched.labels
        count = len(labels)
        with torch.no_grad():
            logits = torch.cat([on_copies(model, x).cpu() for _, x, _ in self.watched.on(device)])
        classes = logits.shape[1]
        if int(labels.max()) >= classes:
            raise LensError(
                f"there are labels up to {int(labels.max())}, but the network has logits for "
                f"{classes} classes only"
            )
        size = self.watched.inputs[0].numel()
        arrays = {"logits": logits.float().numpy()}
        own = torch.zeros(count, size)
        if self.weights == "label":
            for batch, inputs, target in self.watched.on(device):
                weight, _ = effective_weights(model, inputs, target, max_bytes=self.max_bytes)
                own[batch] = weight.flatten(1).float().cpu()
        else:
            gram = torch.zeros(count, count, dtype=torch.float64)
            at_once = max(1, self.max_bytes // (4 * size * count))
            for first in range(0, classes, at_once):
                rows = slice(first, min(classes, first + at_once))
                weights = torch.empty(count, rows.stop - first, size)
                for batch, inputs, _ in self.watched.on(device):
                    weight, _ = effective_weights(
                        lambda x, rows=rows: model(x)[:, rows], inputs, max_bytes=self.max_bytes
                    )
                    weights[batch] = weight.flatten(2).float().cpu()
                mine = (labels >= first) & (labels < rows.stop)
                own[mine] = weights[mine, labels[mine] - first]
                gram += _gram(weights.flatten(1))
            arrays["gram_all"] = gram.numpy()
        arrays["gram_label"] = _gram(own).numpy()
        arrays["rows"] = _sketched(own, self.kept).numpy()
        return arrays


def _states(gate: Gate) -> Tensor:
    states = gate.open if gate.open is not None else gate.choice
    assert states is not None  # a gate is one or the other
    return states


def _packed(gate: Gate) -> Array:
    """Pack gates, eight to a byte, (N, bytes); or choices as small integers of the same shape."""
    states = _states(gate).cpu().numpy()
    if gate.open is not None:
        return np.packbits(states.reshape(len(states), -1), axis=1)
    return states.astype(np.uint16 if states.max(initial=0) < 2**16 else np.int64)


def _gram(rows: Tensor) -> Tensor:
    """Return inner products, (N, N), of rows (N, D), summed in float64 part by part."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in torch.split(rows, 2**16, dim=1):
        wide = part.double()
        total += wide @ wide.T
    return total


def _sketched(rows: Tensor, kept: int) -> Tensor:
    """Return rows (N, D) as they are, or their count sketch (N, kept) where D is more.

    Each entry is added, with a random sign, into a random bin: inner products are kept on
    average (Charikar, Chen and Farach-Colton 2004). Bins and signs depend on D alone.
    """
    size = rows.shape[1]
    if size <= kept:
        return rows
    generator = torch.Generator().manual_seed(size)
    bins = torch.randint(kept, (size,), generator=generator)
    signs = torch.randint(2, (size,), generator=generator) * 2.0 - 1
    return torch.zeros(len(rows), kept).index_add_(1, bins, rows * signs)
