"""The digits run of docs/linear_lens.md: ``python -m benchmarks.lens_digits``.

Trains the command ``lens``'s perceptron anew, puts its figures into ``docs/figures`` and its
numbers into ``benchmarks/results/lens_digits.json``. About a minute on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.provenance import command, versions, write_json
from captum_pullback.commands.checkpoints import digits_run
from captum_pullback.commands.lens import report
from captum_pullback.lens.dynamics import TrainingLens

ROOT = Path(__file__).parent.parent
FIGURES = ("similarity", "tsne")


def main() -> None:
    """Trains, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-class", type=int, default=20)
    args = parser.parse_args()
    watched, models = digits_run(args.seed, args.per_class)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        lens = TrainingLens(watched.inputs, watched.labels, out / "record")
        for step, model in models:
            lens.record(model, step)
        numbers, steps = report(lens, model, watched, out, "digits"), list(lens.steps)
        for name in FIGURES:
            shutil.copy(out / f"{name}.png", ROOT / "docs" / "figures" / f"lens_{name}.png")
    kept = ("within", "between", "within_all", "between_all", "agreement", "settled")
    result = {
        "command": command("benchmarks.lens_digits", args),
        "versions": versions(),
        "examples": len(watched.labels),
        "steps": steps,
        **{key: np.round(numbers[key], 6).tolist() for key in kept},
    }
    write_json(ROOT / "benchmarks" / "results" / "lens_digits.json", result)


if __name__ == "__main__":
    main()
