"""The command ``lens``: from a training run to a page with figures."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from captum_pullback.commands.checkpoints import (
    Examples,
    check_classes,
    checkpoints,
    digits_run,
    examples,
    fill,
    network_for,
    read_state,
)
from captum_pullback.commands.lens_page import report
from captum_pullback.commands.terminal import say
from captum_pullback.effective import NotPiecewiseLinearError
from captum_pullback.engine.errors import SofteningError
from captum_pullback.engine.models import on_copies
from captum_pullback.lens.dynamics import TrainingLens
from captum_pullback.lens.stepfiles import LensError
from captum_pullback.study.errors import UsageError, blamed
from captum_pullback.study.text import printable
from captum_pullback.zoo.network import preprocessing

__all__ = ["report", "run"]

Models = Iterator[tuple[int, nn.Module]]


def run(args: argparse.Namespace) -> int:
    """Record what has not been recorded yet, and write the report.

    Returns:
        0.

    Raises:
        UsageError: The request cannot be carried out.
        OSError: A file cannot be written.
    """
    if (args.checkpoints is None) != (args.data is None):
        raise UsageError("--checkpoints and --data go together: give both, or neither for digits")
    if args.checkpoints is None and (args.model or args.size):
        raise UsageError("--model and --size need --checkpoints and --data, which they describe")
    try:
        if args.checkpoints is None:
            watched, models = digits_run(args.seed, args.per_class or 20)
            count, what = None, "a perceptron on scikit-learn's handwritten digits"
        else:
            watched, models, count, what = _saved_run(
                Path(args.checkpoints), Path(args.data), args.model, args.size, args.per_class or 5
            )
        with _folder(Path(args.out)) as out:
            lens = TrainingLens(
                watched.inputs, watched.labels, out / "record", weights=args.weights
            )
            model = _recorded(lens, models, count, watched)
            numbers = report(lens, model, watched, out, printable(what))
    except (LensError, NotPiecewiseLinearError, SofteningError, ImportError) as error:
        raise UsageError(str(error)) from error
    say(f"wrote {printable(str(out / 'lens.md'))}\n{summary(numbers)}")
    return 0


def summary(numbers: dict[str, Any]) -> str:
    """Summarize a report in a few lines for the terminal."""
    steps = numbers["steps"]
    lines = [f"{len(steps)} steps, {steps[0]:,} to {steps[-1]:,}"]
    if "within" in numbers:
        within, between = numbers["within"], numbers["between"]
        lines.append(
            "effective weights, mean cosine from first to last step: "
            f"within a class {within[0]:.2f} to {within[-1]:.2f}, "
            f"between classes {between[0]:.2f} to {between[-1]:.2f}"
        )
    middle = len(steps) // 2
    agreement, settled = numbers["agreement"], numbers["settled"]
    lines.append(
        f"gates at step {steps[middle]:,}: {100 * agreement[middle]:.0f} % agree with the end, "
        f"{100 * settled[middle]:.0f} % never flip again"
    )
    areas = list(numbers["auc"].values())
    if not np.isnan(areas).all():
        mean = np.nanmean(areas)
        lines.append(f"distance from 0 tells which gates settled: AUC {mean:.2f} (0.5 is chance)")
    values = [value for name, value in numbers["temperatures"].items() if name]
    if values:
        lines.append(f"temperatures fitted to the gates: {min(values):.3g} to {max(values):.3g}")
    cosines = dict(numbers["alignment"])
    gradient = cosines.pop("gradient")
    best = max(cosines, key=lambda t: float(cosines[t]))
    lines.append(
        f"cosine with the gradient through averaged gates: plain gradient {gradient:.3f}, "
        f"pullback {cosines[best]:.3f} at T = {float(best):g}"
    )
    return "\n".join(lines)


def _saved_run(
    folder: Path, data: Path, model: str | None, size: int | None, per_class: int
) -> tuple[Examples, Models, int, str]:
    """Return the examples, the models at each step, their number, and a description of the run."""
    files = checkpoints(folder)
    found = network_for(read_state(files[0][1]), model)
    network, prepare = found.model, found.preprocess
    if size is not None and size != found.input_size:
        prepare = preprocessing(size, None, found.mean, found.std)
    watched = examples(data, prepare, per_class)
    if data.is_dir():
        check_classes(network, watched)
    what = f"{len(files)} checkpoints of {model or type(network).__name__}"
    return watched, ((step, fill(network, path)) for step, path in files), len(files), what


def _recorded(
    lens: TrainingLens, models: Models, count: int | None, watched: Examples
) -> nn.Module:
    """Record all models, and return the last."""
    model: nn.Module | None = None
    with tqdm(models, "record", count, unit="step", disable=None, leave=False) as bar:
        for step, model in bar:
            bar.set_postfix_str(f"step {step}")
            try:
                _check(model, watched)
                lens.record(model, step)
            except (LensError, NotPiecewiseLinearError, SofteningError, UsageError, OSError):
                raise
            except Exception as error:  # anything at all: the module may be the user's own
                raise blamed(error, f"{type(model).__name__} fails at step {step}") from error
    if model is None:
        raise UsageError("there was nothing to record")
    return model


def _check(model: nn.Module, watched: Examples) -> None:
    """Check that the model returns finite logits (N, C), C at least the number of classes.

    Raises:
        UsageError: It does not.
    """
    with torch.no_grad():
        output = on_copies(model, watched.inputs[:1])
    if not isinstance(output, Tensor) or output.dim() != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UsageError(f"the network returns {shape}; expected one tensor of logits (N, classes)")
    if not output.isfinite().all():
        raise UsageError("the network's scores are NaN or infinite")


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """Create a folder if necessary, and remove it after an error if nothing was recorded.

    Raises:
        UsageError: It cannot be created.
    """
    new = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "it is a file" if path.is_file() else error.strerror
        raise UsageError(f"{path}: cannot create this folder ({why}); choose another") from error
    try:
        yield path
    except BaseException:
        if new and not any(path.glob("record/step_*.npz")):
            shutil.rmtree(path, ignore_errors=True)
        raise
