"""Puts the results into ``docs/benchmark.md``: ``python -m benchmarks.compare.page``.

Everything between the page's markers, and its figures, are made from the table in
``benchmarks/results/compare.parquet`` (or the one that is given), so that no number on it, and no
verdict, is typed by hand.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from benchmarks import markdown
from benchmarks.compare import figures, report, statistics, table
from benchmarks.compare.methods import AT, find
from benchmarks.compare.metrics import METRICS
from benchmarks.compare.statistics import REFERENCE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmark.md"
RESULTS = ROOT / "benchmarks" / "results" / "compare.parquet"
OURS = "pullback_fitted"

#: What was asked of the fitted pullback on the network with BatchNorm: metric, greatest ratio.
WANTED = (("infidelity", 0.65), ("max_sensitivity", 0.25), ("time", 1 / 40))

#: ImageNet validation, 1,000 images; arXiv 2507.22832 and its code's result tables. The pullback
#: there has normal-cdf gates at T = 0.6 and max pooling at T = 0.3.
PUBLISHED = (
    ("ResNet-50", "soft pullback", 5.99, 0.119),
    ("ResNet-50", "pullback ascent", 5.38, 0.244),
    ("ResNet-50", "gradient", 83.3, 0.952),
    ("ResNet-50", "Integrated Gradients", 66.8, 0.788),
    ("ResNet-50", "SmoothGrad", 66.9, 0.639),
    ("ResNet-50", "Guided Grad-CAM", 5.76, 0.242),
    ("VGG11-BN", "soft pullback", 16.3, 0.212),
    ("VGG11-BN", "gradient", 100.1, 0.898),
    ("VGG11-BN", "Integrated Gradients", 75.8, 0.752),
)
BESIDE = ("infidelity", "max_sensitivity")


class Results:
    """A table of scores and what is computed of it once.

    Args:
        scores: As `table.read` gives it.
    """

    def __init__(self, scores: pd.DataFrame) -> None:
        self.scores = scores
        self.summary = statistics.summary(scores)
        self.networks = list(dict.fromkeys(self.summary["network"]))

    def row(self, network: str, metric: str, method: str) -> pd.Series | None:
        """One line of the summary, if it is there."""
        s = self.summary
        same = (s["network"] == network) & (s["metric"] == metric) & (s["method"] == method)
        found = s[same & (s["stage"] == "")]
        return found.iloc[0] if len(found) else None


def number(value: float) -> str:
    """Three digits, and a minus sign that is one."""
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def spread(row: pd.Series, what: str) -> str:
    """A value with its interval."""
    ends = f"{number(row[f'{what}_low'])} to {number(row[f'{what}_high'])}"
    return f"{number(row[what])} ({ends})"


def measured(results: Results) -> str:
    """What was run on what."""
    first = results.scores.iloc[0]
    images = results.scores[results.scores["metric"] == "infidelity"]["image"].nunique()
    repeated = results.scores[results.scores["metric"] == "max_sensitivity"]["image"].nunique()
    seeds = results.scores["seed"][results.scores["metric"] == "infidelity"].nunique()
    names = ", ".join(
        f"{network} (weights {hash_})"
        for network, hash_ in results.scores[["network", "checkpoint"]].drop_duplicates().values
    )
    packages = ("captum_pullback", "captum", "torch", "torchvision", "python")
    versions = ", ".join(f"{name} {first[name]}" for name in packages)
    return (
        f"{len(results.scores):,} scores; {images} photographs, {repeated} of them for the metrics "
        f"that run a method many times over; {seeds} seeds; networks: {names}; {versions}; "
        f"{first['device']}. Measured by\n\n"
        f"```shell\n{first['command']}\n```"
    )


def wanted(results: Results) -> str:
    """Whether what was asked is so, for the fitted pullback against Integrated Gradients."""
    lines = []
    for network in results.networks:
        for metric, most in WANTED:
            row = results.row(network, metric, OURS)
            if row is not None:
                met = "yes" if row["ratio"] <= most else "**no**"
                title = METRICS[metric].title
                shown = f"{title}: {spread(row, 'ratio')}"
                lines.append([network, shown, f"at most {most:.3g}", met])
        row = results.row(network, "box_share", OURS)
        if row is not None:
            met = "yes" if row["difference_low"] > 0 else "**no**"
            shown = f"{METRICS['box_share'].title}, difference: {spread(row, 'difference')}"
            lines.append([network, shown, "above 0", met])
    return markdown.table(
        ["network", "fitted pullback over Integrated Gradients", "wanted", ""], lines
    )


def verdicts(results: Results) -> str:
    """Where the fitted pullback is better than Integrated Gradients, where worse, where neither."""
    blocks = []
    for network in results.networks:
        lines: dict[str, list[str]] = {"better": [], "tie": [], "worse": []}
        for metric, declared in METRICS.items():
            row = results.row(network, metric, OURS)
            if row is None or row["verdict"] == "" or metric == "convergence_delta":
                continue
            reference = results.row(network, metric, REFERENCE)
            assert reference is not None  # or there would be no verdict
            means = f"{number(row['mean'])} against {number(reference['mean'])}"
            text = f"{declared.title}: {means}, difference {spread(row, 'difference')}"
            if row["ratio"] == row["ratio"]:
                text += f", ratio {spread(row, 'ratio')}"
            if not declared.of_machine:
                text += f"; better on {row['better']:.0%} of {row['images']} photographs"
            lines[row["verdict"]].append(f"  - {text}")
        heads = {"better": "Wins", "tie": "Ties (the interval holds 0)", "worse": "Loses"}
        parts = [
            f"- {heads[k]}:" + ("\n" + "\n".join(v) if v else " none") for k, v in lines.items()
        ]
        blocks.append(f"**{network}**\n\n" + "\n".join(parts))
    return "\n\n".join(blocks)


def rivals(results: Results) -> str:
    """Which methods are better than the fitted pullback, by metric, on the same photographs."""
    against = statistics.summary(results.scores, OURS)
    lines = []
    for network in results.networks:
        for metric, declared in METRICS.items():
            own = against[(against["network"] == network) & (against["metric"] == metric)]
            own = own[(own["stage"] == "") & ~own["method"].str.startswith(AT)]
            if own.empty or declared.of_machine or metric == "convergence_delta":
                continue
            cells = []
            for verdict in ("better", "tie"):
                found = own[own["verdict"] == verdict]["method"]
                cells.append(", ".join(find(name).title for name in found) or "none")
            lines.append([network, declared.title, *cells])
    head = ["network", "metric", "better than the fitted pullback", "no clear difference"]
    return markdown.table(head, lines)


def tables(results: Results) -> str:
    """All means, a table for each network."""
    return report.markdown(results.summary)


def sweep(results: Results) -> str:
    """The pullback over temperatures, and the temperature that was fitted."""
    shown = [m for m in ("infidelity", "infidelity_gaussian", "max_sensitivity", "box_share")
             if m in set(results.summary["metric"])]  # fmt: skip
    blocks = []
    for network in results.networks:
        own = results.summary[results.summary["network"] == network]
        names = [n for n in dict.fromkeys(own["method"]) if n.startswith(AT)]
        names = sorted(names, key=lambda name: float(name[len(AT) :]))
        lines = []
        fits = results.scores[
            (results.scores["network"] == network) & (results.scores["metric"] == "temperature")
        ]["value"]
        fitted = float(fits.iloc[0])
        for label, name in (
            ("gradient", "gradient"),
            *((name[len(AT) :], name) for name in names),
            (f"fitted: {number(fitted)}", OURS),
            ("Integrated Gradients", REFERENCE),
        ):
            rows = [results.row(network, metric, name) for metric in shown]
            cells = ["" if row is None else spread(row, "mean") for row in rows]
            lines.append([label, *cells])
        found = markdown.table(["T", *(METRICS[m].title for m in shown)], lines)
        blocks.append(f"**{network}**: `fit_temperature` picks {number(fitted)}\n\n{found}")
    return "\n\n".join(blocks)


def cascade(results: Results) -> str:
    """Similarity to the trained network's map, by the part that was reinitialised last."""
    blocks = []
    part = results.summary[results.summary["metric"] == "randomisation"]
    for network in results.networks:
        own = part[part["network"] == network]
        stages = sorted(set(own["stage"]), key=lambda stage: int(stage.split()[0]))
        lines = []
        for name in dict.fromkeys(own["method"]):
            rows = own[own["method"] == name].set_index("stage")
            cells = [spread(rows.loc[s], "mean") if s in rows.index else "" for s in stages]
            lines.append([find(name).title, *cells])
        found = markdown.table(["", *(stage.split()[1] for stage in stages)], lines)
        blocks.append(f"**{network}**\n\n{found}")
    return "\n\n".join(blocks)


def published(results: Results) -> str:
    """The published ImageNet numbers beside ours; each also over Integrated Gradients'."""
    lines = []
    base = {n: row for n, *row in ((p[0], *p[2:]) for p in PUBLISHED if p[1].startswith("Integ"))}
    for network, method, faith, stable in PUBLISHED:
        over = (faith / base[network][0], stable / base[network][1])
        cells = [number(v) for v in (faith, over[0], stable, over[1])]
        lines.append([f"{network}, published", method, *cells])
    for network in results.networks:
        for name in (OURS, "pullback", "gradient", REFERENCE, "smoothgrad", "guidedgradcam"):
            rows = [row for m in BESIDE if (row := results.row(network, m, name)) is not None]
            if len(rows) < len(BESIDE):
                continue
            cells = [c for row in rows for c in (number(row["mean"]), _over(row, name))]
            lines.append([f"{network}, ours", find(name).title, *cells])
    head = ["network", "method", "infidelity", "over IG's", "max-sensitivity", "over IG's"]
    return markdown.table(head, lines)


def _over(row: pd.Series, name: str) -> str:
    return "1" if name == REFERENCE else spread(row, "ratio")


def declared(results: Results) -> str:
    """The metrics as they are declared."""
    cells = [(m.title, m.better, m.meaning, m.source) for m in METRICS.values()]
    return markdown.table(["metric", "better", "what it is", "source"], cells)


PICTURES = {
    "cost": "Infidelity and max-sensitivity of each method over its time",
    "differences": "Box plots of each method's score less that of Integrated Gradients",
    "sweep": "Infidelity, max-sensitivity and share in the box over the temperature",
    "randomisation": "Similarity of maps as the network is reinitialised from the output back",
}


def picture(name: str, results: Results) -> str:
    """A figure of the report, if the table has the numbers for it."""
    drawn = [known for known, _ in figures.all_figures(results.scores, results.summary)]
    return f"![{PICTURES[name]}](figures/benchmark_{name}.png)" if name in drawn else ""


PLACES: dict[str, Callable[[Results], str]] = {
    "measured": measured, "wanted": wanted, "verdicts": verdicts, "rivals": rivals,
    "tables": tables, "sweep": sweep, "cascade": cascade, "published": published,
    "declared": declared,
    **{f"{name} picture": functools.partial(picture, name) for name in PICTURES},
}  # fmt: skip


def fill(text: str, results: Results) -> str:
    """The page with everything between its markers made anew.

    Raises:
        ValueError: A marker is missing.
    """
    for name, make in PLACES.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"the page has no place marked {begin} ... {end}")
        before, after = text.split(begin)[0], text.split(end)[1]
        text = f"{before}{begin}\n{make(results)}\n{end}{after}"
    return text


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.compare.page", description=__doc__)
    parser.add_argument("table", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args(argv)
    try:
        results = Results(table.read(args.table))
        text = fill(args.page.read_text(encoding="utf-8"), results)
    except (OSError, ValueError) as error:
        print(f"benchmarks.compare.page: {error}", file=sys.stderr)
        return 2
    report.write_texts(results.summary, args.table.with_suffix(""))
    report.write_figures(
        results.scores, results.summary, args.page.parent / "figures", "benchmark_"
    )
    args.page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
