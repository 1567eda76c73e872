"""docs/benchmark.md is filled in from a summary: its verdicts follow from made-up scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import numbers
from benchmarks.compare import figures, page, report, table, verdicts
from benchmarks.compare.metrics import METRICS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    """Thirty photographs on which the pullback has half of everything that IG has.

    Guided backprop has a quarter, and so does a control; the gradient cannot be told from the
    pullback; Grad-CAM has less still, but values on a sixth of the photographs only.
    """
    draw = np.random.default_rng(0)
    rows = []
    for network, left_out in (("net", "mosaic_share"), ("hybrid", "box_share")):
        for metric in METRICS:
            if metric == left_out or (metric, network) == ("pointing_game", "hybrid"):
                continue
            for number in range(30):
                ig = float(draw.uniform(1, 2))
                for method, value in (
                    ("pullback", ig / 2),
                    ("pullback_published", 3 * ig),
                    ("ig", ig),
                    ("gradient", ig / 2 + 0.01 * (-1) ** number),
                    ("guidedbackprop", ig / 4),
                    ("gradcam", float("nan") if number % 6 else ig / 8),
                    ("smoothgrad", float("nan") if number % 3 else ig / 3),
                    ("edges", ig / 4),
                ):
                    rows.append((network, "0abc", f"p{number}", method, metric, "", 0, value))
    rows.append(("hybrid", "0abc", "", "deeplift", "skipped", "it has no ReLU", 0, float("nan")))
    frame = pd.DataFrame(rows, columns=list(table.SCORES))
    for name in table.PROVENANCE:
        frame[name] = f"the {name}"
    return frame


@pytest.fixture(scope="module")
def summary(scores: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """As it is read back from the file."""
    folder = tmp_path_factory.mktemp("report")
    report.write(scores, folder)
    assert (folder / "verdicts.png").stat().st_size > 5000
    tex = (folder / "table.tex").read_text(encoding="utf-8")
    assert tex.count("\\toprule") == tex.count("\\end{table}") == 4  # scores and costs of each
    assert tex.isascii()
    found = report.read(folder / "summary.csv")
    first = found[(found["method"] == "guidedbackprop") & (found["metric"] == "infidelity")].iloc[0]
    cell = report.cell(first).replace("±", "$\\pm$")
    assert f"Guided backprop & {cell}* & " in tex
    for block in tex.split("\\begin{tabular}{l")[1:]:
        columns = block.split("}")[0].count("r")
        cells = {line.count(" & ") for line in block.splitlines() if " & " in line}
        assert cells == {columns}
    return found


def test_half_is_better_where_lower_is_and_worse_where_higher_is(summary: pd.DataFrame) -> None:
    for network in ("net", "hybrid"):
        for metric, declared in METRICS.items():
            found = verdicts.against_ig(summary, network, metric)
            if not verdicts.measured(summary, network, metric):
                assert found is None
                continue
            assert found is not None
            lower = declared.better == "lower"
            assert found.verdict == ("better" if lower else "worse")
            assert found.pairs == 30
            assert found.mean == pytest.approx(found.other_mean / 2, rel=1e-4)
            difference, low, high = found.difference
            assert difference == pytest.approx(-found.mean, rel=1e-4)
            assert low <= difference <= high
            best = verdicts.against_best(summary, network, metric)
            assert best is not None
            # Where higher is better, that is Integrated Gradients; never a control, our own, or
            # Grad-CAM, which has values on a sixth of the photographs.
            assert best.other == ("guidedbackprop" if lower else "ig")
            assert best.verdict == "worse"


def test_what_cannot_be_told_apart_is_a_tie(summary: pd.DataFrame) -> None:
    rows = summary[(summary["method"] == "gradient") & (summary["reference"] == "pullback")]
    assert set(rows["verdict"]) == {"tie"}
    better = verdicts.clearly_better(summary, "net", "infidelity")
    assert better == ["gradcam", "guidedbackprop", "edges", "smoothgrad"]
    assert verdicts.clearly_better(summary, "net", "box_share") == ["ig"]  # not our own
    two = summary[summary["method"].isin(["pullback", "gradient"])]
    assert verdicts.clearly_better(two, "net", "infidelity") == []
    alone = summary[summary["method"] == "pullback"]
    assert verdicts.against_best(alone, "net", "infidelity") is None


def test_the_page_says_what_the_summary_says(
    summary: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "results", lambda: summary)
    blocks = page.tables()
    losses, rivals, wins, ties = blocks["compare in words"].splitlines()
    assert losses == (
        "- **It loses to Integrated Gradients** in faithfulness correlation; "
        "share in the box or quadrant; pointing game (net)."
    )
    assert "infidelity; max-sensitivity; time; memory; random-logit test" in wins
    assert rivals.startswith("- **It loses to the best rival for each metric** in infidelity; ")
    assert ties == "- It and Integrated Gradients do not differ clearly in nothing."
    assert "± " in blocks["compare means"]
    assert " (10) |" in blocks["compare means"]  # SmoothGrad, on a third of the photographs
    for network in ("net", "hybrid"):
        ours, ig = (
            verdicts.mean(summary, network, "max_sensitivity", method)
            for method in ("pullback", "ig")
        )
        assert ours is not None
        assert ig is not None
        cell = f"better: {report.number(ours)}, {report.number(ig)}"
        assert cell in blocks["compare against ig"]
        key = f"compare:{network}:max_sensitivity:pullback"
        assert page.numbers()[key] == report.number(ours)
        assert page.numbers()[f"{key}:ratio"] == "0.5"
    lines = blocks["compare published temperature"].splitlines()
    assert lines[2].startswith("| Infidelity, score² ↓ | **worse**: ")
    assert "**worse**: " in blocks["compare against best"]
    assert "Guided backprop" in blocks["compare against best"]
    assert "| hybrid | DeepLift | it has no ReLU |" in blocks["compare skipped"]
    assert "the command" in blocks["compare measured"]
    assert "30 photographs" in blocks["compare measured"]
    for declared in METRICS.values():
        assert declared.unit in blocks["compare metrics"]


def test_the_pages_have_a_place_for_every_block() -> None:
    pages = [ROOT / "docs" / name for name in ("benchmark.md", "benchmark_details.md")]
    text = "".join(path.read_text(encoding="utf-8") for path in pages)
    for name in page.tables():
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- end of {name} -->") == 1, name
    for path in pages:
        own = path.read_text(encoding="utf-8")
        assert numbers.filled(own, numbers.numbers(), numbers.tables()) == own
    # Where it loses stands before all else.
    first = pages[0].read_text(encoding="utf-8").splitlines()[:25]
    assert any("It loses to Integrated Gradients" in line for line in first)


def test_the_figure_has_a_color_for_each_verdict(summary: pd.DataFrame) -> None:
    drawn = figures.verdicts(summary)
    left, right = drawn.axes
    words = [text.get_text() for text in left.texts]
    expected = [
        found.verdict
        for metrics in verdicts.ROWS.values()
        for network in ("net", "hybrid")
        for metric in metrics
        if (found := verdicts.against_ig(summary, network, metric))
    ]
    assert words == expected
    assert {text.get_text() for text in right.texts} == {
        "Guided\nbackprop",
        "Integrated\nGradients",
    }
    assert len({patch.get_facecolor() for patch in left.patches}) == 2  # no ties here
