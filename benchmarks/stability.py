"""Are paths stable? The claims of arXiv 2507.22832 and 2511.05628, measured over seeds.

``python -m benchmarks.stability --data DIR --checkpoints DIR`` measures every run that
``benchmarks.stability_train`` left in DIR, and writes ``benchmarks/results/stability.json`` with
each run's numbers, ``stability.csv`` with means and 95 % intervals over seeds, and the figures of
``docs/are_paths_stable.md``. Records are kept in the runs' folders, and used again.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.intervals import of_mean
from benchmarks.pictures import first_of_each, normalize, read_split
from benchmarks.stability_train import smaller
from captum_pullback import TrainingLens, soften
from captum_pullback.commands.checkpoints import checkpoints, fill, network_for, read_state
from captum_pullback.lens.style import BETWEEN, WITHIN

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FIGURES = ROOT / "docs" / "figures"
TEMPERATURES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, math.inf)
NOISE = (0.05, 0.1, 0.2, 0.4)
SAMPLES = 16
TIMES = (0.0, 0.1, 0.25, 0.5, 0.8, 0.9)


def gradient(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Of the logits of the labels, to the inputs."""
    leaf = inputs.clone().requires_grad_()
    return torch.autograd.grad(model(leaf).gather(1, labels[:, None]).sum(), leaf)[0]


def mean_cosine(one: Tensor, other: Tensor) -> float:
    """Over examples."""
    return float(torch.cosine_similarity(one.flatten(1), other.flatten(1), dim=1).mean())


def smooth_grad(model: nn.Module, inputs: Tensor, labels: Tensor, noise: float) -> Tensor:
    """The gradient averaged over Gaussian noise on the input: smoothing that knows no gates."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros_like(inputs)
    for _ in range(SAMPLES):
        total += gradient(
            model, inputs + noise * torch.randn(inputs.shape, generator=generator), labels
        )
    return total


def measure(folder: Path, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
    """All numbers of one run."""
    files = checkpoints(folder)
    model = network_for(read_state(files[0][1]), None).model
    lens = TrainingLens(inputs, labels, folder / "lens", weights="label", batch_size=48)
    ends = TrainingLens(inputs, labels, folder / "lens_all", gates=False, batch_size=48)
    for step, path in tqdm(files, f"{folder.name}: record", leave=False):
        fill(model, path)
        lens.record(model, step)
        if step in (files[0][0], files[-1][0]):
            ends.record(model, step)
    steps = lens.steps
    agreement = np.mean(list(lens.agreement().values()), axis=0)
    settled = np.mean(list(lens.settled_share().values()), axis=0)
    at = [t * steps[-1] for t in TIMES]
    settledness = lens.settledness(model)
    temperatures = lens.fit_temperatures(model)
    numbers: dict[str, Any] = {
        "run": folder.name,
        "batch_norm": not folder.name.startswith("nobn"),
        "steps": steps,
        "examples": len(labels),
        "accuracy": float(lens.accuracy()[-1]),
        "agreement": agreement.tolist(),
        "never_flip_again": settled.tolist(),
        "agreement_at": dict(zip(map(str, TIMES), np.interp(at, steps, agreement), strict=True)),
        "never_flip_at": dict(zip(map(str, TIMES), np.interp(at, steps, settled), strict=True)),
        "auc": {name: layer.auc for name, layer in settledness.items()},
        "settled": {name: layer.share for name, layer in settledness.items()},
        "temperatures": {name: float(value) for name, value in temperatures.items()},
    }
    for rows, similarity in (("label", lens.similarity("label")), ("all", ends.similarity("all"))):
        numbers[f"within_{rows}"] = similarity.within.tolist()
        numbers[f"between_{rows}"] = similarity.between.tolist()
    numbers["alignment"] = {}
    for name, since in (("all of training", 0.0), ("later half", 0.5)):
        machine = lens.machine(model, since=since)
        found: dict[str, Any] = {"gradient": mean_cosine(gradient(model, inputs, labels), machine)}
        pullback = {}
        for temperature in TEMPERATURES:
            with soften(model, temperature):
                pullback[str(temperature)] = mean_cosine(gradient(model, inputs, labels), machine)
        with soften(model, temperatures):
            found["fitted"] = mean_cosine(gradient(model, inputs, labels), machine)
        found["pullback"] = pullback
        found["smooth_grad"] = {
            str(noise): mean_cosine(smooth_grad(model, inputs, labels, noise), machine)
            for noise in NOISE
        }
        others = machine.roll(1, 0)  # another example's, of the same class for most
        found["machine_of_another_example"] = mean_cosine(machine, others)
        numbers["alignment"][name] = found
    return numbers


def summary(runs: list[dict[str, Any]]) -> list[tuple[str, float, float, int]]:
    """Quantity, mean over seeds, half of its interval, number of seeds."""
    rows: dict[str, list[float]] = {"accuracy": [run["accuracy"] for run in runs]}
    for time in map(str, TIMES):
        rows[f"agreement with the end at {time} of training"] = [
            run["agreement_at"][time] for run in runs
        ]
        rows[f"never flip after {time} of training"] = [run["never_flip_at"][time] for run in runs]
    areas = [[a for a in run["auc"].values() if not math.isnan(a)] for run in runs]
    rows["AUC of final |z| for settled, mean of layers"] = [float(np.mean(a)) for a in areas]
    rows["AUC, worst layer"] = [min(a) for a in areas]
    rows["AUC, best layer"] = [max(a) for a in areas]
    rows["settled over the later half"] = [
        float(np.mean(list(run["settled"].values()))) for run in runs
    ]
    fitted = [[t for name, t in run["temperatures"].items() if name] for run in runs]
    rows["fitted temperature, least"] = [min(t) for t in fitted]
    rows["fitted temperature, median"] = [float(np.median(t)) for t in fitted]
    rows["fitted temperature, greatest"] = [max(t) for t in fitted]
    for span in ("all of training", "later half"):
        found = [run["alignment"][span] for run in runs]
        best = [max(f["pullback"].values()) for f in found]
        rows[f"{span}: cosine, plain gradient"] = [f["gradient"] for f in found]
        rows[f"{span}: cosine, pullback at its best T"] = best
        rows[f"{span}: best T"] = [
            float(max(f["pullback"], key=f["pullback"].__getitem__)) for f in found
        ]
        rows[f"{span}: cosine, pullback at the fitted temperatures"] = [f["fitted"] for f in found]
        rows[f"{span}: cosine, pullback at T = 0.3"] = [f["pullback"]["0.3"] for f in found]
        rows[f"{span}: cosine, T = inf"] = [f["pullback"]["inf"] for f in found]
        rows[f"{span}: cosine, SmoothGrad at its best noise"] = [
            max(f["smooth_grad"].values()) for f in found
        ]
        rows[f"{span}: best pullback less gradient"] = [
            b - f["gradient"] for b, f in zip(best, found, strict=True)
        ]
        rows[f"{span}: fitted pullback less gradient"] = [
            f["fitted"] - f["gradient"] for f in found
        ]
        rows[f"{span}: fitted pullback less best SmoothGrad"] = [
            f["fitted"] - max(f["smooth_grad"].values()) for f in found
        ]
    for rows_of in ("label", "all"):
        for place, index in (("first", 0), ("last", -1)):
            within = [run[f"within_{rows_of}"][index] for run in runs]
            between = [run[f"between_{rows_of}"][index] for run in runs]
            rows[f"W ({rows_of}) within classes, {place} step"] = within
            rows[f"W ({rows_of}) between classes, {place} step"] = between
            rows[f"W ({rows_of}) margin, {place} step"] = [
                a - b for a, b in zip(within, between, strict=True)
            ]
    return [(name, *of_mean(values), len(values)) for name, values in rows.items()]


def write_summary(runs: list[dict[str, Any]], path: Path) -> None:
    """Write means and intervals over seeds as a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["network", "quantity", "mean", "half of the 95 % interval", "seeds"])
        for kind, title in KINDS.items():
            group = of_kind(runs, kind)
            for name, mean, half, count in summary(group) if group else []:
                writer.writerow([title, name, f"{mean:.4g}", f"{half:.2g}", count])


#: By the first part of the folders' names.
KINDS = {
    "bn": "with BatchNorm",
    "nobn": "without BatchNorm",
    "narrow": "with BatchNorm, narrow",
}


def of_kind(runs: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the runs of one kind of network."""
    return [run for run in runs if run["run"].split("_")[0] == kind]


def figures(runs: list[dict[str, Any]]) -> None:
    """The page's two figures; thin lines are seeds."""
    kinds = [(title, of_kind(runs, kind)) for kind, title in KINDS.items()]
    kinds = [(title, group) for title, group in kinds if group]
    figure = Figure(figsize=(4.6 * len(kinds), 3.6), layout="constrained")
    for axis, (title, group) in zip(
        figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0], kinds, strict=True
    ):
        for key, color, label in (
            ("agreement", WITHIN, "as they are at the end"),
            ("never_flip_again", BETWEEN, "never flip again"),
        ):
            grid = np.linspace(0, 1, 201)
            curves = [np.interp(grid, np.array(r["steps"]) / r["steps"][-1], r[key]) for r in group]
            for curve in curves:
                axis.plot(100 * grid, 100 * curve, color=color, lw=0.7, alpha=0.6)
            axis.plot(100 * grid, 100 * np.mean(curves, 0), color=color, lw=2.2, label=label)
        axis.set_title(f"{title}, {len(group)} seed{'s' * (len(group) > 1)}", fontsize=10)
        axis.set_xlabel("% of training", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.set_xlim(0, 100)
    axis = figure.axes[0]
    axis.set_ylabel("% of gates, mean of the layers", fontsize=9)
    axis.legend(frameon=False, fontsize=9, loc="lower right")
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / "stability_gates.png", dpi=160)

    figure = Figure(figsize=(4.6 * len(kinds), 3.8), layout="constrained")
    last = 2 * max(t for t in TEMPERATURES if math.isfinite(t))
    places = [t if math.isfinite(t) else last for t in TEMPERATURES]
    for axis, (title, group) in zip(
        figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0], kinds, strict=True
    ):
        found = [run["alignment"]["all of training"] for run in group]
        curves = [[f["pullback"][str(t)] for t in TEMPERATURES] for f in found]
        for curve, f in zip(curves, found, strict=True):
            axis.plot(places, curve, color=WITHIN, lw=0.7, alpha=0.6)
            axis.axhline(f["gradient"], color=BETWEEN, lw=0.7, alpha=0.6)
            axis.axhline(max(f["smooth_grad"].values()), color="0.5", lw=0.7, alpha=0.6)
        smooth = np.mean([max(f["smooth_grad"].values()) for f in found])
        axis.plot(places, np.mean(curves, 0), "o-", color=WITHIN, lw=2, ms=4, label="pullback")
        axis.axhline(np.mean([f["gradient"] for f in found]), color=BETWEEN, lw=2, label="gradient")
        axis.axhline(smooth, color="0.5", lw=2, ls=(0, (4, 2)), label="SmoothGrad, best noise")
        fitted = [t for run in group for name, t in run["temperatures"].items() if name]
        axis.plot(
            fitted, np.full(len(fitted), 0.03), "|", ms=9, color="black", alpha=0.6,
            transform=axis.get_xaxis_transform(), label="fitted to the gates, by layer",
        )  # fmt: skip
        axis.set_xscale("log")
        axis.set_xticks(places, [f"{t:g}" if math.isfinite(t) else "∞" for t in TEMPERATURES])
        axis.set_xticks([], minor=True)
        axis.tick_params(labelsize=7)
        axis.set_title(f"{title}, {len(group)} seed{'s' * (len(group) > 1)}", fontsize=10)
        axis.set_xlabel("temperature T", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("cosine with the averaged-gate machine", fontsize=9)
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(FIGURES / "stability_machine.png", dpi=160)


def main() -> None:
    """Measures the runs that are there, and writes results and figures."""
    parser = argparse.ArgumentParser(prog="benchmarks.stability", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder of runs")
    parser.add_argument("--per-class", type=int, default=4, help="held out pictures of each class")
    parser.add_argument("--half", action=argparse.BooleanOptionalAction, default=True,
                        help="pictures at 32 x 32, as stability_train trains")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="keep the runs that are measured")
    parser.add_argument("--name", default="stability", help="of the files in benchmarks/results")
    args = parser.parse_args()
    pictures, labels, _ = read_split(args.data / "val")
    few = first_of_each(labels, args.per_class)
    inputs = normalize(smaller(pictures[few]) if args.half else pictures[few])
    folders = sorted(path for path in args.checkpoints.iterdir() if path.is_dir())
    RESULTS.mkdir(parents=True, exist_ok=True)
    results = RESULTS / f"{args.name}.json"
    there = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
    known = {run["run"]: run for run in there if args.resume}
    runs = [known.get(f.name) or measure(f, inputs, labels[few]) for f in folders]
    text = json.dumps(runs, indent=1, allow_nan=True)
    results.write_text(text + "\n", encoding="utf-8")
    write_summary(runs, results.with_suffix(".csv"))
    if args.name == "stability":
        figures(runs)


if __name__ == "__main__":
    main()
