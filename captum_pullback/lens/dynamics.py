r"""Training, watched: effective weights and gates over the steps of a run.

Two views of one network in training. Its effective weights say what affine map it has become at
each of some inputs (arXiv 2511.05628); its gates say along which paths, and whether these stand
still (arXiv 2507.22832).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captum_pullback.engine.models import on_copies
from captum_pullback.engine.softening import soften
from captum_pullback.lens.paths import FixedPaths
from captum_pullback.lens.reading import Final, Reader, name_of
from captum_pullback.lens.recording import Rows, device_of, in_eval_mode
from captum_pullback.lens.similarity import (
    Similarity,
    Subclasses,
    class_similarity,
    cosines,
    subclasses,
    summarised,
)
from captum_pullback.lens.stability import (
    Settledness,
    likeliest_temperature,
    settledness,
    step_weights,
)

__all__ = ["Alignment", "TrainingLens", "scikit_learn"]

Floats = npt.NDArray[np.float64]


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


class TrainingLens(Reader):
    """Records effective weights and gates at some inputs during training, and measures them.

    ::

        lens = TrainingLens(inputs, labels, "runs/lens")
        for step, batch in enumerate(batches):
            if step % 100 == 0:
                lens.record(model, step)
            train(model, batch)
        lens.record(model, step + 1)
        print(lens.similarity().margin, lens.agreement())

    Each record is a file, whole or absent; a run that is started again skips the steps that are
    there. Memory holds one step at a time.

    Args:
        inputs: The examples to watch, (N, ...); some tens to hundreds. Held out ones tell about
            the function, training ones about its training.
        labels: Their classes, (N,), integers.
        folder: Where to keep the record; None for a temporary folder that goes with the lens.
        gates: Whether to record gates: N forward passes a step.
        weights: ``"all"`` records the effective weights of all C classes (C backward passes for
            each example), ``"label"`` those of each example's own class alone (one), and None
            records none.
        kept: Numbers kept of each example's weight of its own class, for projections; a longer
            weight is sketched (random signs, added up in so many bins), which keeps inner
            products to about 1 / sqrt(kept).
        batch_size: Examples in one forward pass.
        max_bytes: About how much memory the weights, and the gradients of one backward pass, may
            take.

    Raises:
        ValueError: Inputs and labels that do not fit each other.
        LensError: The folder holds the record of other inputs or settings.
    """

    # Effective weights

    def similarity(self, rows: Rows = "label") -> Similarity:
        """Cosine similarity of effective weights within and between classes, over training.

        Args:
            rows: ``"label"`` compares the weights of each example's own class, ``"all"`` those
                of all classes together. Only the second compares like with like between classes:
                weights of two different classes are near to orthogonal from the start.
        """
        key = self.key(rows)
        matrices = []
        for arrays in self.arrays():
            matrices.append(class_similarity(cosines(arrays[key]), self.labels.numpy()))
        return summarised(self.recorded(), matrices)

    def subclasses(self, rows: Rows = "label") -> Subclasses:
        """Two groups in each class at the last step, and when they came apart."""
        key = self.key(rows)
        return subclasses([arrays[key] for arrays in self.arrays()], self.labels.numpy())

    def accuracy(self) -> Floats:
        """The share of the examples that came out right, for each step, (S,)."""
        self.key("label")
        labels = self.labels.numpy()
        right = [float((a["logits"].argmax(1) == labels).mean()) for a in self.arrays()]
        return np.array(right)

    def rows(self, steps: Sequence[int] | None = None) -> npt.NDArray[np.float32]:
        """Weights of each example's own class, of length 1 and perhaps sketched, (S, N, kept).

        Args:
            steps: Which of the recorded steps; None for all.
        """
        self.key("label")
        rows = np.stack([arrays["rows"] for arrays in self.arrays(steps)])
        norms = np.linalg.norm(rows, axis=2, keepdims=True)
        return (rows / np.where(norms > 0, norms, 1)).astype(np.float32)

    def projection(
        self,
        method: Literal["pca", "tsne"] = "pca",
        steps: Sequence[int] | None = None,
        seed: int = 0,
    ) -> Floats:
        """Trajectories of the weights of each example's own class in two dimensions, (S, N, 2).

        One map for all steps, of weights scaled to length 1.

        Args:
            method: Principal components, or t-SNE (of the 30 first components).
            steps: Which of the recorded steps; None for all.
            seed: Of t-SNE.

        Raises:
            ImportError: For t-SNE scikit-learn is wanted, ``pip install 'captum-pullback[lens]'``.
        """
        rows = self.rows(steps)
        flat = rows.reshape(-1, rows.shape[2]).astype(np.float64)
        flat -= flat.mean(0)
        _, _, axes = np.linalg.svd(flat, full_matrices=False)
        # An axis has no sign of its own: its largest entry is positive.
        signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
        places = flat @ (axes * signs[:, None])[: 2 if method == "pca" else 30].T
        if method == "tsne":
            spread = max(float(places[:, 0].std()), 1e-12)
            tsne = scikit_learn("manifold").TSNE(
                perplexity=min(30.0, (len(flat) - 1) / 3),
                init=(places[:, :2] / spread * 1e-4).astype(np.float32),
                random_state=seed,
            )
            places = tsne.fit_transform(places.astype(np.float32))
        return np.asarray(places, dtype=np.float64).reshape(*rows.shape[:2], 2)

    # Gates

    @property
    def layers(self) -> list[str]:
        """The names of the gates of single units, in the order of running."""
        with self.files.read(self.recorded()[-1]) as arrays:
            return [name_of(key) for key in arrays if key.startswith("open:")]

    def agreement(self) -> dict[str, Floats]:
        """For each layer, the share of gates that are at each step as they are at last, (S,)."""
        last = self.open_gates(self.recorded()[-1])
        shares: dict[str, list[float]] = {name: [] for name in last}
        for step in self.recorded():
            for name, (bits, units) in self.open_gates(step).items():
                differ = np.unpackbits(np.bitwise_xor(bits, last[name][0])).sum()
                shares[name].append(1 - differ / (len(bits) * units))
        return {name: np.array(values) for name, values in shares.items()}

    def settled_share(self) -> dict[str, Floats]:
        """For each layer, the share of gates that stay as they are from each step on, (S,)."""
        steps = self.recorded()
        last = self.open_gates(steps[-1])
        moved = {name: np.zeros_like(bits) for name, (bits, _) in last.items()}
        shares: dict[str, list[float]] = {name: [] for name in last}
        for step in reversed(steps):
            for name, (bits, units) in self.open_gates(step).items():
                moved[name] |= bits ^ last[name][0]
                shares[name].insert(0, 1 - np.unpackbits(moved[name]).sum() / (len(bits) * units))
        return {name: np.array(values) for name, values in shares.items()}

    def settledness(self, model: nn.Module, since: float = 0.5) -> dict[str, Settledness]:
        """For each layer, how well :math:`|z|` of the final model tells which gates are settled.

        Settled is a gate that was as it is at last at every record from the share ``since`` of
        the training on.

        Args:
            model: The model of the last record.
            since: From where on, as a share of the training.
        """
        steps = self.span(since)[:-1]
        result = {}
        for gate in self.final_gates(model):
            settled = np.ones(gate.z.shape, dtype=bool)
            for step in steps:
                settled &= self.states(step, gate) == gate.open
            result[gate.name] = settledness(gate.z, settled)
        return result

    def open_share(self, model: nn.Module, since: float = 0.5) -> dict[str, tuple[Floats, Floats]]:
        """For each layer, final pre-activations z, and the share of records each gate was open.

        Args:
            model: The model of the last record.
            since: From where on, as a share of the training; the last record does not count,
                whose z it is.

        Returns:
            Two arrays of shape (gates,) for each layer, of at most about a million gates.
        """
        steps = self.span(since)[:-1]
        return {
            gate.name: (gate.z, self.share_open(gate, steps)) for gate in self.final_gates(model)
        }

    def fit_temperatures(
        self, model: nn.Module, since: float = 0.5, *, per_channel: bool = False
    ) -> dict[str, float | Tensor]:
        r"""The temperatures for which :math:`\sigma(z/T)` best is the probability to be open.

        By maximum likelihood, over the records from the share ``since`` of training on; the last
        record itself, whose z is asked, does not count.

        Args:
            model: The model of the last record.
            since: From where on, as a share of the training.
            per_channel: Whether each channel (dimension 1 of z) gets a temperature of its own.
                Not where a module runs several gates, and not all have the same channels.

        Returns:
            For each module's name a temperature, to be given to `ExcitationPullback` or `soften`
            as it is; per channel a tensor that broadcasts against the gate's input. ``""`` holds
            the median of them, which pools and gates without a module take.
        """
        steps = self.span(since)[:-1]
        gates = self.final_gates(model, whole=per_channel)
        channels: dict[str, set[tuple[tuple[int, ...], int]]] = {}
        for gate in gates:
            channels.setdefault(gate.module, set()).add((gate.shape[:1], len(gate.shape)))
        modules: dict[str, list[tuple[Final, Floats, Floats]]] = {}
        for gate in gates:
            z, opened = gate.z, self.share_open(gate, steps)
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
            result[module] = fits if len(fitted) > 1 else float(fitted[0])
        result.setdefault("", float(np.median(every)))
        return result

    # The fixed-path machine

    @contextmanager
    def averaged_gates(self, examples: slice, since: float = 0.0) -> Iterator[None]:
        """Gradients inside go through the gates averaged over training, at these examples.

        A forward pass over ``lens.inputs[examples]`` inside gives the model's usual output, and
        its gradient is the fixed-path machine's of the path stability hypothesis (arXiv
        2507.22832). Each record counts for the share of training that it stands for.

        Args:
            examples: Which of the inputs, in the order in which they go into the model.
            since: From which share of the training on gates are averaged.
        """
        steps = self.span(since)
        weights = step_weights(steps)
        with self.files.read(steps[0]) as first:
            keys = [key for key in first if key.startswith(("open:", "choice:"))]
            shapes = [first[f"shape:{number}"] for number in range(len(keys))]
        gates: list[Any] = [0.0 if key.startswith("open:") else [] for key in keys]
        for weight, step in zip(weights, steps, strict=True):
            with self.files.read(step) as arrays:
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

    def alignment(
        self,
        model: nn.Module,
        temperatures: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, math.inf),
        *,
        since: float = 0.0,
    ) -> Alignment:
        """Cosine similarity of pullbacks and of the gradient with the averaged-gate machine's.

        All are gradients of the logit of the example's own class with respect to the input.

        Args:
            model: The model of the last record.
            temperatures: Of the pullbacks.
            since: From which share of the training on gates are averaged.
        """
        machines = self.machine(model, since=since)
        device = device_of(model)
        plain: list[Floats] = []
        soft: dict[float, list[Floats]] = {float(t): [] for t in temperatures}
        with in_eval_mode(model):
            for batch in self.batches():
                inputs, labels = self.inputs[batch].to(device), self.labels[batch].to(device)
                plain.append(_cosine(_gradient(model, inputs, labels), machines[batch]))
                for temperature, found in soft.items():
                    with soften(model, temperature):
                        pullback = _gradient(model, inputs, labels)
                    found.append(_cosine(pullback, machines[batch]))
        return Alignment(
            np.concatenate(plain), {t: np.concatenate(parts) for t, parts in soft.items()}
        )

    def machine(self, model: nn.Module, *, since: float = 0.0) -> Tensor:
        """The averaged-gate machine's gradients of the examples' own classes, (N, ...)."""
        device = device_of(model)
        gradients = []
        with in_eval_mode(model):
            for batch in self.batches():
                inputs, labels = self.inputs[batch].to(device), self.labels[batch].to(device)
                with self.averaged_gates(batch, since):
                    gradients.append(_gradient(model, inputs, labels).cpu())
        return torch.cat(gradients)


def scikit_learn(module: str) -> Any:
    """A module of scikit-learn, which only t-SNE and the digits need."""
    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError("this needs scikit-learn: pip install 'captum-pullback[lens]'") from error


def _gradient(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    leaf = inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        picked = on_copies(model, leaf).gather(1, labels[:, None]).sum()
        return torch.autograd.grad(picked, leaf)[0]


def _cosine(gradient: Tensor, other: Tensor) -> Floats:
    one, two = gradient.flatten(1).double().cpu(), other.flatten(1).double().cpu()
    similarity: Floats = torch.cosine_similarity(one, two, dim=1).numpy()
    return similarity
