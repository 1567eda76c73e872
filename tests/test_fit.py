"""fit_temperature: Captum's infidelity, a check of class dependence, what was tried, seeds."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.metrics import infidelity, infidelity_perturb_func_decorator
from torch import Tensor, nn

from captum_pullback import ExcitationPullback, Spread, fit_temperature, soften
from captum_pullback.engine.errors import SofteningError
from captum_pullback.engine.spread import UNITS
from captum_pullback.fit import TemperatureFit, candidates
from captum_pullback.fit.candidates import Candidate
from captum_pullback.fit.infidelity import cosine, other_classes
from captum_pullback.perturbations import gaussian_noise, noise_squares
from captum_pullback.pullback.targets import indices

FEW = {"n_perturb_samples": 4, "max_examples_per_batch": 16, "show_progress": False}


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(8, 6)


def costs(fit: TemperatureFit) -> dict[float, float]:
    return {each.value: each.infidelity for each in fit.tried}


def by_hand(model: nn.Module, x: Tensor, temperature: Any, seed: int) -> float:
    """Captum's infidelity with Gaussian noise of the inputs' own deviation."""
    noise = infidelity_perturb_func_decorator(False)(
        gaussian_noise(float(x.std(correction=0)))
    )  # fmt: skip
    attributions = ExcitationPullback(model, temperature).attribute(x, 1)
    torch.manual_seed(seed)
    with torch.no_grad():
        scores = infidelity(
            model, noise, x, attributions, target=1, n_perturb_samples=4,
            max_examples_per_batch=16, normalize=True,
        )  # fmt: skip
    return float(scores.mean())


def test_what_it_tried_are_captums_infidelities(model: nn.Module, x: Tensor) -> None:
    fit = fit_temperature(model, x, 1, seed=5, **FEW)
    for each in fit.tried[::3]:
        assert each.infidelity == pytest.approx(by_hand(model, x, each.temperature, 5), rel=1e-5)


def test_the_best_of_what_it_tried_is_chosen(model: nn.Module, x: Tensor) -> None:
    fit = fit_temperature(model, x, 1, **FEW)
    passing = {each.value: each.infidelity for each in fit.tried if not each.failed}
    soft = costs(fit)
    assert fit.infidelity == min(passing.values()) == passing[fit.temperature]
    assert [each.value for each in fit.tried] == sorted({each.value for each in fit.tried})
    assert fit.tried[0].value == soft.pop(0.0) * 0 == 0
    assert {0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2} <= soft.keys()
    neighbors = sorted(soft)
    place = neighbors.index(fit.temperature)
    assert neighbors[min(place + 1, len(soft) - 1)] / fit.temperature < 1.2


@pytest.mark.parametrize("per_gate", [False, True])
@pytest.mark.parametrize(("sign", "limit"), [(-1.0, 1000.0), (1.0, 0.001)])
def test_it_ends_at_its_limits_and_says_so(
    monkeypatch: pytest.MonkeyPatch, sign: float, limit: float, per_gate: bool
) -> None:
    """Where a cost only rises or only falls with the temperature, the best lies beyond them."""

    def pretended(judge: Any, asked: Any, maps: Any) -> list[Candidate]:
        return [
            Candidate(given, value, 1e6 if not value > 0 else 1e4 + sign * value)
            for value, given in asked
        ]

    monkeypatch.setattr(candidates.Judge, "_scored", pretended)
    x = torch.tensor([[1.0, -1.0], [1.0, -1.0]])  # of deviation 1
    model = nn.Sequential(nn.ReLU())
    fit = fit_temperature(model, x, 0, per_gate=per_gate, **FEW)
    best = fit.scale if per_gate else fit.temperature
    assert best == limit
    assert fit.at_limit
    assert all(0.001 <= each.value <= 1000 for each in fit.tried if each.value)
    assert str(fit).count("<- best, at the limit of the search") == 1


def test_a_fit_within_its_limits_says_nothing_of_them(model: nn.Module, x: Tensor) -> None:
    fit = fit_temperature(model, x, 1, **FEW)
    assert 0.001 < fit.temperature < 1000
    assert not fit.at_limit
    assert "limit" not in str(fit)


def test_a_seed_gives_the_same_fit_and_another_another(model: nn.Module, x: Tensor) -> None:
    first, again = (fit_temperature(model, x, 1, seed=3, **FEW) for _ in range(2))
    assert first == again
    assert fit_temperature(model, x, 1, seed=4, **FEW).tried != first.tried


def test_per_gate_scales_each_gates_own_spread(model: nn.Module, x: Tensor) -> None:
    fit = fit_temperature(model, x, 1, per_gate=True, **FEW)
    with torch.no_grad():
        first = model[0](x)
        second = model[2](first.clamp(min=0))
    expected = {"1": first, "3": second}
    assert isinstance(fit.temperature, dict)
    assert fit.temperature.keys() == {*expected, ""}
    for name, z in expected.items():
        spread = float(z.double().std(correction=0))
        assert fit.temperature[name] == pytest.approx(fit.scale * spread, rel=1e-6)
    assert by_hand(model, x, fit.temperature, 0) == pytest.approx(fit.infidelity, rel=1e-5)
    with soften(model, fit.temperature) as record:
        model(x.requires_grad_())
    assert len({met.temperature for met in record.softened}) == 2


def test_per_gate_tells_a_module_from_a_kind_of_its_name(x: Tensor) -> None:
    """As every ResNet of torchvision's has a module that is called relu."""
    parts = {"linear": nn.Linear(6, 4), "relu": nn.ReLU(), "last": nn.Linear(4, 2)}
    network = nn.Sequential(OrderedDict(parts)).double()
    x = torch.randn(8, 6, dtype=torch.float64)
    fit = fit_temperature(network, x, 1, per_gate=True, **FEW)
    z = network.linear(x).detach()
    assert fit.temperature == {
        "module:relu": pytest.approx(fit.scale * float(z.std(correction=0)), rel=1e-6),
        "": 0.0,
    }
    with soften(network, fit.temperature) as record:
        network(x.requires_grad_())
    (met,) = record.softened
    assert float(str(met.temperature)) == pytest.approx(fit.temperature["module:relu"], rel=1e-4)


@pytest.mark.parametrize("pool_temperature", [None, 0.0, 0.2])
def test_per_gate_gives_nothing_to_pools_that_have_their_own(
    pool_temperature: float | None,
) -> None:
    """An entry of a temperature that no gate takes would be a warning."""
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)
    )
    x = torch.randn(4, 1, 6, 6)
    fit = fit_temperature(network, x, 1, per_gate=True, pool_temperature=pool_temperature, **FEW)
    assert isinstance(fit.temperature, dict)
    assert set(fit.temperature) == ({"1", "2", ""} if pool_temperature is None else {"1", ""})
    ExcitationPullback(network, fit.temperature, pool_temperature=pool_temperature).attribute(x, 1)


def test_it_prints_as_a_table(model: nn.Module, x: Tensor) -> None:
    lines = str(fit_temperature(model, x, 1, **FEW)).splitlines()
    assert lines[0].split() == ["temperature", "infidelity", "runner-up"]
    assert lines[1].split()[0] == "gradient"
    assert "(gates as they are)" in lines[2]
    assert sum(line.endswith("<- best") for line in lines) == 1


@pytest.mark.parametrize("show", [False, True])
def test_progress_goes_to_stderr(
    model: nn.Module, x: Tensor, show: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_temperature(model, x, 1, **{**FEW, "show_progress": show})
    out, err = capsys.readouterr()
    assert out == ""
    assert ("fit temperature" in err) == show


def test_model_inputs_and_random_state_stay(model: nn.Module, x: Tensor) -> None:
    before, kept, random = copy.deepcopy(model.state_dict()), x.clone(), torch.get_rng_state()
    fit_temperature(model, x, [0, 1] * 4, per_gate=True, **FEW)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(x, kept)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_random_state_stays_where_the_model_draws(model: nn.Module, x: Tensor) -> None:
    random = torch.get_rng_state()
    fit_temperature(nn.Sequential(nn.Dropout(), model).train(), x, 1, **FEW)
    assert torch.equal(torch.get_rng_state(), random)


def test_a_network_that_works_in_place_leaves_inputs_alone(x: Tensor) -> None:
    kept = x.clone()
    for per_gate in (False, True):
        network = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(x.shape[1], 3)).to(x)
        fit_temperature(network, x, 1, per_gate=per_gate, n_perturb_samples=2, show_progress=False)
        assert torch.equal(x, kept)


def test_pools_may_have_a_temperature_of_their_own() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(1, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(20, 3)
    )
    x = torch.randn(8, 1, 12)
    hard = costs(fit_temperature(network, x, 1, pool_temperature=0, seed=5, **FEW))
    follows = costs(fit_temperature(network, x, 1, seed=5, **FEW))
    assert hard[0.0] == follows[0.0]  # the plain gradient
    assert hard[0.4] != follows[0.4]
    assert hard[0.4] == pytest.approx(by_hand(network, x, {"1": 0.4, "": 0.0}, 5), rel=1e-5)


@pytest.mark.parametrize("examples", [1, 100])
def test_the_defaults_do_not_warn(model: nn.Module, examples: int) -> None:
    fit_temperature(model, torch.randn(examples, 6), 1, show_progress=False)


def test_pictures_and_tuples_have_perturbations_of_their_own() -> None:
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    assert fit_temperature(conv, torch.rand(8, 3, 4, 4), 0, **FEW).infidelity >= 0
    pair = torch.randn(8, 3), torch.randn(8, 3)
    fit = fit_temperature(lambda a, b, s: F.relu(a + s * b), pair, 0, 2.0, **FEW)
    assert fit.infidelity >= 0


def test_a_perturbation_of_ones_own_is_used(model: nn.Module, x: Tensor) -> None:
    calls = []

    def nudge(inputs: Tensor) -> Tensor:
        calls.append(inputs)
        return inputs + 0.01 * torch.randn_like(inputs)

    fit_temperature(model, x, 1, perturb_func=nudge, **FEW)
    assert calls


def test_what_cannot_be_fitted_is_refused(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"infidelity at temperature 0 is nan.*not finite"):
        fit_temperature(lambda x: model(x) * float("nan"), x, 1, **FEW)
    with pytest.raises(ValueError, match=r"per_gate needs.*torch\.nn\.Module"):
        fit_temperature(lambda x: model(x), x, 1, per_gate=True, **FEW)
    for per_gate in (False, True):
        with pytest.raises(SofteningError):
            fit_temperature(nn.Linear(6, 2), x, 1, per_gate=per_gate, **FEW)


def test_squares_of_noise_fill_a_half_and_a_quarter_of_the_side() -> None:
    low, high = torch.full((3, 1, 1), 2.0), torch.full((3, 1, 1), 3.0)
    changed = noise_squares(low, high)(torch.zeros(4, 3, 16, 16))
    for number, side in enumerate((8, 4, 8, 4)):
        square = changed[number] != 0
        assert square.sum() == 3 * side * side
        rows = square[0].any(1).nonzero().flatten()
        assert rows.diff().eq(1).all()
        values = changed[number][square]
        assert values.min() >= 2
        assert values.max() <= 3


def test_gaussian_noise_has_the_deviation_that_was_asked_for() -> None:
    noise = gaussian_noise(0.5)(torch.full((200, 200), 7.0)) - 7
    assert float(noise.std()) == pytest.approx(0.5, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)


# --- in units of spread ---


@pytest.mark.parametrize("units", UNITS)
def test_a_fit_in_other_units_searches_their_multiples(
    model: nn.Module, x: Tensor, units: Any
) -> None:
    x = x * torch.logspace(-1, 1, len(x))[:, None]  # each example has a spread of its own
    fit = fit_temperature(model, x, 1, units=units, seed=5, **FEW)
    passing = {each.value: each.infidelity for each in fit.tried if not each.failed}
    assert fit.temperature == Spread(fit.scale, units)
    assert str(fit).startswith(f"{units:>11}  infidelity  ")
    assert fit.infidelity == min(passing.values()) == passing[fit.scale]
    for each in fit.tried[1::3]:
        assert each.infidelity == pytest.approx(by_hand(model, x, each.temperature, 5), rel=1e-5)
    # What one spread for all examples would cost is something else.
    first = fit.tried[1]
    assert first.infidelity != pytest.approx(by_hand(model, x, first.value, 5), rel=1e-3)


def test_it_finds_the_best_of_a_brute_force_search(model: nn.Module, x: Tensor) -> None:
    fit = fit_temperature(model, x, 1, units="spread", **FEW)
    grid = torch.logspace(-3, 3, 61).tolist()
    costs = [by_hand(model, x, Spread(scale), 0) for scale in grid]
    assert fit.infidelity <= min(costs) * 1.005


def test_units_that_do_not_go_are_refused(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(ValueError, match="units must be 'input', 'spread' or 'output', not 'std'"):
        fit_temperature(model, x, 1, units="std", **FEW)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="per_gate fits one number per module"):
        fit_temperature(model, x, 1, units="spread", per_gate=True, **FEW)


# --- about the class ---


def deep() -> tuple[nn.Module, Tensor]:
    """Deep, without normalization: what moves all scores alike is off at the inputs, and near.

    One unit, 3 x_0 - 3, adds 4 times its value to each score, and class c has x_c + 1 for itself.
    At the inputs the first is closed, so gradients of two classes are orthogonal; noise opens it.
    """
    first = nn.Linear(6, 4)
    with torch.no_grad():
        first.weight.copy_(torch.eye(4, 6))
        first.weight[0, 0] = 3.0
        first.bias.copy_(torch.tensor([-3.0, 1.0, 1.0, 1.0]))
    layers: list[nn.Module] = [first, nn.ReLU()]
    for _ in range(2):
        same = nn.Linear(4, 4, bias=False)
        same.weight = nn.Parameter(torch.eye(4))
        layers += [same, nn.ReLU()]
    last = nn.Linear(4, 3, bias=False)
    last.weight = nn.Parameter(torch.cat([torch.full((3, 1), 4.0), torch.eye(3)], 1))
    return nn.Sequential(*layers, last).double(), 0.1 * torch.randn(16, 6, dtype=torch.float64)


def class_cosines(model: nn.Module, x: Tensor, temperature: float) -> float:
    """The mean cosine with the runner-up's map, one example at a time."""
    found = []
    for each in x:
        scores = model(each[None])[0].clone().detach()
        scores[1] = -torch.inf
        maps = [
            ExcitationPullback(model, temperature).attribute(each[None], target)[0]
            for target in (1, int(scores.argmax()))
        ]
        found.append(float(maps[0] @ maps[1] / (maps[0].norm() * maps[1].norm())))
    return sum(found) / len(found)


def test_infidelity_equals_captums_in_float64(model: nn.Module, x: Tensor) -> None:
    model, x = model.double(), x.double()
    for normalize in (True, False):
        fit = fit_temperature(model, x, 1, seed=5, normalize=normalize, **FEW)
        noise = infidelity_perturb_func_decorator(False)(gaussian_noise(float(x.std(correction=0))))
        for each in fit.tried[::4]:
            maps = ExcitationPullback(model, each.temperature).attribute(x, 1)
            torch.manual_seed(5)
            expected = infidelity(
                model, noise, x, maps, target=1, n_perturb_samples=4, max_examples_per_batch=16,
                normalize=normalize,
            ).mean()  # fmt: skip
            assert each.infidelity == pytest.approx(float(expected), rel=1e-6)


def test_cosines_are_those_of_one_example_at_a_time() -> None:
    network, x = deep()
    fit = fit_temperature(network, x, 1, **FEW)
    for each in fit.tried[::3]:
        expected = class_cosines(network, x, each.temperature)
        assert each.cosines[0] == pytest.approx(expected, abs=1e-9)
    assert fit.gradient.cosines[0] == pytest.approx(class_cosines(network, x, 0.0), abs=1e-9)
    assert fit.bounds == tuple(max(each, 0.0) + 0.1 for each in fit.gradient.cosines)


def test_what_infidelity_alone_would_pick_is_refused() -> None:
    network, x = deep()
    options = {**FEW, "n_perturb_samples": 16, "perturb_func": gaussian_noise(1.5)}
    alone = fit_temperature(network, x, 1, class_margin=float("inf"), **options)
    fit = fit_temperature(network, x, 1, **options)
    assert alone.best.cosines[0] > 0.8  # all but one map for all classes
    assert fit.gradient.cosines == (0.0, 0.0)
    assert not alone.failed
    # By hand: the map of class c is a e_0 + b e_c, and its cosine with another's a^2/(a^2 + b^2).
    z, t = network[0](x).detach(), alone.best.value
    a = 12 * torch.sigmoid(z[:, 0] / t) * 0.25
    b, other = (torch.sigmoid(z[:, c] / t) ** 3 for c in (2, 3))
    runner_up = torch.where(z[:, 1] > z[:, 3], torch.sigmoid(z[:, 1] / t) ** 3, other)
    by_hand_ = a**2 / ((a**2 + b**2) * (a**2 + runner_up**2)).sqrt()
    assert alone.best.cosines[0] == pytest.approx(float(by_hand_.mean()), abs=1e-9)
    assert alone.best.value >= 3.2
    refused = next(each for each in fit.tried if each.value == 3.2)
    assert "runner-up" in refused.failed
    assert refused in fit.failed
    assert refused.infidelity < fit.infidelity
    assert not fit.best.failed
    assert all(c <= b for c, b in zip(fit.best.cosines, fit.bounds, strict=True))
    lines = str(fit).splitlines()
    assert sum("fails: cosine" in line for line in lines) == len(fit.failed)


def test_two_equal_maps_have_a_cosine_of_one() -> None:
    zero, one = torch.zeros(1, 3), torch.tensor([[3.0, 0.0, 4.0]])
    other = torch.tensor([[0.0, 2.0, 4.0]])
    assert cosine(zero, zero).item() == 1
    assert cosine(zero, one).item() == 0
    assert cosine(one, other).item() == pytest.approx(16 / (5 * 20**0.5), abs=1e-12)
    assert cosine((one, zero), (one * 1e-30, zero)).item() == pytest.approx(1)
    parts = cosine((one, other), (other, one)).item()
    assert parts == pytest.approx(32 / (25 + 20), abs=1e-12)


def test_other_classes_are_the_runner_up_and_neither() -> None:
    scores = torch.tensor([[1.0, 5.0, 3.0, 2.0], [9.0, 1.0, 2.0, 3.0]])
    target = indices([1, 2], scores)
    assert target is not None
    runner_up, drawn = other_classes(scores, target, 0)
    assert runner_up[:, 0].tolist() == [2, 0]
    assert drawn[0, 0] in (0, 3)
    assert drawn[1, 0] in (1, 3)
    maps = scores[:, :, None].expand(2, 4, 5)
    places = indices((1, 4), maps)
    assert other_classes(maps, places, 0)[0].tolist() == [[2, 4], [0, 4]]
    assert other_classes(scores[:, :1], indices(0, scores), 0) == []


def test_one_score_cannot_be_checked_and_says_so(x: Tensor) -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    fit = fit_temperature(network, x, 0, **FEW)
    assert fit.bounds == ()
    assert "whether maps depend on the class cannot be checked" in str(fit)


@pytest.mark.parametrize("units", ["input", "spread"])
def test_each_kind_of_gate_has_its_own(x: Tensor, units: Any) -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))
    common = fit_temperature(network, x, 1, units=units, **FEW)
    fit = fit_temperature(network, x, 1, units=units, per_kind=True, **FEW)
    assert fit.infidelity <= common.infidelity
    if common.best.value:
        varied = [each.temperature for each in fit.tried if isinstance(each.temperature, dict)]
        assert {key for each in varied for key in each} == {"", "kind:relu", "kind:gelu"}
    assert by_hand(network, x, fit.temperature, 0) == pytest.approx(fit.infidelity, rel=1e-5)


def test_per_gate_knows_gates_that_are_no_relu(x: Tensor) -> None:
    network = nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    fit = fit_temperature(network, x, 1, per_gate=True, **FEW)
    soft = [each.temperature for each in fit.tried if each.value]
    assert all(each.keys() == {"2", "4", ""} for each in soft)


def test_perturbations_that_are_too_many_are_made_anew(
    model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = fit_temperature(model, x, 1, **FEW)
    monkeypatch.setattr("captum_pullback.fit.infidelity._KEPT", 0)
    assert fit_temperature(model, x, 1, **FEW) == kept


def test_the_network_sees_each_perturbed_input_once(x: Tensor) -> None:
    seen = []
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    network.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    fit = fit_temperature(network, x, 1, n_perturb_samples=4, max_examples_per_batch=16,
                          show_progress=False)  # fmt: skip
    assert seen.count(16) == 2
    # A first look, the scores, f(x) and 3 gradients; then one for hard gates, for the 7 first
    # temperatures, for each beyond an end, and 3 times for both sides of the best.
    assert seen.count(8) == 3 + 3 + 1 + 1 + (len(fit.tried) - 1 - 7 - 6) + 3
