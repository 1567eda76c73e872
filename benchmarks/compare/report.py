"""Tables and figures from a tidy table alone: ``python -m benchmarks.compare.report TABLE DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from benchmarks.compare import figures, statistics, table
from benchmarks.compare.methods import AT, TIMES, find
from benchmarks.compare.metrics import METRICS
from benchmarks.markdown import table as table_of
from captum_pullback.outputs import replacing

#: The columns of the tables, in which the raw infidelities and the curve are left to the summary.
SHOWN = (
    "infidelity", "infidelity_gaussian", "max_sensitivity", "box_share", "pointing_game",
    "random_logit", "time", "memory",
)  # fmt: skip
RAW = ("infidelity_raw", "infidelity_gaussian_raw", "convergence_delta")
SIGNS = {"lower": "↓", "higher": "↑"}


def write(scores: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Writes everything: summary.csv, table.md, table.tex, and the figures.

    Returns:
        The summary.
    """
    found = statistics.summary(scores)
    write_texts(found, folder)
    write_figures(scores, found, folder)
    return found


def write_texts(summary: pd.DataFrame, folder: Path) -> None:
    """Writes summary.csv, table.md and table.tex."""
    folder.mkdir(parents=True, exist_ok=True)
    _text(folder / "summary.csv", summary.to_csv(index=False, lineterminator="\n"))
    _text(folder / "table.md", markdown(summary))
    _text(folder / "table.tex", latex(summary))


def write_figures(
    scores: pd.DataFrame, summary: pd.DataFrame, folder: Path, prefix: str = ""
) -> list[Path]:
    """Writes the figures for which the table has the numbers; returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, figure in figures.all_figures(scores, summary):
        files.append(folder / f"{prefix}{name}.png")
        with replacing(files[-1]) as file:
            figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return files


def cells(summary: pd.DataFrame, network: str, shown: tuple[str, ...], signs: bool) -> pd.DataFrame:
    """Methods by metrics: each cell the mean and its 95 % interval."""
    part = summary[(summary["network"] == network) & (summary["stage"] == "")]
    names = [name for name in dict.fromkeys(part["method"]) if not name.startswith(AT)]
    columns = [name for name in shown if name in set(part["metric"])]
    out = pd.DataFrame(index=[find(name).title for name in names], dtype=object)
    for metric in columns:
        own = part[part["metric"] == metric].set_index("method")
        sign = f" {SIGNS[METRICS[metric].better]}" if signs else ""
        out[METRICS[metric].title + sign] = [
            _cell(own.loc[name]) if name in own.index else "" for name in names
        ]
    return out


def _cell(row: pd.Series) -> str:
    half = (row["mean_high"] - row["mean_low"]) / 2
    mark = {"better": "*", "worse": "", "tie": ""}.get(row.get("verdict", ""), "")
    return f"{row['mean']:.3g} ± {half:.2g}{mark}" if half == half else f"{row['mean']:.3g}"


def markdown(summary: pd.DataFrame) -> str:
    """One table for each network, in Markdown."""
    blocks = []
    for network in dict.fromkeys(summary["network"]):
        blocks.append(f"### {network}\n")
        for shown in (SHOWN, RAW):
            body = cells(summary, network, shown, True)
            if body.columns.size:
                lines = [[name, *row] for name, *row in body.itertuples()]
                blocks.append(table_of(["", *body.columns], lines) + "\n")
    return "\n".join(blocks)


def latex(summary: pd.DataFrame) -> str:
    """The same in LaTeX, with the booktabs rules."""
    blocks = []
    for network in dict.fromkeys(summary["network"]):
        for shown in (SHOWN, RAW):
            body = cells(summary, network, shown, False)
            if body.columns.size:
                text = body.style.format(escape="latex").format_index(escape="latex", axis=0)
                text = text.format_index(escape="latex", axis=1)
                caption = f"Network {network}: means and 95\\,\\% intervals; * better than IG."
                made = text.to_latex(hrules=True, caption=caption.replace("_", "\\_"))
                blocks.append(made.replace("±", "$\\pm$").replace(TIMES, "$\\times$"))
    return "\n".join(blocks)


def _text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.compare.report", description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args(argv)
    try:
        scores = table.read(args.table)
    except (OSError, ValueError) as error:
        print(f"benchmarks.compare.report: cannot read a table: {error}", file=sys.stderr)
        return 2
    write(scores, args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
