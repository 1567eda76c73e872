"""The study of temperatures: its units, its scores, its tables."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from benchmarks import temperature, temperature_page, temperature_units
from captum_pullback import ExcitationPullback, Spread, soften


@pytest.mark.parametrize("measure", temperature_units.MEASURES)
def test_each_unit_is_1_for_a_standard_normal_input(measure: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 4, 50_000, generator=generator, dtype=torch.float64)
    found = temperature_units.MEASURES[measure](rows)
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=0.02)


#: Of rows (-1, -1, 1, 3), from their definitions.
BY_HAND: dict[str, float] = {
    "root mean square": math.sqrt(3),
    "median size": 1 / 0.6744898,
    "mean open": 2 * math.sqrt(math.pi / 2),
    "overlap": 2 / 4 * math.sqrt(2 * math.pi),
    "sides": 1 * math.sqrt(math.pi / 2),
}


@pytest.mark.parametrize("measure", BY_HAND)
def test_units_of_four_numbers(measure: str) -> None:
    found = temperature_units.MEASURES[measure](torch.tensor([[-1.0, -1.0, 1.0, 3.0]]))
    assert float(found) == pytest.approx(BY_HAND[measure], rel=1e-6)


@pytest.mark.parametrize("measure", ["root mean square", "mean open"])
def test_a_unit_softens_a_gate(measure: str) -> None:
    z = torch.randn(3, 40, dtype=torch.float64, requires_grad=True)
    with soften(torch.nn.Identity(), temperature_units.in_units(0.5, measure)):
        (found,) = torch.autograd.grad(torch.relu(z).sum(), z)
    widths = 0.5 * temperature_units.MEASURES[measure](z.detach())
    torch.testing.assert_close(found, torch.sigmoid(z.detach() / widths[:, None]))


class AfterNorm(nn.Module):
    """A gate after BatchNorm, and one after something else."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        with torch.no_grad():
            self.norm.weight.copy_(torch.tensor([0.5, -3.0]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(2 * torch.relu(self.norm(x)) - 1)


def test_the_weight_of_a_batch_norm_softens_the_gate_that_follows() -> None:
    model = AfterNorm().double().eval()
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    unit = temperature_units.Gamma(0.5, "output").watch(model)
    with soften(model, unit):
        (found,) = torch.autograd.grad(model(x).sum(), x)
    z = model.norm(x.detach())
    later = 2 * z.clamp(min=0) - 1
    width = 0.5 * math.sqrt(2 * math.pi) * later.clamp(min=0).mean((1, 2, 3), keepdim=True)
    gamma = torch.tensor([0.5, 3.0], dtype=torch.float64).view(2, 1, 1)
    slope = model.norm.weight.detach().view(2, 1, 1) / math.sqrt(1 + model.norm.eps)
    expected = 2 * torch.sigmoid(later / width) * torch.sigmoid(z / (0.5 * gamma)) * slope
    torch.testing.assert_close(found, expected)


def test_the_chosen_one_is_the_default() -> None:
    assert ExcitationPullback(torch.nn.ReLU()).temperature == temperature.CHOSEN
    assert temperature_units.in_units(1, "mean output") == temperature.CHOSEN


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(1)
    for number in range(2):
        folder = tmp_path / "data" / "val" / f"class{number}"
        folder.mkdir(parents=True)
        picture = to_pil_image(torch.rand(3, 16, 16, generator=generator))
        picture.save(folder / f"{number}.png")
    boxes = ["split,wnid,file,x0,y0,x1,y1", "val,class1,1.png,4,0,11,7"]
    (tmp_path / "data" / "boxes.csv").write_text("\n".join(boxes), encoding="utf-8")
    return tmp_path / "data"


def test_scores_of_a_small_network(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def named(name: str) -> Callable[[], object]:
        def make() -> object:
            made.append(name)
            network = tiny.network()
            network.model.train(name == "training")
            return network

        return make

    monkeypatch.setattr(
        temperature,
        "on_disk",
        lambda _: {"held back": {name: named(name) for name in ("one", "two", "training")}},
    )
    given = [
        "--data", str(photographs), "--imagenet", ".", "--networks", ".", "--stage", "report",
        "--count", "2", "--out", str(tmp_path),
    ]  # fmt: skip
    temperature.main([*given, "--only", "one"])
    for _ in range(2):  # what is there is left out
        with pytest.raises(ValueError, match="training is in training mode"):
            temperature.main(given)
    assert made == ["one", "two", "training", "training"]

    table = pd.read_csv(tmp_path / "temperature_report.csv")
    assert list(table.network.unique()) == ["one", "two"]
    network = tiny.network()
    network.model.eval()
    files = [photographs / "val" / f"class{n}" / f"{n}.png" for n in range(2)]
    ((names, inputs, masks),) = temperature.batches(network, files, {})
    assert names == ["0.png", "1.png"]
    assert masks == [None, None]
    with torch.no_grad():
        ranked = network.model(inputs).argsort(1, descending=True)

    def integrated(x: Tensor, target: Tensor) -> Tensor:
        method = IntegratedGradients(network.model, multiply_by_inputs=False)
        found: Tensor = method.attribute(x, target=target, n_steps=50)
        return found

    methods: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "gradient": ExcitationPullback(network.model, 0).attribute,
        "T = 0.3": ExcitationPullback(network.model, 0.3).attribute,
        "1 output": ExcitationPullback(network.model, Spread(1.0, "output")).attribute,
        "Integrated Gradients": integrated,
    }
    for name, attribute in methods.items():
        maps = [attribute(inputs, ranked[:, place]).flatten(1) for place in (0, 1)]
        expected = torch.cosine_similarity(*maps)
        rows = table[(table.network == "two") & (table.method == name)]
        assert rows.photograph.tolist() == names
        assert rows.runner_up.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
        first = attribute(inputs, ranked[:, 0])
        positive = first[1].sum(0).clamp(min=0)
        assert math.isnan(rows.box_share.iloc[0])  # has no box
        share = float(positive[:8, 4:12].sum() / positive.sum())
        assert rows.box_share.iloc[1] == pytest.approx(share, abs=1e-4)
        expected = by_squares(network.model, inputs, first, ranked[:, 0])
        assert rows.correlation.tolist() == pytest.approx(expected.tolist(), abs=1e-3)


def by_squares(model: nn.Module, inputs: Tensor, maps: Tensor, target: Tensor) -> Tensor:
    """The correlation of a map's sums over 4 x 4 squares with what each square is worth."""
    sums, worth = [], []
    with torch.no_grad():
        plain = model(inputs).gather(1, target[:, None])[:, 0]
        for row in range(0, 16, 4):
            for column in range(0, 16, 4):
                square = (..., slice(row, row + 4), slice(column, column + 4))
                without = inputs.clone()
                without[square] = 0
                sums.append((maps * inputs)[square].sum((1, 2, 3)))
                worth.append(plain - model(without).gather(1, target[:, None])[:, 0])
    pairs = zip(torch.stack(sums, 1), torch.stack(worth, 1), strict=True)
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs])


# --- tables ---


def by_hand(network: str, method: str, quantity: str) -> list[float]:
    with (temperature_page.RESULTS / "temperature_report.csv").open(encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file)
            if (row["network"], row["method"]) == (network, method)
        ]  # fmt: skip
    return [float(row[quantity]) for row in sorted(rows, key=lambda row: row["photograph"])]


@pytest.mark.parametrize("network", temperature_page.networks("report"))
def test_the_tables_numbers_are_the_results(network: str) -> None:
    def values(quantity: str, method: str = "1 output") -> list[float]:
        return by_hand(network, method, quantity)

    ours, theirs = values("infidelity"), values("infidelity", "Integrated Gradients")
    logs = [math.log(one / two) for one, two in zip(ours, theirs, strict=True)]
    found = temperature_page.times("report", network, "1 output", "Integrated Gradients")
    assert found.value == pytest.approx(math.exp(sum(logs) / len(logs)))
    assert found.low < found.value < found.high

    sensitivity = temperature_page.ratio(network, "max_sensitivity")
    others = values("max_sensitivity", "Integrated Gradients")
    assert sensitivity.value == pytest.approx(sum(values("max_sensitivity")) / sum(others))

    cosine = temperature_page.more(network, "runner_up", "gradient")
    mine, plain = values("runner_up"), values("runner_up", "gradient")
    assert cosine.value == pytest.approx((sum(mine) - sum(plain)) / len(mine))

    (line,) = (
        line
        for line in temperature_page.wanted_table().splitlines()
        if line.startswith(f"| {network} ")
    )
    assert f"| {found.value:.2f} ({found.low:.2f} to " in line
    assert f"| {sensitivity.value:.2f} (" in line


@pytest.mark.parametrize(
    ("low", "high", "above", "verdict"),
    [
        (0.1, 0.4, False, "yes"),
        (0.6, 0.9, False, "**no**"),
        (0.4, 0.6, False, "open"),
        (0.5, 0.6, False, "open"),
        (0.1, 0.4, True, "**no**"),
        (0.6, 0.9, True, "yes"),
    ],
)
def test_verdicts(low: float, high: float, above: bool, verdict: str) -> None:
    estimate = temperature_page.Estimate((low + high) / 2, low, high)
    assert temperature_page.judged(estimate, 0.5, above=above).endswith(f"), {verdict}")
