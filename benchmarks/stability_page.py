"""The tables of ``docs/are_paths_stable.md``, from ``benchmarks/results/stability*.csv``.

``python -m benchmarks.numbers`` puts them there, so that no number is typed by hand.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from benchmarks import markdown

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"

ALL, HALF = "all of training: cosine", "later half: cosine"
TABLES: dict[str, list[tuple[str, str]]] = {
    "gates": [
        ("as at the end: at the start", "agreement with the end at 0.0 of training"),
        ("— at half of training", "agreement with the end at 0.5 of training"),
        ("— at 80 %", "agreement with the end at 0.8 of training"),
        ("— at 90 %", "agreement with the end at 0.9 of training"),
        ("never flip again: from the start", "never flip after 0.0 of training"),
        ("— from half of training", "never flip after 0.5 of training"),
        ("— from 80 %", "never flip after 0.8 of training"),
    ],
    "settled": [
        (
            "AUC of the final \\|z\\|, mean of layers",
            "AUC of final |z| for settled, mean of layers",
        ),
        ("— worst layer", "AUC, worst layer"),
        ("— best layer", "AUC, best layer"),
        ("fitted temperature, least of the modules", "fitted temperature, least"),
        ("— median", "fitted temperature, median"),
        ("— greatest", "fitted temperature, greatest"),
    ],
    "machine": [
        ("plain gradient", f"{ALL}, plain gradient"),
        ("SmoothGrad, best of four noises", f"{ALL}, SmoothGrad at its best noise"),
        ("pullback at T = 0.3", f"{ALL}, pullback at T = 0.3"),
        ("pullback at the fitted temperatures", f"{ALL}, pullback at the fitted temperatures"),
        ("pullback at its best T", f"{ALL}, pullback at its best T"),
        ("pullback at T = ∞ (all gates 1/2)", f"{ALL}, T = inf"),
        ("fitted pullback less gradient", "all of training: fitted pullback less gradient"),
        (
            "fitted pullback less SmoothGrad",
            "all of training: fitted pullback less best SmoothGrad",
        ),
        ("gates of the later half alone: plain gradient", f"{HALF}, plain gradient"),
        ("— fitted pullback", f"{HALF}, pullback at the fitted temperatures"),
        ("— fitted pullback less gradient", "later half: fitted pullback less gradient"),
    ],
    "weights": [
        (f"{rows}, {where}, {place} step", f"W ({key}) {name}, {place} step")
        for key, rows in (("label", "own class"), ("all", "all classes"))
        for where, name in (
            ("within a class", "within classes"),
            ("between classes", "between classes"),
            ("margin", "margin"),
        )
        for place in ("first", "last")
    ],
}
#: Of the pair that was trained alike.
MATCHED = [
    ("accuracy on the watched photographs", "accuracy"),
    ("gates as at the end: at half of training", TABLES["gates"][1][1]),
    TABLES["gates"][2],
    ("never flip again from half of training", TABLES["gates"][5][1]),
    TABLES["settled"][0],
    ("cosine with the machine: plain gradient", TABLES["machine"][0][1]),
    *(row for row in TABLES["machine"][1:] if "pullback at T" not in row[0]),
    ("own class, within a class, last step", "W (label) within classes, last step"),
    ("own class, margin, last step", "W (label) margin, last step"),
]


def read(path: Path) -> dict[str, dict[str, tuple[str, int]]]:
    """For each kind of network, each quantity as it is printed, and the number of seeds."""
    kinds: dict[str, dict[str, tuple[str, int]]] = {}
    if not path.exists():
        return kinds
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            mean, half = float(row["mean"]), float(row["half of the 95 % interval"])
            text = f"{mean:.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")
            text = text.replace("-", "\N{MINUS SIGN}")
            kinds.setdefault(row["network"], {})[row["quantity"]] = (text, int(row["seeds"]))
    return kinds


#: The prefix of the columns of each file of results.
SIZES = {"stability": "small, ", "stability_full": "full size, "}


def table(rows: list[tuple[str, str]], files: Mapping[str, str] = SIZES) -> str:
    """A Markdown table, a column for each kind of network that was measured."""
    columns: list[tuple[str, dict[str, tuple[str, int]]]] = []
    for file, prefix in files.items():
        for kind, values in read(RESULTS / f"{file}.csv").items():
            seeds = next(iter(values.values()))[1]
            columns.append((f"{prefix}{kind}, {seeds} seed{'s' * (seeds > 1)}", values))
    lines = [
        [name, *(values.get(quantity, ("", 0))[0] for _, values in columns)]
        for name, quantity in rows
    ]
    return markdown.table(["", *(title for title, _ in columns)], lines)
