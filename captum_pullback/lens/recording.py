"""Recording effective weights and gates of a network in training, to files."""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captum_pullback.effective import effective_weights
from captum_pullback.engine.models import named_modules, on_copies
from captum_pullback.lens.paths import Gate, read_gates
from captum_pullback.lens.stepfiles import LensError, StepFiles

__all__ = ["Recorder", "Rows", "device_of", "in_eval_mode"]

Array = npt.NDArray[Any]
Rows = Literal["label", "all"]


class Recorder:
    """The recording half of `TrainingLens`, which says what the arguments are."""

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor | Sequence[int],
        folder: str | Path | None = None,
        *,
        gates: bool = True,
        weights: Rows | None = "all",
        kept: int = 1024,
        batch_size: int = 64,
        max_bytes: int = 2**28,
    ) -> None:
        self.inputs = inputs.detach().cpu()
        self.labels = torch.as_tensor(labels).cpu()
        if self.labels.shape != self.inputs.shape[:1] or not len(self.labels):
            raise ValueError(
                f"{tuple(self.labels.shape)} labels for inputs of shape {tuple(inputs.shape)}: "
                "give one for each"
            )
        if not gates and weights is None:
            raise ValueError("there is nothing to record without gates and without weights")
        self.gates, self.weights, self.kept = gates, weights, kept
        self.batch_size, self.max_bytes = batch_size, max_bytes
        if folder is None:
            folder = tempfile.mkdtemp(prefix="lens-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        digest = hashlib.sha256(self.inputs.contiguous().numpy().tobytes()).hexdigest()
        self.files = StepFiles(
            folder,
            {
                "inputs": digest,
                "labels": self.labels.tolist(),
                "gates": gates,
                "weights": weights,
                "kept": kept,
            },
        )

    @property
    def steps(self) -> list[int]:
        """The steps that are recorded, ascending."""
        return self.files.steps

    def record(self, model: nn.Module, step: int) -> bool:
        """Record the model as it is now. It is watched in eval mode, and left as it was.

        Args:
            model: Maps inputs to logits (N, C). It may be on any device.
            step: A number of 0 or more that grows over training.

        Returns:
            Whether it was recorded: False where this step was there already.

        Raises:
            NotPiecewiseLinearError: Weights are recorded, and the network is not piecewise
                linear.
            SofteningError: Gates are recorded, and none was met.
        """
        if step < 0:
            raise ValueError(f"step is {step}; steps are 0 or more")
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

    def interval(self, classes: int, batch_size: int, share: float = 0.05) -> int:
        """The least number of steps between records that keeps their cost to a share of training.

        Cost is counted in passes of one example through the network, forward or backward to its
        input; a training step's backward pass, which also goes to the weights, counts two. So a
        step of B examples costs 3 B, and a record of N costs N for gates, and N (2 + C) for the
        weights of C classes (3 N for ``weights="label"``) where they fit into ``max_bytes``.

        Args:
            classes: C.
            batch_size: B, of the training.
            share: Of the cost of the training, above 0.
        """
        rows = {"all": 2 + classes, "label": 3, None: 0}[self.weights]
        cost = len(self.labels) * (int(self.gates) + rows)
        return max(1, math.ceil(cost / (3 * batch_size * share)))

    def callback(
        self, every: int, model: Callable[[Any], nn.Module] = lambda module: module
    ) -> Any:
        """A Lightning callback that records every so many steps, and the end.

        Args:
            every: Steps between records; see `interval`.
            model: From the LightningModule to the network that gives logits.

        Returns:
            A ``Callback`` of lightning or pytorch_lightning, where one of them is installed; else
            an object with the same methods.
        """
        from captum_pullback.lens.lightning import callback

        return callback(self.record, every, model)

    def batches(self) -> Iterator[slice]:
        """The examples, by so many as go into the network at once."""
        for start in range(0, len(self.labels), self.batch_size):
            yield slice(start, start + self.batch_size)

    def _gates(self, model: nn.Module) -> list[tuple[Gate, Array]]:
        """Each gate as one batch ran it, and its states for all examples as they are kept."""
        device = device_of(model)
        parts: list[list[Gate]] = []
        for batch in self.batches():
            gates, _ = read_gates(model, self.inputs[batch].to(device))
            parts.append(gates)
            if [gate.name for gate in gates] != [gate.name for gate in parts[0]]:
                raise LensError("the network runs other gates for some inputs than for others")
        return [
            (calls[0], np.concatenate([_packed(call) for call in calls]))
            for calls in zip(*parts, strict=True)
        ]

    def _weights(self, model: nn.Module) -> dict[str, Array]:
        device = device_of(model)
        count = len(self.labels)
        with torch.no_grad():
            logits = torch.cat(
                [on_copies(model, self.inputs[b].to(device)).cpu() for b in self.batches()]
            )
        classes = logits.shape[1]
        if int(self.labels.max()) >= classes:
            raise LensError(
                f"there are labels up to {int(self.labels.max())}, and the network has logits for "
                f"{classes} classes only"
            )
        size = self.inputs[0].numel()
        arrays = {"logits": logits.float().numpy()}
        own = torch.zeros(count, size)
        if self.weights == "label":
            for batch in self.batches():
                inputs, target = self.inputs[batch].to(device), self.labels[batch].to(device)
                weight, _ = effective_weights(model, inputs, target, max_bytes=self.max_bytes)
                own[batch] = weight.flatten(1).float().cpu()
        else:
            gram = torch.zeros(count, count, dtype=torch.float64)
            at_once = max(1, self.max_bytes // (4 * size * count))
            for first in range(0, classes, at_once):
                rows = slice(first, min(classes, first + at_once))
                weights = torch.empty(count, rows.stop - first, size)
                for batch in self.batches():
                    weight, _ = effective_weights(
                        lambda x, rows=rows: model(x)[:, rows],
                        self.inputs[batch].to(device),
                        max_bytes=self.max_bytes,
                    )
                    weights[batch] = weight.flatten(2).float().cpu()
                mine = (self.labels >= first) & (self.labels < rows.stop)
                own[mine] = weights[mine, self.labels[mine] - first]
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
    """Eight gates to a byte, (N, bytes); or choices as small integers, of their own shape."""
    states = _states(gate).cpu().numpy()
    if gate.open is not None:
        return np.packbits(states.reshape(len(states), -1), axis=1)
    return states.astype(np.uint16 if states.max(initial=0) < 2**16 else np.int64)


def _gram(rows: Tensor) -> Tensor:
    """Inner products, (N, N), of rows (N, D), summed in float64 part by part."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in torch.split(rows, 2**16, dim=1):
        wide = part.double()
        total += wide @ wide.T
    return total


def _sketched(rows: Tensor, kept: int) -> Tensor:
    """Rows (N, D) as they are, or their count sketch (N, kept) where D is more.

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


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are; the CPU for a model without any."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode for a while, and then in the mode in which it was."""
    modes = [(module, module.training) for _, module in named_modules(model)]
    try:
        model.eval()  # a subclass's own, which may fail half way
        yield
    finally:
        for module, training in modes:
            module.training = training
