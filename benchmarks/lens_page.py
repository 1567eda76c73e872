"""The table of the small hybrid in ``docs/linear_lens.md``, from its committed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import markdown
from benchmarks.intervals import of_mean

RESULTS = Path(__file__).with_name("results") / "lens_hybrid.json"
#: Quantities over training, by their names in the results.
FOLLOWED = {
    "within": "cosine within a class",
    "between": "cosine between classes",
    "within_hidden": "cosine within a hidden class",
    "between_hidden": "cosine between the two hidden classes of a class",
}


def runs() -> list[dict[str, Any]]:
    """Return the measured runs, one for each seed."""
    found: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))["runs"]
    return found


def interval(values: list[float], digits: int = 3) -> str:
    """Return the mean over seeds and half of its 95 % interval."""
    mean, half = of_mean(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def trajectory_table() -> str:
    """The cosines at the start, in the middle and at the end of training."""
    places = {"first step": 0.0, "a tenth": 0.1, "half": 0.5, "last step": 1.0}
    lines = [
        [name, *(interval([at(run, key, share) for run in runs()]) for share in places.values())]
        for key, name in FOLLOWED.items()
    ]
    return markdown.table(["effective weights of the own class", *places], lines)


def at(run: dict[str, Any], key: str, share: float) -> float:
    """Return a quantity at the record that is nearest to a share of training."""
    steps = run["steps"]
    nearest = min(range(len(steps)), key=lambda n: abs(steps[n] - share * steps[-1]))
    found: float = run[key][nearest]
    return found


def split_table() -> str:
    """How often a class's leading direction tells its two hidden classes apart."""
    names = list(runs()[0]["agreement"])
    lines = [[name, interval([run["agreement"][name] for run in runs()], 2)] for name in names]
    chance = [run["agreement_by_chance"] for run in runs()]
    lines.append(["by chance", interval(chance, 2)])
    return markdown.table(["split by", "photographs on the right side"], lines)


def tables() -> dict[str, str]:
    """Every table of the hybrid."""
    return {"lens: hybrid": trajectory_table(), "lens: split": split_table()}


def numbers() -> dict[str, str]:
    """The numbers that the page names in its text."""
    return {
        "lens-hybrid-accuracy": percent([run["accuracy"][-1] for run in runs()]),
        "lens-hidden-first": percent([hidden_share(run, 0) for run in runs()]),
        "lens-hidden-last": percent([hidden_share(run, -1) for run in runs()]),
    }


def hidden_share(run: dict[str, Any], record: int) -> float:
    """Return how far the hidden classes' cosines are apart, over the cosine within a class."""
    apart = run["within_hidden"][record] - run["between_hidden"][record]
    share: float = apart / run["within"][record]
    return share


def percent(values: list[float]) -> str:
    """Return the mean over seeds, without decimals."""
    return f"{100 * sum(values) / len(values):.0f} %"
