"""The tables of ``docs/cost.md``, made of ``benchmarks/results/speed.csv``.

`benchmarks.numbers` puts them in. Where something was measured twice, the last row counts.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from benchmarks import markdown
from benchmarks.speed_cases import (
    BEYOND,
    BY_INPUT,
    EAGER,
    EMBEDDED,
    FIXED,
    GUIDED,
    HARD_POOL,
    INTEGRATED,
    KEY,
    LARGE,
    MODERN,
    PERCEPTRON,
    SALIENCY,
    SOFT,
    SUITES,
    TARGETS,
    TEMPERATURES,
    THREE,
    WEIGHTS,
)

RESULTS = Path(__file__).with_name("results")

TITLES = {
    "resnet18": "ResNet-18", "resnet34": "ResNet-34", "resnet50": "ResNet-50",
    "resnet101": "ResNet-101", "vgg11_bn": "VGG11-BN", "densenet121": "DenseNet-121",
    "mobilenet_v2": "MobileNet-V2", EMBEDDED: "embedded network", PERCEPTRON: "perceptron",
    "vit_b_16": "ViT-B/16", "swin_t": "Swin-T", "convnext_tiny": "ConvNeXt-T",
}  # fmt: skip
SMALL = ("resnet18", "mobilenet_v2", EMBEDDED)
#: the most that a pullback should take of Saliency's time, on each kind of CPU
GOALS = {
    ("resnet50", 4): 1.10, ("resnet50", 8): 1.10, ("vgg11_bn", 4): 1.12, ("vgg11_bn", 8): 1.12,
    ("densenet121", 4): 1.15, ("densenet121", 8): 1.15, ("resnet18", 1): 1.20,
    ("mobilenet_v2", 1): 1.20, (EMBEDDED, 1): 1.20, ("vit_b_16", 4): 0.95,
    ("convnext_tiny", 4): 1.05, ("swin_t", 4): 1.05,
}  # fmt: skip
#: the most that it should take of Saliency's memory
MEMORY_GOALS = {
    "resnet50": 0.60, "vgg11_bn": 0.75, "densenet121": 0.60, "vit_b_16": 0.70,
    "convnext_tiny": 0.70, "swin_t": 0.70,
}  # fmt: skip

Row = dict[str, str]
Rows = list[Row]
Cases = list[tuple[str, dict[str, object]]]


def read(path: Path) -> Rows:
    """The last row of each measurement."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    found: Rows = rows.drop_duplicates(list(KEY), keep="last").to_dict("records")
    return found


def one(rows: Rows, **wanted: object) -> Row | None:
    """The row of these properties, those left out being the usual ones."""
    usual = {
        "kind": "time", "dtype": "float32", "mode": "eager", "layout": "contiguous", "batch": 4,
        "device": "cpu",
        "resolution": 64 if wanted["network"] == EMBEDDED else 224,
    }  # fmt: skip
    wanted = usual | wanted
    for row in reversed(rows):
        if all(row[key] == str(value) for key, value in wanted.items()):
            return row
    return None


def ratio(row: Row | None) -> str:
    """A ratio with its interval, or why there is none."""
    if row is None:
        return ""
    if row["error"]:
        return "fails"
    if row["method"] == SALIENCY:
        return "1"
    digits = 2 if float(row["ratio"]) < 10 else 0
    low, mid, high = (f"{float(row[key]):.{digits}f}" for key in ("low", "ratio", "high"))
    return f"{mid} ({low} to {high})"


def seconds(row: Row | None) -> str:
    """A time."""
    if row is None or not row["seconds"]:
        return ""
    value = float(row["seconds"])
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def table(head: list[str], lines: list[list[str]]) -> str:
    """A Markdown table, without the lines of which nothing was measured."""
    full = [line for line in lines if any(line[1:])]
    if not full:
        return "*(not measured yet)*"
    return markdown.table(head, full)


def methods(rows: Rows) -> str:
    """Every method on every network at batch 4."""
    names = (SOFT, FIXED, HARD_POOL, GUIDED, BY_INPUT, INTEGRATED)
    lines = []
    for network in (*LARGE, *MODERN, *SMALL):
        line = [TITLES[network], seconds(one(rows, network=network, method=SALIENCY))]
        lines.append(line + [ratio(one(rows, network=network, method=name)) for name in names])
    return table(["network", SALIENCY, *names], lines)


def default(rows: Rows) -> str:
    """What the default temperature costs beyond one for all gates."""
    lines = []
    for case in SUITES["default"]:
        row = one(rows, network=case.network, batch=case.batch, method=BEYOND)
        cells = [str(row["rounds"]) if row else "", ratio(row)]
        lines.append([f"{TITLES[case.network]}, batch {case.batch}", *cells])
    return table(["", "rounds", f"default beyond T = 0.3, in units of {SALIENCY}"], lines)


def gpu(rows: Rows) -> str:
    """Small and large batches on a GPU."""
    cases: Cases = [
        (f"batch {batch}", {"network": name, "batch": batch, "device": "cuda"})
        for name in (*LARGE, *MODERN)
        for batch in (4, 64)
    ]
    cases += [
        (
            "bfloat16, batch 64",
            {"network": name, "batch": 64, "dtype": "bfloat16", "device": "cuda"},
        )
        for name in ("resnet50", "vit_b_16")
    ]
    return _compare(rows, cases)


def _memory_ratio(row: Row | None, base: Row | None, *, all_told: bool = False) -> float | None:
    if row is None or base is None or not row["bytes"]:
        return None
    weights = float(base["weight_bytes"]) if all_told else 0.0
    return (float(row["bytes"]) + weights) / (float(base["bytes"]) + weights)


def memory(rows: Rows) -> str:
    """Peak memory of fresh processes."""
    lines = []
    for network in (*LARGE, *MODERN, *SMALL):
        base, soft, hard = (
            one(rows, kind="memory", network=network, method=name) for name in THREE
        )
        most, found = MEMORY_GOALS.get(network), _memory_ratio(soft, base)
        missed = found is not None and most is not None and found > most
        cells = [_megabytes(base, "weight_bytes"), _megabytes(base, "bytes")]
        cells += [_megabytes(soft, "bytes"), _digits(found) + (", **missed**" if missed else "")]
        cells += [_digits(most if found else None), _megabytes(hard, "bytes")]
        cells += [_digits(_memory_ratio(row, base, all_told=row is soft)) for row in (hard, soft)]
        lines.append([TITLES[network], *cells])
    head = [
        "network", "weights", SALIENCY, SOFT, "ratio", "at most", HARD_POOL, "ratio",
        "ratio with weights",
    ]  # fmt: skip
    return table(head, lines)


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _megabytes(row: Row | None, key: str) -> str:
    return f"{float(row[key]) / 2**20:.0f} MiB" if row is not None and row[key] else ""


def growth(rows: Rows) -> str:
    """How cost grows with batch, depth and resolution."""
    pairs = [(network, batch) for network in SMALL for batch in (1, 2, 4, 8, 16, 32)]
    pairs += [("densenet121", 1), (PERCEPTRON, 1)]
    cases: Cases = [(f"batch {n}", {"network": name, "batch": n}) for name, n in pairs]
    cases += [("depth", {"network": f"resnet{depth}"}) for depth in (18, 34, 50, 101)]
    for size in (64, 112, 160, 224, 320, 448):
        cases.append((f"{size} x {size} pixels", {"network": "resnet18", "resolution": size}))
    return _compare(rows, cases)


def many(rows: Rows) -> str:
    """Many at once, relative to as many single calls."""
    lines = []
    for case in SUITES["many"][: len(SUITES["many"]) // 3]:
        name, _, classes = case.network.partition(", ")
        line = [", ".join(filter(None, (TITLES[name], classes, f"batch {case.batch}")))]
        line[0] += f", {case.resolution} x {case.resolution} pixels"
        for method in (TARGETS[1], TEMPERATURES[1], WEIGHTS[1]):
            wanted = {"network": case.network, "resolution": case.resolution, "method": method}
            line.append(ratio(one(rows, batch=case.batch, **wanted)))
        lines.append(line)
    return table(["", TARGETS[1], TEMPERATURES[1], f"{WEIGHTS[1]} of all classes"], lines)


def variants(rows: Rows) -> str:
    """Other layouts and types."""
    kinds = [(network, "layout", "channels-last") for network in LARGE]
    kinds += [(network, "dtype", "bfloat16") for network in SMALL[:2]]
    cases: Cases = [(value, {"network": network, key: value}) for network, key, value in kinds]
    cases += [
        (f"compiled, batch {n}", {"network": network, "mode": "compiled", "batch": n})
        for network in (*SMALL[:2], "vit_b_16")
        for n in (1, 4)
    ]
    eager = one(rows, network="resnet18", mode="compiled", method=EAGER)
    note = f"\n\nUncompiled Saliency relative to compiled Saliency: {ratio(eager)}."
    return _compare(rows, cases) + (note if eager else "")


def _compare(rows: Rows, cases: Cases) -> str:
    lines = []
    for title, case in cases:
        found = [one(rows, method=name, **case) for name in (SALIENCY, SOFT, HARD_POOL)]
        name = TITLES[str(case["network"])]
        lines.append([f"{name}, {title}", seconds(found[0]), ratio(found[1]), ratio(found[2])])
    return table(["", SALIENCY, SOFT, HARD_POOL], lines)


def instructions(rows: Rows) -> str:
    """The pullback's time relative to Saliency's on each kind of CPU, side by side."""
    kinds = sorted({row["instructions"] for row in rows} - {""})
    lines = []
    for (network, batch), most in GOALS.items():
        found = [
            one(rows, network=network, batch=batch, method=SOFT, instructions=kind)
            for kind in kinds
        ]
        cells = [_judged(row, most) for row in found]
        if any(cells):
            lines.append([f"{TITLES[network]}, batch {batch}", f"at most {most:.2f}", *cells])
    return table(["", "target", *kinds], lines)


def _judged(row: Row | None, most: float) -> str:
    """A ratio, and whether it misses its target."""
    missed = row is not None and row["ratio"] and float(row["ratio"]) > most
    return ratio(row) + (", **missed**" if missed else "")


def kernels(rows: Rows) -> str:
    """The share of the time inside PyTorch's operations."""
    lines = []
    for network in (*LARGE, *SMALL):
        line = [TITLES[network]]
        for name in (SALIENCY, SOFT):
            row = one(rows, kind="kernels", network=network, method=name)
            line.append(f"{100 * float(row['share']):.0f} %" if row and row["share"] else "")
        lines.append(line)
    return table(["network", SALIENCY, SOFT], lines)


def how(_: Rows) -> str:
    """On what it was measured."""
    shown = []
    for run in json.loads((RESULTS / "speed.json").read_text(encoding="utf-8")):
        before, after = run["load_before"][0], run["load_after"][0]
        shown.append(
            f"- `{run['command']}`: {run['processor']}, {run['threads']} threads of {run['cores']} "
            f"cores, {run['device']}, torch {run['torch']}, captum {run['captum']}, finished "
            f"{run['finished']} after {run['minutes']} minutes; load {before:.1f} before, "
            f"{after:.1f} after."
        )
    return "\n".join(shown)


def tables() -> dict[str, str]:
    """What stands between ``<!-- cost: NAME -->`` and ``<!-- end of cost: NAME -->``."""
    rows = read(RESULTS / "speed.csv")
    # Those that were kept from using all that their CPU has stand in a table of their own.
    free = [row for row in rows if "oneDNN at most" not in row["instructions"]]
    parts = (methods, default, memory, growth, many, variants, gpu, kernels, how)
    found = {f"cost: {part.__name__}": part(free) for part in parts}
    return found | {"cost: instructions": instructions(rows)}
