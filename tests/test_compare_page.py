"""docs/benchmark.md is filled in from a table: its verdicts follow from made-up scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.compare import page, table
from benchmarks.compare.metrics import METRICS


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    """Thirty photographs on which the pullback has half of everything that IG has."""
    draw = np.random.default_rng(0)
    rows = []
    for metric in METRICS:
        stages = ("1 fc", "2 conv1") if metric == "randomisation" else ("",)
        for number in range(30):
            for stage in stages:
                ig = float(draw.uniform(1, 2))
                for method, value in (
                    ("gradient", 2 * ig),
                    ("ig", ig),
                    ("pullback_fitted", ig / 2),
                    ("pullback@0.5", ig / 2),
                    ("edges", ig / 4),
                ):
                    rows.append(("net", "0abc", f"p{number}", method, metric, stage, 0, value))
    rows.append(("net", "0abc", "fit", "pullback_fitted", "temperature", "", 0, 1.25))
    frame = pd.DataFrame(rows, columns=list(table.SCORES))
    for name in table.PROVENANCE:
        frame[name] = f"the {name}"
    return frame


def section(text: str, name: str) -> str:
    return text.split(f"<!-- {name} -->")[1].split(f"<!-- end of {name} -->")[0]


def test_page_says_what_the_table_says(scores: pd.DataFrame, tmp_path: Path) -> None:
    copy = tmp_path / "docs" / "benchmark.md"
    copy.parent.mkdir()
    copy.write_text(page.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    made = tmp_path / "compare.csv"
    scores.to_csv(made, index=False)
    assert page.main([str(made), "--page", str(copy)]) == 0
    text = copy.read_text(encoding="utf-8")
    wanted = section(text, "wanted")
    assert "| net | Infidelity, squares: 0.5 (0.5 to 0.5) | at most 0.65 | yes |" in wanted
    assert "| net | Max-sensitivity: 0.5 (0.5 to 0.5) | at most 0.25 | **no** |" in wanted
    assert wanted.count("**no**") == 3  # neither 1/40 of the time nor a larger share
    verdicts = section(text, "verdicts")
    wins, loses = verdicts.split("- Loses:")
    assert "Infidelity, squares:" in wins
    assert "ratio 0.5 (0.5 to 0.5); better on 100% of 30 photographs" in wins
    assert "Share in the box:" in loses
    assert "Pointing game:" in loses
    assert "| net | Infidelity, squares | Edge detector (control) |" in section(text, "rivals")
    assert "`fit_temperature` picks 1.25" in section(text, "sweep")
    assert "| ResNet-50, published | soft pullback | 5.99 | 0.0897 | 0.119 | 0.151 |" in section(
        text, "published"
    )
    assert "the command" in section(text, "measured")
    for name in ("cost", "differences", "sweep", "randomisation"):
        assert f"figures/benchmark_{name}.png" in text
        assert (copy.parent / "figures" / f"benchmark_{name}.png").stat().st_size > 5000
    assert (tmp_path / "compare" / "table.tex").read_text().count("\\toprule") == 2
    once = text
    assert page.main([str(made), "--page", str(copy)]) == 0
    assert copy.read_text(encoding="utf-8") == once


def test_page_without_a_place_or_a_table(
    scores: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "compare.csv"
    scores.to_csv(made, index=False)
    (tmp_path / "page.md").write_text("nothing\n")
    assert page.main([str(made), "--page", str(tmp_path / "page.md")]) == 2
    assert "no place marked <!-- measured -->" in capsys.readouterr().err
    assert page.main([str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err
    assert (tmp_path / "page.md").read_text() == "nothing\n"
