"""Gates over training: when they settle, and which temperatures fit how often they are open."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from captum_pullback.engine.temperature import module_entry
from captum_pullback.lens.arrays import Floats
from captum_pullback.lens.reading import Final, Reader
from captum_pullback.lens.stability import Settledness, likeliest_temperature, settledness

__all__ = ["agreement", "fitted_temperatures", "open_share", "settled_share", "settled_units"]


def agreement(reader: Reader) -> dict[str, Floats]:
    """See `TrainingLens.agreement`."""
    last = reader.open_gates(reader.recorded()[-1])
    shares: dict[str, list[float]] = {name: [] for name in last}
    for step in reader.recorded():
        for name, (bits, units) in reader.open_gates(step).items():
            differ = np.unpackbits(np.bitwise_xor(bits, last[name][0])).sum()
            shares[name].append(1 - differ / (len(bits) * units))
    return {name: np.array(values) for name, values in shares.items()}


def settled_share(reader: Reader) -> dict[str, Floats]:
    """See `TrainingLens.settled_share`."""
    steps = reader.recorded()
    last = reader.open_gates(steps[-1])
    moved = {name: np.zeros_like(bits) for name, (bits, _) in last.items()}
    shares: dict[str, list[float]] = {name: [] for name in last}
    for step in reversed(steps):
        for name, (bits, units) in reader.open_gates(step).items():
            moved[name] |= bits ^ last[name][0]
            shares[name].insert(0, 1 - np.unpackbits(moved[name]).sum() / (len(bits) * units))
    return {name: np.array(values) for name, values in shares.items()}


def settled_units(reader: Reader, model: nn.Module, since: float) -> dict[str, Settledness]:
    """See `TrainingLens.settledness`."""
    steps = reader.span(since)[:-1]
    result = {}
    for gate in reader.final_gates(model):
        settled = np.ones(gate.z.shape, dtype=bool)
        for step in steps:
            settled &= reader.states(step, gate) == gate.open
        result[gate.name] = settledness(gate.z, settled)
    return result


def open_share(reader: Reader, model: nn.Module, since: float) -> dict[str, tuple[Floats, Floats]]:
    """See `TrainingLens.open_share`."""
    steps = reader.span(since)[:-1]
    return {
        gate.name: (gate.z, reader.share_open(gate, steps)) for gate in reader.final_gates(model)
    }


def fitted_temperatures(
    reader: Reader, model: nn.Module, since: float, per_channel: bool
) -> dict[str, float | Tensor]:
    """See `TrainingLens.fit_temperatures`."""
    steps = reader.span(since)[:-1]
    gates = reader.final_gates(model, whole=per_channel)
    channels: dict[str, set[tuple[tuple[int, ...], int]]] = {}
    for gate in gates:
        channels.setdefault(gate.module, set()).add((gate.shape[:1], len(gate.shape)))
    modules: dict[str, list[tuple[Final, Floats, Floats]]] = {}
    for gate in gates:
        z, opened = gate.z, reader.share_open(gate, steps)
        same = len(channels[gate.module]) == 1 and gate.shape != ()
        split = per_channel and gate.module != "" and same
        groups = gate.shape[0] if split else 1
        if split:
            z, opened = (
                np.moveaxis(part.reshape(-1, groups, math.prod(gate.shape[1:])), 1, 0)
                for part in (z, opened)
            )
        rows = z.reshape(groups, -1), opened.reshape(groups, -1)
        modules.setdefault(gate.module, []).append((gate, *rows))
    result: dict[str, float | Tensor] = {}
    every: list[float] = []
    for module, calls in modules.items():
        fitted = likeliest_temperature(
            np.concatenate([z for _, z, _ in calls], axis=1),
            np.concatenate([opened for _, _, opened in calls], axis=1),
        )
        every += fitted.tolist()
        shape = (-1, *(1,) * (len(calls[0][0].shape) - 1))
        fits = torch.from_numpy(fitted).float().reshape(shape)
        result[module_entry(module)] = fits if len(fitted) > 1 else float(fitted[0])
    result.setdefault("", float(np.median(every)))
    return result
