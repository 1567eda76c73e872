"""Class trajectories and sub-class structure of effective weights, on a small hybrid network.

``python -m benchmarks.lens_hybrid --data DIR --out RUNS`` joins every class of photographs with the
next one, trains networks of the hybrid's kind (GELU, LayerNorm, attention, squeeze-and-excitation)
on the joined classes, and follows the effective weights of held-out photographs. Whether the two
classes that make up a joined one come apart is asked without showing them to the network. Writes
``benchmarks/results/lens_hybrid.json`` and a figure of ``docs/linear_lens.md``. Started again it
goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks import train_reference
from benchmarks.pictures import Split, first_of_each, normalize, read_split
from benchmarks.provenance import device, versions
from benchmarks.stability_train import smaller
from captum_pullback import TrainingLens
from captum_pullback.commands.checkpoints import checkpoints, fill
from captum_pullback.lens.similarity import class_similarity, subclasses
from captum_pullback.lens.style import BETWEEN, WITHIN
from captum_pullback.zoo.hybrid import HybridNet

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "lens_hybrid.json"
FIGURE = ROOT / "docs" / "figures" / "lens_hybrid.png"
SIZE, WIDTHS = 32, (16, 32, 64, 80)
SHUFFLES = 1000


def joined(labels: Tensor) -> Tensor:
    """Return the number of the joined class: 0 of 0 and 1, 1 of 2 and 3, and so on."""
    return labels // 2


def build(_: argparse.Namespace, classes: int) -> HybridNet:
    """Return a small hybrid with fresh weights."""
    return HybridNet(classes, WIDTHS, SIZE)


def agreement(groups: Any, hidden: Any, labels: Any) -> float:
    """Return the share of examples for which two groups of each class are its hidden classes.

    Which group is which does not count, so that the least is one half.
    """
    shares = []
    for label in np.unique(labels):
        members = labels == label
        same = float(np.mean(groups[members] == hidden[members] % 2))
        shares.append(max(same, 1 - same))
    return float(np.mean(shares))


def by_chance(groups: Any, hidden: Any, labels: Any) -> tuple[float, float]:
    """Return the mean agreement with hidden classes that are shuffled, and its 97.5 % quantile."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(SHUFFLES):
        shuffled = hidden.copy()
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            shuffled[members] = shuffled[generator.permutation(members)]
        found.append(agreement(groups, shuffled, labels))
    return float(np.mean(found)), float(np.quantile(found, 0.975))


def apart(similarity: Any, hidden: Any) -> tuple[float, float]:
    """Return the mean cosine within hidden classes, and between the two of one joined class."""
    pairs = class_similarity(similarity, hidden)
    first = np.arange(0, len(pairs), 2)
    return float(np.diagonal(pairs).mean()), float(pairs[first, first + 1].mean())


def features(model: HybridNet, inputs: Tensor) -> Tensor:
    """Return what the last linear layer gets, (N, features)."""
    found: list[Tensor] = []
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with last.register_forward_pre_hook(lambda _, given: found.append(given[0])), torch.no_grad():
        model(inputs)
    return found[0]


def measure(folder: Path, inputs: Tensor, hidden: Tensor) -> dict[str, Any]:
    """Follow the effective weights of each example's own joined class through one run."""
    labels = joined(hidden)
    model = build(argparse.Namespace(), int(labels.max()) + 1)
    files = checkpoints(folder)
    options: dict[str, Any] = {"gates": False, "weights": "label", "batch_size": 48}
    lens = TrainingLens(inputs, labels, folder / "lens", **options)
    start = TrainingLens(inputs, labels, folder / "lens_start", **options)
    for step, path in files:
        fill(model, path)
        lens.record(model, step)
        if step == files[0][0]:
            start.record(model, step)
    similarity, rows, hidden_ = lens.similarity("label"), lens.rows(), hidden.numpy()
    trajectories = [apart(np.asarray(each @ each.T, np.float64), hidden_) for each in rows]
    splits = {
        "effective weights, trained": lens.subclasses("label").groups,
        "effective weights, untrained": start.subclasses("label").groups,
    }
    for name, given in (("features, trained", features(model, inputs)), ("pixels", inputs)):
        flat = given.flatten(1).double()
        splits[name] = subclasses([(flat @ flat.T).numpy()], labels).groups
    chance, most = by_chance(splits["effective weights, trained"], hidden_, labels.numpy())
    moved = np.linalg.norm(np.diff(rows, axis=0), axis=2).mean(1)
    return {
        "run": folder.name,
        "steps": lens.steps,
        "accuracy": lens.accuracy().tolist(),
        "within": similarity.within.tolist(),
        "between": similarity.between.tolist(),
        "within_hidden": [one for one, _ in trajectories],
        "between_hidden": [two for _, two in trajectories],
        "moved": moved.tolist(),
        "agreement": {
            name: agreement(groups, hidden_, labels.numpy()) for name, groups in splits.items()
        },
        "agreement_by_chance": chance,
        "agreement_by_chance_at_most": most,
    }


def figure(runs: list[dict[str, Any]]) -> Figure:
    """Cosines over training: of joined classes, and of the hidden classes within them."""
    drawn = Figure(figsize=(9.2, 3.6), layout="constrained")
    panels = drawn.subplots(1, 2, sharey=True)
    titles = ("classes", "the two hidden classes of a class")
    for axis, title, suffix in zip(panels, titles, ("", "_hidden"), strict=True):
        for key, color in (("within", WITHIN), ("between", BETWEEN)):
            for number, run in enumerate(runs):
                label = None if number else key
                axis.plot(
                    run["steps"], run[key + suffix], color=color, lw=1.6, alpha=0.8, label=label
                )
        axis.set_xscale("symlog", linthresh=1)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    panels[0].set_ylabel("mean cosine of effective weights", fontsize=9)
    panels[0].legend(frameon=False, fontsize=9)
    return drawn


def read(args: argparse.Namespace) -> tuple[dict[str, Split], Tensor, Tensor]:
    """Return photographs with joined classes to train on, and inputs with hidden classes."""
    data: dict[str, Split] = {}
    watched: tuple[Tensor, Tensor] | None = None
    for split, most in (("train", args.per_class), ("val", None)):
        pictures, labels, folders = read_split(args.data / split)
        few = first_of_each(labels, most)
        pictures, labels = smaller(pictures[few]), labels[few]
        names = ["+".join(folders[n : n + 2]) for n in range(0, len(folders), 2)]
        data[split] = pictures, joined(labels), names
        if split == "val":
            some = first_of_each(labels, args.watched)
            watched = normalize(pictures[some]), labels[some]
    assert watched is not None
    return data, *watched


def main(argv: list[str] | None = None) -> None:
    """Train what is not there yet, measure, and write the results and the figure."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(prog="benchmarks.lens_hybrid", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--per-class", type=int, default=250, help="photographs to train on")
    parser.add_argument("--watched", type=int, default=8, help="held-out photographs of each class")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    args = parser.parse_args(argv)
    data, inputs, hidden = read(args)
    runs = []
    for seed in args.seeds:
        out = args.out / f"joined_seed{seed}"
        out.mkdir(parents=True, exist_ok=True)
        own = ["--data", str(args.data), "--out", str(out), "--network", "hybrid"]
        own += ["--seed", str(seed), "--epochs", str(args.epochs), "--kept", "2", "--polish", "0"]
        train_reference.train(train_reference.parse([*own, "--no-bf16"]), data, build)
        runs.append(measure(out, inputs, hidden))
    result = {
        "command": f"python -m benchmarks.lens_hybrid --data DIR --out RUNS --epochs {args.epochs} "
        f"--per-class {args.per_class} --watched {args.watched}",
        "device": device("cpu"),
        "versions": versions(),
        "examples": len(hidden),
        "runs": runs,
    }
    args.results.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    figure(runs).savefig(args.figure, dpi=160)


if __name__ == "__main__":
    main()
