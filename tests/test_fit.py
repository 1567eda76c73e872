"""fit_temperature: it minimises Captum's infidelity, says what it tried, and is seeded."""

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
from captum_pullback import fit as fit_module
from captum_pullback.engine.softening import SofteningError
from captum_pullback.perturbations import gaussian_noise, noise_squares

FEW = {"n_perturb_samples": 4, "max_examples_per_batch": 16, "show_progress": False}


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(8, 6)


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
    for temperature, cost in fit.tried[::3]:
        assert cost == pytest.approx(by_hand(model, x, temperature, 5), rel=1e-5)


def test_the_best_of_what_it_tried_is_chosen(model: nn.Module, x: Tensor) -> None:
    fit = fit_temperature(model, x, 1, **FEW)
    soft = {temperature: cost for temperature, cost in fit.tried if temperature > 0}
    assert fit.infidelity == min(soft.values()) == soft[fit.temperature]
    assert [t for t, _ in fit.tried] == sorted({t for t, _ in fit.tried})
    assert fit.tried[0][0] == 0
    assert {0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2} <= soft.keys()
    neighbours = sorted(soft)
    place = neighbours.index(fit.temperature)
    assert neighbours[min(place + 1, len(soft) - 1)] / fit.temperature < 1.2


@pytest.mark.parametrize("per_gate", [False, True])
@pytest.mark.parametrize(("sign", "limit"), [(-1.0, 1000.0), (1.0, 0.001)])
def test_it_ends_at_its_limits_and_says_so(
    monkeypatch: pytest.MonkeyPatch, sign: float, limit: float, per_gate: bool
) -> None:
    """Where a cost only rises or only falls with the temperature, the best lies beyond them."""
    found: dict[float, float] = {}

    class Pretended(ExcitationPullback):
        def __init__(self, forward: Any, temperature: Any, **options: Any) -> None:
            super().__init__(forward, temperature, **options)
            given = max(temperature.values()) if isinstance(temperature, dict) else temperature
            found["now"] = given

    def pretended(*_: Any, **__: Any) -> Tensor:
        return torch.tensor([sign * found["now"] + (1e6 if found["now"] == 0 else 0)])

    monkeypatch.setattr(fit_module, "ExcitationPullback", Pretended)
    monkeypatch.setattr(fit_module, "infidelity", pretended)
    x = torch.tensor([[1.0, -1.0], [1.0, -1.0]])  # of deviation 1
    model = nn.Sequential(nn.ReLU())
    fit = fit_temperature(model, x, 0, per_gate=per_gate, **FEW)
    best = fit.scale if per_gate else fit.temperature
    assert best == limit
    assert fit.at_limit
    assert all(0.001 <= value <= 1000 for value, _ in fit.tried if value)
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
    assert fit.temperature.keys() == expected.keys()
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
        "module:relu": pytest.approx(fit.scale * float(z.std(correction=0)), rel=1e-6)
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
    assert set(fit.temperature) == ({"1", "2"} if pool_temperature is None else {"1"})
    ExcitationPullback(network, fit.temperature, pool_temperature=pool_temperature).attribute(x, 1)


def test_it_prints_as_a_table(model: nn.Module, x: Tensor) -> None:
    lines = str(fit_temperature(model, x, 1, **FEW)).splitlines()
    assert lines[0].split() == ["temperature", "infidelity"]
    assert lines[1].endswith("(gates as they are)")
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
    hard = dict(fit_temperature(network, x, 1, pool_temperature=0, seed=5, **FEW).tried)
    follows = dict(fit_temperature(network, x, 1, seed=5, **FEW).tried)
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


def test_a_fit_in_units_of_spread_searches_spreads(model: nn.Module, x: Tensor) -> None:
    x = x * torch.logspace(-1, 1, len(x))[:, None]  # each example has a spread of its own
    fit = fit_temperature(model, x, 1, units="spread", seed=5, **FEW)
    soft = {scale: cost for scale, cost in fit.tried if scale}
    assert fit.temperature == Spread(fit.scale)
    assert fit.infidelity == min(soft.values()) == soft[fit.scale]
    for scale, cost in fit.tried[1::3]:
        assert cost == pytest.approx(by_hand(model, x, Spread(scale), 5), rel=1e-5)
    # What one spread for all examples would cost is something else.
    assert fit.tried[1][1] != pytest.approx(by_hand(model, x, fit.tried[1][0], 5), rel=1e-3)


def test_it_finds_the_best_of_a_brute_force_search(model: nn.Module, x: Tensor) -> None:
    fit = fit_temperature(model, x, 1, units="spread", **FEW)
    grid = torch.logspace(-3, 3, 61).tolist()
    costs = [by_hand(model, x, Spread(scale), 0) for scale in grid]
    assert fit.infidelity <= min(costs) * 1.005
    # Printed, the unit is named.
    assert str(fit).startswith("     spread  infidelity\n")


def test_units_that_do_not_go_are_refused(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(ValueError, match="units must be 'input' or 'spread', not 'std'"):
        fit_temperature(model, x, 1, units="std", **FEW)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="per_gate fits one number per module"):
        fit_temperature(model, x, 1, units="spread", per_gate=True, **FEW)
