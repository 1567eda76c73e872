"""Tables and the figure from a table alone: ``python -m benchmarks.compare.report TABLE DIR``."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import pandas as pd

from benchmarks.compare import figures, statistics, table
from benchmarks.compare.methods import METHODS, TIMES, find
from benchmarks.compare.metrics import METRICS
from captum_pullback.outputs import replacing

MINUS = "\N{MINUS SIGN}"
SIGNS = {"lower": "↓", "higher": "↑"}
_TEX = {
    "_": "\\_", " %": "\\,\\%", "±": "$\\pm$", TIMES: "$\\times$", "↓": "$\\downarrow$",
    "↑": "$\\uparrow$", "²": "$^2$", MINUS: "$-$",
}  # fmt: skip


def write(scores: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Writes everything: summary.csv, table.tex and verdicts.png; returns the summary."""
    found = statistics.summary(scores)
    for name in table.PROVENANCE:  # one run, one value
        found[name] = ", ".join(dict.fromkeys(scores[name]))
    folder.mkdir(parents=True, exist_ok=True)
    text = found.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    found = read_text(text)
    for name, content in (("summary.csv", text), ("table.tex", latex(found))):
        with replacing(folder / name) as file:
            file.write(content.encode("utf-8"))
    with replacing(folder / "verdicts.png") as file:
        figures.verdicts(found).savefig(file, format="png", dpi=130, metadata={"Software": None})
    return found


def read(path: Path) -> pd.DataFrame:
    """The summary that `write` wrote."""
    return read_text(path.read_text(encoding="utf-8"))


def read_text(text: str) -> pd.DataFrame:
    """The same from a file's text, so that whatever is shown has the file's digits."""
    words = dict.fromkeys(("reference", "verdict", "note"), "")
    return pd.read_csv(io.StringIO(text)).fillna(words)


def number(value: float) -> str:
    """Three digits, and a minus sign that is one."""
    return f"{value:.3g}".replace("-", MINUS)


def cell(row: pd.Series) -> str:
    """A mean and half the width of its 95 % interval."""
    half = (row["mean_high"] - row["mean_low"]) / 2
    return f"{number(row['mean'])} ± {half:.2g}" if half == half else number(row["mean"])


def means(
    summary: pd.DataFrame, network: str, *, of_machine: bool = False, star: str = "*"
) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Methods by metrics: means with intervals, a star where better than Integrated Gradients.

    Returns:
        Titles, each with what stands below it (unit, number of photographs or batches); and lines
        that begin with the method, with the number again where it is smaller. Metrics are those of
        the machine, or all others.
    """
    part = summary[(summary["network"] == network) & (summary["reference"] == "ig")]
    present = dict.fromkeys(part["method"])
    names = [name for name in METHODS if name in present]
    names += [name for name in present if name not in names]
    lines, titles = [[find(name).title] for name in names], []
    for metric, declared in METRICS.items():
        own = part[part["metric"] == metric].set_index("method")
        if own.empty or declared.of_machine != of_machine:
            continue
        below = f"({declared.unit}; {int(own['images'].max())})"
        titles.append((f"{declared.title} {SIGNS[declared.better]}", below))
        for line, name in zip(lines, names, strict=True):
            known = name in own.index
            better = known and own.loc[name, "verdict"] == "better"
            fewer = known and own.loc[name, "images"] < own["images"].max()
            count = f" ({own.loc[name, 'images']:g})" if fewer else ""
            line.append(cell(own.loc[name]) + star * better + count if known else "")
    return titles, lines


def latex(summary: pd.DataFrame) -> str:
    """Two tables for each network in LaTeX, with the booktabs rules: scores and costs."""
    blocks = []
    for network in dict.fromkeys(summary["network"]):
        for of_machine, what in ((False, "photographs"), (True, "batches")):
            titles, lines = means(summary, network, of_machine=of_machine)
            if not titles:
                continue
            caption = (
                f"{network}: means, half of their 95 % intervals, units, and numbers of {what}; "
                "* better than Integrated Gradients."
            )
            heads = [[*map(_tex, title.rsplit(" ", 2)), _tex(below)] for title, below in titles]
            shown = ["\\shortstack{" + "\\\\".join(head) + "}" for head in heads]
            rows = [["", *shown], *([_tex(each) for each in line] for line in lines)]
            first, *rest = (" & ".join(row) + " \\\\\n" for row in rows)
            blocks.append(
                "\\begin{table}\n\\centering\\footnotesize\n"
                f"\\caption{{{_tex(caption)}}}\n"
                f"\\begin{{tabular}}{{l{'r' * len(titles)}}}\n"
                f"\\toprule\n{first}\\midrule\n{''.join(rest)}\\bottomrule\n"
                "\\end{tabular}\n\\end{table}\n"
            )
    return "\n".join(blocks)


def _tex(text: str) -> str:
    for sign, command in _TEX.items():
        text = text.replace(sign, command)
    return text


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
