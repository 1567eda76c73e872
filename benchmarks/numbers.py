"""Puts measured numbers from committed result files into the pages.

``python -m benchmarks.numbers`` fills in what stands between ``<!--n NAME-->`` and ``<!--/n-->`` in
a line of text, and between ``<!-- NAME -->`` and ``<!-- end of NAME -->`` a table. With ``--check``
it changes nothing, and fails where a page differs.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from benchmarks import cost_page, lens_page, markdown, stability_page, temperature_page
from benchmarks.compare import page as compare_page

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BN, NO_BN = "with BatchNorm", "without BatchNorm"

NUMBER = re.compile(r"<!--n ([\w.:-]+)-->(.*?)<!--/n-->", re.DOTALL)


def load(name: str) -> Any:
    """A committed result, by its file's name in ``benchmarks/results``."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def rounded(value: float, digits: int) -> str:
    """With so many digits after the point, half away from zero as people do."""
    step = Decimal(1).scaleb(-digits)
    text = str(Decimal(str(round(value, 9))).quantize(step, ROUND_HALF_UP))
    return text.replace("-", "\N{MINUS SIGN}")


def percent(value: float, digits: int = 0) -> str:
    """A share as a percentage; one of all is 100 % without digits."""
    return f"{rounded(100 * value, 0 if value == 1 else digits)} %"


def stability(quantity: str, kind: str = BN, *, full: bool = False) -> tuple[float, float, str]:
    """A quantity of the stability results: mean, half its interval, and both as printed."""
    file = RESULTS / ("stability_full.csv" if full else "stability.csv")
    text, _ = stability_page.read(file)[kind][quantity]
    mean, _, half = text.replace("\N{MINUS SIGN}", "-").partition(" ± ")
    return float(mean), float(half or "nan"), text


def _stability_numbers() -> dict[str, str]:
    agreement = "agreement with the end at {} of training".format
    never = "never flip after {} of training".format
    best = f"{stability_page.ALL}, pullback at its best T"
    fitted = f"{stability_page.ALL}, pullback at the fitted temperatures"
    gain = "all of training: fitted pullback less gradient"
    later = "later half: fitted pullback less gradient"
    own, everything = "W (label) {} classes, {} step".format, "W (all) {} classes, {} step".format
    least, most, middle = (
        f"fitted temperature, {name}" for name in ("least", "greatest", "median")
    )
    ratio = stability(gain, NO_BN)[0] / stability(gain)[0]
    return {
        "accuracy-bn": percent(stability("accuracy")[0]),
        "accuracy-nobn": percent(stability("accuracy", NO_BN)[0]),
        "accuracy-full": percent(stability("accuracy", full=True)[0]),
        "agree-start": rounded(stability(agreement(0.0))[0], 2),
        "agree-80": rounded(stability(agreement(0.8))[0], 2),
        "agree-start-full": rounded(stability(agreement(0.0), full=True)[0], 2),
        "agree-80-full": rounded(stability(agreement(0.8), full=True)[0], 2),
        "differ-half": percent(1 - stability(agreement(0.5))[0]),
        "flip-half": percent(1 - stability(never(0.5))[0]),
        "best-t": f"{stability('all of training: best T')[0]:g}",
        "best-t-full": f"{stability('all of training: best T', full=True)[0]:g}",
        "best-full": rounded(stability(best, full=True)[0], 2),
        "fitted-full": rounded(stability(fitted, full=True)[0], 2),
        "fitted-least": rounded(stability(least)[0], 2),
        "fitted-most": rounded(stability(most)[0], 2),
        "fitted-bn": stability(middle)[2],
        "fitted-nobn": stability(middle, NO_BN)[2],
        "machine-bn": stability(gain)[2],
        "machine-nobn": stability(gain, NO_BN)[2],
        "machine-ratio": percent(ratio),
        "machine-later-ratio": percent(stability(later)[0] / stability(gain)[0]),
        "machine-later-nobn": stability(later, NO_BN)[2],
        "later-gradient-full": stability(f"{stability_page.HALF}, plain gradient", full=True)[2],
        "later-fitted-full": stability(
            f"{stability_page.HALF}, pullback at the fitted temperatures", full=True
        )[2],
        "own-first": rounded(stability(own("within", "first"))[0], 2),
        "own-last": rounded(stability(own("within", "last"))[0], 2),
        "own-first-full": stability(own("within", "first"), full=True)[2],
        "own-last-full": stability(own("within", "last"), full=True)[2],
        "all-between-first": rounded(stability(everything("between", "first"))[0], 2),
        "all-between-last": rounded(stability(everything("between", "last"))[0], 2),
    }


def _ascents(bounded: bool = False) -> dict[str, dict[str, Any]]:
    rows = load("ascent.json")["summary"]
    return {row["temperature"]: row for row in rows if row["bounded"] is bounded}


def _share(row: dict[str, Any], key: str, digits: int = 1) -> str:
    """A share of photographs, from their whole number: the file's is rounded."""
    return percent(round(row[key] * row["photographs"]) / row["photographs"], digits)


def _interval(row: dict[str, Any]) -> str:
    low, high = row["times_plain_95"]
    return f"{rounded(low, 1)} to {rounded(high, 1)}"


def _ascent_numbers() -> dict[str, str]:
    free, bounded, result = _ascents(), _ascents(bounded=True), load("ascent.json")
    return {
        "ascent-photographs": str(free["1 output"]["photographs"]),
        "ascent-per-seed": str(result["photographs_per_seed"]),
        "ascent-raised": _share(free["1 output"], "raised"),
        "ascent-became": _share(free["1 output"], "became_target"),
        "ascent-named": _share(free["1 output"], "named_by_other"),
        "ascent-not-named": percent(1 - free["1 output"]["named_by_other"]),
        "ascent-itself": _share(free["1 output"], "named_by_itself", 0),
        "ascent-named-plain": _share(free["0"], "named_by_other"),
        "ascent-interval": _interval(free["1 output"]),
        "ascent-bounded-plain": _share(bounded["0"], "named_by_other"),
        "ascent-bounded": _share(bounded["1 output"], "named_by_other"),
        "ascent-bounded-ratio": rounded(bounded["1 output"]["times_plain"], 1),
        "ascent-bounded-interval": _interval(bounded["1 output"]),
        "ascent-stretched-plain": _share(free["0"], "stretched_named_by_other"),
        "ascent-stretched": _share(free["1 output"], "stretched_named_by_other"),
        "ascent-bounded-stretched-plain": _share(bounded["0"], "stretched_named_by_other"),
        "ascent-bounded-stretched": _share(bounded["1 output"], "stretched_named_by_other"),
        "ascent-other-accuracy": percent(result["networks"]["looks"]["accuracy"]),
        "ascent-chance": percent(1 / result["classes"], 1),
    }


def _blind_numbers() -> dict[str, str]:
    readings = load("blind.json")

    def total(key: str, *, plain: bool) -> int:
        return sum(r[key] for r in readings if (r["temperature"] == 0) is plain)

    return {
        f"blind-{kind}": f"{total('right_in_all', plain=plain)} of {total('cells', plain=plain)}"
        for kind, plain in (("plain", True), ("pullback", False))
    } | {"blind-chance": str(total("by_chance", plain=True))}


def ascent_table() -> str:
    """The gallery's table of all temperatures."""
    rows = _ascents()
    kinds: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("score of the class rises", lambda row: _share(row, "raised")),
        ("prediction becomes the class", lambda row: _share(row, "became_target")),
        (
            "perturbation alone, on gray: the same network predicts the class",
            lambda row: _share(row, "named_by_itself", 0),
        ),
        (
            "perturbation alone: another network predicts it",
            lambda row: _share(row, "named_by_other"),
        ),
        (
            "another network, relative to the plain gradient",
            lambda row: rounded(row["times_plain"], 1),
        ),
    ]
    titles = ["plain gradient", *(temperature for temperature in rows if temperature != "0")]
    titles[1] = f"T = {titles[1]}"
    titles[-1] = f"{titles[-1]} (default)"
    lines = [[name, *map(show, rows.values())] for name, show in kinds]
    return markdown.table(["", *titles], lines)


def lens_table() -> str:
    """The linear lens's table: similarity at the first and the last step."""
    result = load("lens_digits.json")
    lines = []
    for rows, suffix in (("own class's", ""), ("all classes'", "_all")):
        within, between = result[f"within{suffix}"], result[f"between{suffix}"]
        margin = [a - b for a, b in zip(within, between, strict=True)]
        for name, values in (
            (f"{rows} weights, within a class", within),
            (f"{rows} weights, between classes", between),
            ("margin", margin),
        ):
            lines.append([name, rounded(values[0], 3), rounded(values[-1], 3)])
    return markdown.table(["mean cosine similarity", "first step", "last step"], lines)


def deep_features_table() -> str:
    """How similarity in deep features follows others, in the trained and in untrained networks."""

    def shown(values: list[float]) -> str:
        mean, low, high = (rounded(value, 2) for value in values)
        return f"{mean} ({low} to {high})"

    kinds = ("trained", "untrained", "difference")
    lines = [
        [row["similarity"], *(shown(row[kind]) for kind in kinds)]
        for row in load("deep_features.json")["rows"]
    ]
    return markdown.table(["similarity of their", *kinds], lines)


def _lens_numbers() -> dict[str, str]:
    result = load("lens_digits.json")
    between = result["between_all"]
    return {
        "lens-examples": str(result["examples"]),
        "lens-last-step": f"{result['steps'][-1]:,}",
        "lens-between-first": rounded(between[0], 2),
        "lens-between-last": rounded(between[-1], 2),
    }


def _reference_numbers() -> dict[str, str]:
    path = ROOT / "captum_pullback" / "zoo" / "weights" / "reference.json"
    meta = json.loads(path.read_text(encoding="utf-8"))
    return {
        "reference-classes": str(len(meta["classes"])),
        "reference-accuracy": percent(meta["accuracy"], 1),
        "reference-pictures": str(meta["pictures"]["val"]),
    }


def numbers() -> dict[str, str]:
    """Every number that a page may ask for, as it is printed."""
    return {
        **_reference_numbers(),
        **_stability_numbers(),
        **_ascent_numbers(),
        **_blind_numbers(),
        **_lens_numbers(),
        **lens_page.numbers(),
        **compare_page.numbers(),
        "deep-photographs": str(load("deep_features.json")["photographs"]),
    }


def tables() -> dict[str, str]:
    """Every table that a page may ask for."""
    stable = {name: stability_page.table(rows) for name, rows in stability_page.TABLES.items()}
    stable["matched"] = stability_page.table(stability_page.MATCHED, {"stability_matched": ""})
    own = {
        "ascents": ascent_table(), "lens": lens_table(), "deep features": deep_features_table(),
    }  # fmt: skip
    pages = {**cost_page.tables(), **temperature_page.tables(), **compare_page.tables()}
    return {**stable, **pages, **lens_page.tables(), **own}


def filled(text: str, values: dict[str, str], blocks: dict[str, str]) -> str:
    """A page's text with its numbers and tables as they are in the results.

    Raises:
        KeyError: A number that nobody knows.
        ValueError: A number at the beginning of a line, where Markdown takes it for HTML.
    """
    if found := re.search(r"^<!--n .*", text, re.MULTILINE):
        raise ValueError(f"a line begins with a number: {found[0][:60]}")
    for name, block in blocks.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        full = f"{begin}\n{block}\n{end}"
        text = pattern.sub(full.replace("\\", "\\\\"), text)
    return NUMBER.sub(lambda found: f"<!--n {found[1]}-->{values[found[1]]}<!--/n-->", text)


def pages() -> list[Path]:
    """The pages that may have numbers."""
    made = {"_build", "_tutorials", "_figures"}
    docs = [p for p in (ROOT / "docs").rglob("*.md") if not made & set(p.parts)]
    return [ROOT / "README.md", *sorted(docs)]


def main() -> None:
    """Fills all pages in, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail where one would")
    check = parser.parse_args().check
    values, blocks = numbers(), tables()
    stale = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (new := filled(text, values, blocks)) != text:
            stale.append(str(page.relative_to(ROOT)))
            if not check:
                page.write_text(new, encoding="utf-8")
    if stale and check:
        raise SystemExit(f"numbers differ from the results in {', '.join(stale)}")


if __name__ == "__main__":
    main()
