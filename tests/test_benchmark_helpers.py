"""What all benchmarks share: intervals, tables, and the one trainer's schedules."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import intervals, markdown, pictures, speed, stability_train, train_reference


@pytest.mark.parametrize(("count", "quantile"), [(2, 12.706), (3, 4.303), (6, 2.571)])
def test_interval_of_a_mean_has_the_quantile_of_the_printed_tables(
    count: int, quantile: float
) -> None:
    values = [float(number**2) for number in range(count)]
    mean = sum(values) / count
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    found, half = intervals.of_mean(values)
    assert found == pytest.approx(mean)
    assert half == pytest.approx(quantile * math.sqrt(variance / count), rel=2e-4)


def test_one_value_has_no_interval() -> None:
    mean, half = intervals.of_mean([3.0])
    assert mean == 3.0
    assert math.isnan(half)


def test_interval_of_a_ratio_is_katz() -> None:
    found = intervals.of_ratio(0.3, 0.1, 100)
    assert found is not None
    spread = math.exp(1.959964 * math.sqrt(1 / 30 + 1 / 10 - 2 / 100))
    assert found == pytest.approx((3.0, 3 / spread, 3 * spread), rel=1e-6)
    assert intervals.of_ratio(0.0, 0.1, 100) is None
    assert intervals.of_ratio(0.1, 0.0, 100) is None


def test_committed_intervals_of_speed_are_of_these_draws() -> None:
    """They were resampled by numpy alone; scipy's draws are the same for the same seed."""
    ratios = np.random.default_rng(5).lognormal(size=9)
    draws = np.random.default_rng(0).choice(ratios, (4000, 9))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    found = speed.paired(list(ratios), [1.0] * 9, seed=0)
    assert found == pytest.approx((float(np.median(ratios)), low, high), rel=1e-12)


def test_table_in_markdown() -> None:
    made = markdown.table(["", "a"], [["one", "1"], ["two", ""]])
    assert made == "| | a |\n|---|---|\n| one | 1 |\n| two | |"


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [
        ([], lambda share: (1 + math.cos(math.pi * share)) / 2),
        (stability_train.SGD, lambda share: 1 - share),
    ],
)
def test_learning_rate_of_both_recipes(recipe: list[str], shape: Callable[[float], float]) -> None:
    args = train_reference.parse([*recipe, "--data", "d", "--out", "o", "--lr", "0.5"])
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.5)
    steps = 40
    schedule = train_reference.cycle(optimizer, args.lr, steps, args)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        if len(rates) < steps:
            schedule.step()
    # From a 25th of the peak up to it, and down to a 10,000th of where it began.
    start, last, up = 0.5 / 25, 0.5 / 25e4, args.warm_up * steps - 1
    expected = [
        start + (0.5 - start) * (1 - shape(step / up))
        if step <= up
        else last + (0.5 - last) * shape((step - up) / (steps - 1 - up))
        for step in range(steps)
    ]
    assert rates == pytest.approx(expected)


def test_first_pictures_of_each_class() -> None:
    labels = torch.tensor([1, 0, 1, 1, 0, 0])
    assert pictures.first_of_each(labels, 2).tolist() == [1, 4, 0, 2]
    assert pictures.first_of_each(labels, None).tolist() == [1, 4, 5, 0, 2, 3]
