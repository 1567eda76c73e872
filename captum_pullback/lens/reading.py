"""Reading back what was recorded, in the form that the measures need."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from captum_pullback.lens.arrays import Floats
from captum_pullback.lens.paths import Gate, read_gates
from captum_pullback.lens.recording import Array, Rows
from captum_pullback.lens.stepfiles import LensError, StepFiles
from captum_pullback.lens.watched import Watched, device_of, in_eval_mode

__all__ = ["Final", "Reader"]


_MOST_GATES = 2**20  # of one layer, for measures that sort or fit: more do not change a digit


@dataclass(frozen=True)
class Final:
    """A layer's gates in the final model, at a sample of its units."""

    name: str
    module: str
    key: str
    shape: tuple[int, ...]
    sample: npt.NDArray[np.int64]
    z: Array
    open: Array


def _sample(count: int, units: int, whole: bool) -> npt.NDArray[np.int64]:
    """Return indices into the flattened gates (count, units), evenly spread, a million at most."""
    stride = max(1, -(-count * units // _MOST_GATES))
    if not whole:
        # Coprime to the number of units: otherwise every example would give the same few units.
        while math.gcd(stride, units) > 1:
            stride += 1
        return np.arange(0, count * units, stride)
    examples = np.arange(0, count, stride)
    return (examples[:, None] * units + np.arange(units)).ravel()


class Reader:
    """Reads what a `Recorder` has written of the watched examples."""

    def __init__(
        self, watched: Watched, files: StepFiles, gates: bool, weights: Rows | None
    ) -> None:
        self.watched, self.files = watched, files
        self.gates, self.weights = gates, weights

    def recorded(self) -> list[int]:
        """Return the recorded steps; there must be at least one."""
        steps = self.files.steps
        if not steps:
            raise LensError("nothing is recorded yet: call record(model, step)")
        return steps

    def span(self, since: float) -> list[int]:
        """Return the recorded steps after this share of the training."""
        if not 0 <= since < 1:
            raise ValueError(f"since must be a share of the training in [0, 1), not {since}")
        if not self.gates:
            raise LensError("gates were not recorded: make the lens with gates=True")
        steps = self.recorded()
        begin = steps[0] + since * (steps[-1] - steps[0])
        span = [step for step in steps if step >= begin]
        if len(span) < 2:
            raise LensError(
                f"{len(span)} steps are recorded from share {since} of training on; record more"
            )
        return span

    def key(self, rows: Rows) -> str:
        """Return the name under which these weights' inner products are kept."""
        if self.weights is None or (rows == "all" and self.weights == "label"):
            raise LensError(f"these weights were not recorded: make the lens with weights={rows!r}")
        return f"gram_{rows}"

    def layers(self) -> list[str]:
        """Return the names of the gates of single units, in the order in which they ran."""
        with self.files.read(self.recorded()[-1]) as arrays:
            return [_name_of(key) for key in arrays if key.startswith("open:")]

    def arrays(self, steps: Sequence[int] | None = None) -> Iterator[Mapping[str, Array]]:
        """Yield what was recorded at each step; it is read when it is accessed."""
        for step in self.recorded() if steps is None else steps:
            with self.files.read(step) as arrays:
                yield arrays

    def open_gates(self, step: int) -> dict[str, tuple[Array, int]]:
        """Return each layer's gates at a step, eight to a byte, and its number of units."""
        if not self.gates:
            raise LensError("gates were not recorded: make the lens with gates=True")
        with self.files.read(step) as arrays:
            return {
                _name_of(key): (arrays[key], int(arrays[f"shape:{key.split(':')[1]}"].prod()))
                for key in arrays
                if key.startswith("open:")
            }

    def states(self, step: int, gate: Final) -> npt.NDArray[np.bool_]:
        """Return which of a layer's sampled gates were open at a step."""
        with self.files.read(step) as arrays:
            bits = np.unpackbits(arrays[gate.key], axis=1, count=math.prod(gate.shape))
        states: npt.NDArray[np.bool_] = bits.ravel()[gate.sample].astype(bool)
        return states

    def share_open(self, gate: Final, steps: Sequence[int]) -> Floats:
        """Return the share of these steps for which each of a layer's sampled gates was open."""
        total = np.zeros(gate.z.shape)
        for step in steps:
            total += self.states(step, gate)
        share: Floats = total / len(steps)
        return share

    def final_gates(self, model: nn.Module, *, whole: bool = False) -> list[Final]:
        """Return the gates of the last step with their z, for as many units as the measures need.

        With ``whole``, all units of fewer examples.
        """
        count = len(self.watched.labels)
        parts: dict[str, list[tuple[Gate, Array, Array]]] = {}
        with in_eval_mode(model):
            for batch, inputs, _ in self.watched.on(device_of(model)):
                gates, _ = read_gates(model, inputs, keep_z=True)
                for gate in gates:
                    if gate.open is None or gate.z is None:
                        continue
                    sample = _sample(count, gate.z[0].numel(), whole)
                    first = batch.start * gate.z[0].numel()
                    here = sample[(sample >= first) & (sample < first + gate.z.numel())] - first
                    z = gate.z.float().flatten().cpu().numpy()[here]
                    opened = gate.open.flatten().cpu().numpy()[here]
                    parts.setdefault(gate.name, []).append((gate, z, opened))
        last = self.recorded()[-1]
        with self.files.read(last) as arrays:
            keys = {_name_of(key): key for key in arrays if key.startswith("open:")}
        if list(keys) != list(parts):
            raise LensError("this model has different gates from the one that was recorded")
        finals = []
        for name, calls in parts.items():
            gate = calls[0][0]
            shape = () if gate.open is None else tuple(gate.open.shape[1:])
            sample = _sample(count, math.prod(shape), whole)
            z, opened = (np.concatenate([call[part] for call in calls]) for part in (1, 2))
            final = Final(name, gate.module, keys[name], shape, sample, z, opened)
            if np.mean(self.states(last, final) == opened) < 0.999:
                raise LensError(
                    f"this is not the model of the last record, step {last}: its gates differ"
                )
            finals.append(final)
        return finals


def _name_of(key: str) -> str:
    """Return the name of the gate that an array is of."""
    return key.split(":", 2)[2]
