r"""Effective weights and gates over the steps of a training run.

Two views of one network in training. Its effective weights say what affine map it has become at
each of some inputs (arXiv 2511.05628); its gates say along which paths, and whether these stay
the same (arXiv 2507.22832).
"""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captum_pullback.lens import lightning, machine, settling, trajectories
from captum_pullback.lens.arrays import Floats, Singles
from captum_pullback.lens.machine import Alignment
from captum_pullback.lens.reading import Reader
from captum_pullback.lens.recording import Recorder, Rows
from captum_pullback.lens.similarity import Similarity, Subclasses
from captum_pullback.lens.stability import Settledness
from captum_pullback.lens.stepfiles import StepFiles
from captum_pullback.lens.watched import Watched

__all__ = ["Alignment", "TrainingLens"]


class TrainingLens:
    """Records effective weights and gates at some inputs during training, and measures them.

    ::

        lens = TrainingLens(inputs, labels, "runs/lens")
        for step, batch in enumerate(batches):
            if step % 100 == 0:
                lens.record(model, step)
            train(model, batch)
        lens.record(model, step + 1)
        print(lens.similarity().margin, lens.agreement())

    It watches the gates of the ReLU family, max pools, and GELU, SiLU and hardswish, which count
    as open where they pass on more than half. The measures of paths (agreement, settledness, open
    shares, temperatures, the averaged-gate machine) are exact for gates that are open or closed,
    as the hypothesis assumes; for these three, gates are rounded to open or closed. Gates of
    normalization, attention and products are not watched.

    Each record is a file, either complete or absent; a run that is started again skips the steps
    that were recorded. Memory holds one step at a time.

    Args:
        inputs: The examples to watch, (N, ...); dozens to hundreds. Held-out examples show what the
            function is, training examples how it was trained.
        labels: Their classes, (N,), integers.
        folder: Where to keep the record; None for a temporary folder that is removed with the lens.
        gates: Whether to record gates, which takes N forward passes per step.
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
        watched = Watched(inputs.detach().cpu(), torch.as_tensor(labels).cpu(), batch_size)
        if not gates and weights is None:
            raise ValueError("there is nothing to record: gates and weights are both off")
        self.inputs, self.labels = watched.inputs, watched.labels
        self.gates, self.weights, self.kept = gates, weights, kept
        self.batch_size, self.max_bytes = batch_size, max_bytes
        if folder is None:
            folder = tempfile.mkdtemp(prefix="lens-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        settings = {"gates": gates, "weights": weights, "kept": kept}
        self.files = StepFiles(folder, {**watched.description, **settings})
        self._reader = Reader(watched, self.files, gates, weights)
        self._recorder = Recorder(watched, self.files, gates, weights, kept, max_bytes)

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
            Whether it was recorded: False if this step was recorded before.

        Raises:
            NotPiecewiseLinearError: Weights are recorded, and the network with its gates held is
                not an affine map.
            SofteningError: Gates are recorded, but none ran.
        """
        return self._recorder.record(model, step)

    def interval(self, classes: int, batch_size: int, share: float = 0.05) -> int:
        """Return how many steps to leave between records to keep their cost to a share of training.

        Cost is counted in passes of one example through the network, forward or backward to the
        input; a training step's backward pass, which also goes to the weights, counts two. So a
        step of B examples costs 3 B, and a record of N costs N for gates, and N (2 + C) for the
        weights of C classes (3 N for ``weights="label"``) where they fit into ``max_bytes``.

        Args:
            classes: C.
            batch_size: B, of the training.
            share: The share of the training's cost, above 0.
        """
        rows = {"all": 2 + classes, "label": 3, None: 0}[self.weights]
        cost = len(self.labels) * (int(self.gates) + rows)
        return max(1, math.ceil(cost / (3 * batch_size * share)))

    def callback(
        self, every: int, model: Callable[[Any], nn.Module] = lambda module: module
    ) -> Any:
        """Return a Lightning callback that records every ``every`` steps, and at the end.

        Args:
            every: Steps between records; see `interval`.
            model: From the LightningModule to the network that gives logits.

        Returns:
            A ``Callback`` of lightning or pytorch_lightning, where one of them is installed; else
            an object with the same methods.
        """
        return lightning.callback(self.record, every, model)

    # Effective weights

    def similarity(self, rows: Rows = "label") -> Similarity:
        """Measure the cosine similarity of effective weights within and between classes.

        Args:
            rows: ``"label"`` compares the weights of each example's own class, ``"all"`` those of
                all classes together. Only the second compares like with like between classes:
                weights of two different classes are nearly orthogonal from the start.
        """
        return trajectories.similarity(self._reader, rows)

    def subclasses(self, rows: Rows = "label") -> Subclasses:
        """Split each class in two groups at the last step, and follow them back in time."""
        return trajectories.subclasses(self._reader, rows)

    def accuracy(self) -> Floats:
        """Return the share of the examples that were classified correctly, for each step, (S,)."""
        return trajectories.accuracy(self._reader)

    def rows(self, steps: Sequence[int] | None = None) -> Singles:
        """Return weights of each example's own class, of length 1, perhaps sketched, (S, N, kept).

        Args:
            steps: Which of the recorded steps; None for all.
        """
        return trajectories.unit_rows(self._reader, steps)

    def projection(
        self,
        method: Literal["pca", "tsne"] = "pca",
        steps: Sequence[int] | None = None,
        seed: int = 0,
    ) -> Floats:
        """Project the weights of each example's own class to two dimensions, (S, N, 2).

        One map for all steps, of weights scaled to length 1.

        Args:
            method: Principal components, or t-SNE (of the 30 first components).
            steps: Which of the recorded steps; None for all.
            seed: Of t-SNE.

        Raises:
            ImportError: t-SNE needs scikit-learn: ``pip install 'captum-pullback[lens]'``.
        """
        return trajectories.projected(self.rows(steps), method, seed)

    # Gates

    @property
    def layers(self) -> list[str]:
        """The names of the gates of single units, in the order in which they ran."""
        return self._reader.layers()

    def agreement(self) -> dict[str, Floats]:
        """Return, for each layer, the share of gates that agree with the last step, (S,)."""
        return settling.agreement(self._reader)

    def settled_share(self) -> dict[str, Floats]:
        """Return, for each layer, the share of gates that never change after each step, (S,)."""
        return settling.settled_share(self._reader)

    def settledness(self, model: nn.Module, since: float = 0.5) -> dict[str, Settledness]:
        """Measure, for each layer, how well the final :math:`|z|` predicts which gates are settled.

        Args:
            model: The model of the last record.
            since: A gate is settled if it has its final state at every record from this share of
                the training on.
        """
        return settling.settled_units(self._reader, model, since)

    def open_share(self, model: nn.Module, since: float = 0.5) -> dict[str, tuple[Floats, Floats]]:
        """Return, for each layer, final pre-activations z and how often each gate was open.

        Args:
            model: The model of the last record.
            since: The share of training from which records count; the last record, which z comes
                from, does not.

        Returns:
            Two arrays of shape (gates,) for each layer, of at most about a million gates.
        """
        return settling.open_share(self._reader, model, since)

    def fit_temperatures(
        self, model: nn.Module, since: float = 0.5, *, per_channel: bool = False
    ) -> dict[str, float | Tensor]:
        r"""Fit temperatures, such that :math:`\sigma(z/T)` is the probability that a gate is open.

        By maximum likelihood, over the records from the share ``since`` of training on; the last
        record, which z comes from, does not count.

        Args:
            model: The model of the last record.
            since: The share of the training from which records count.
            per_channel: Whether each channel (dimension 1 of z) gets a temperature of its own.
                Not where a module runs several gates, and not all have the same channels.

        Returns:
            For each module's name a temperature, to be given to `ExcitationPullback` or `soften`
            as it is; per channel a tensor that broadcasts against the gate's input. A module with
            the name of a kind of gate is written ``"module:relu"``. ``""`` holds the median of
            them, which pools and gates without a module take.
        """
        return settling.fitted_temperatures(self._reader, model, since, per_channel)

    # The fixed-path machine

    def averaged_gates(self, examples: slice, since: float = 0.0) -> AbstractContextManager[None]:
        """Send gradients inside the block through gates averaged over training, at these examples.

        A forward pass over ``lens.inputs[examples]`` inside gives the model's usual output, and
        its gradient is the fixed-path machine's of the path stability hypothesis (arXiv
        2507.22832). Each record counts for the share of training that it stands for.

        Args:
            examples: Which of the inputs, in the order in which they go into the model.
            since: From which share of the training on gates are averaged.
        """
        return machine.averaged_gates(self._reader, examples, since)

    def alignment(
        self,
        model: nn.Module,
        temperatures: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, math.inf),
        *,
        since: float = 0.0,
    ) -> Alignment:
        """Compare pullbacks and the gradient with the averaged-gate machine, by cosine.

        All are gradients of the logit of the example's own class with respect to the input.

        Args:
            model: The model of the last record.
            temperatures: Of the pullbacks.
            since: From which share of the training on gates are averaged.
        """
        return machine.aligned(self._reader, model, temperatures, since)

    def machine(self, model: nn.Module, *, since: float = 0.0) -> Tensor:
        """Return the averaged-gate machine's gradients of the examples' own classes, (N, ...)."""
        return machine.machine_gradients(self._reader, model, since)
