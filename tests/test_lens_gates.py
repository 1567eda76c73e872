"""The lens's measures of gates, against brute force, and temperatures fitted to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from handmade import Handmade
from torch import Tensor, nn
from training_runs import recorded, trained

from captum_pullback import ExcitationPullback, TrainingLens
from captum_pullback.lens.paths import FixedPaths, read_gates
from captum_pullback.lens.stability import (
    auc,
    likeliest_temperature,
    log_likelihood,
    roc,
    settledness,
    step_weights,
)
from captum_pullback.lens.stepfiles import LensError


def gates_of(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """By hand, for Small."""
    with torch.no_grad():
        z1 = model.bn(model.conv1(x))
        pooled = model.pool(z1.relu())
        z2 = pooled + model.conv2(pooled)
        z3 = z2.relu().flatten(1) - 0.2
    return {"relu": z1, "relu (2)": z2, "(model)": z3}


def test_gate_measures_against_brute_force(data: tuple[Tensor, Tensor]) -> None:
    models = [model.eval() for model in trained(6, data)]
    lens = recorded(models, data, weights=None, batch_size=4)
    patterns = [{k: z > 0 for k, z in gates_of(model, data[0]).items()} for model in models]
    assert lens.layers == ["relu", "relu (2)", "(model)"]
    agreement, settled = lens.agreement(), lens.settled_share()
    measured = lens.settledness(models[-1])
    for name in lens.layers:
        bits = torch.stack([pattern[name] for pattern in patterns]).flatten(1)
        same = bits == bits[-1]
        np.testing.assert_allclose(agreement[name], same.double().mean(1))
        stays = torch.stack([same[s:].all(0) for s in range(7)])
        np.testing.assert_allclose(settled[name], stays.double().mean(1))
        z = gates_of(models[-1], data[0])[name].flatten()
        is_settled = same[3:].all(0)
        assert measured[name].share == pytest.approx(float(is_settled.double().mean()))
        positive, negative = z.abs()[is_settled], z.abs()[~is_settled]
        wins = (positive[:, None] > negative).double() + 0.5 * (positive[:, None] == negative)
        assert measured[name].auc == pytest.approx(float(wins.mean()), abs=1e-6)
        shown_z, opened = lens.open_share(models[-1])[name]
        np.testing.assert_allclose(shown_z, z, atol=1e-6)
        np.testing.assert_allclose(opened, bits[3:6].double().mean(0))


def test_roc_with_ties_and_without_negatives() -> None:
    across, up = roc([3, 2, 2, 1], [True, True, False, False])
    np.testing.assert_allclose(across, [0, 0, 0.5, 1])
    np.testing.assert_allclose(up, [0, 0.5, 1, 1])
    assert auc([3, 2, 2, 1], [True, True, False, False]) == pytest.approx(7 / 8)
    assert math.isnan(auc([1, 2], [True, True]))
    assert math.isnan(settledness(np.array([1.0, 2.0]), np.array([True, True])).auc)


def test_likeliest_temperature_is_the_one_that_made_the_gates() -> None:
    generator = np.random.default_rng(0)
    z = generator.normal(size=(3, 200_000))
    truth = np.array([0.1, 0.5, 2.0])
    opened = generator.binomial(8, 1 / (1 + np.exp(-z / truth[:, None]))) / 8
    np.testing.assert_allclose(likeliest_temperature(z, opened), truth, rtol=0.02)
    best = float(likeliest_temperature(z[:1], opened[:1])[0])
    most = log_likelihood(z[0], opened[0], best)
    assert most > log_likelihood(z[0], opened[0], 1.02 * best)
    assert most > log_likelihood(z[0], opened[0], best / 1.02)
    assert likeliest_temperature(z, z > 0).max() <= 1.1e-4
    assert np.isinf(likeliest_temperature(z, z < 0)).all()


def test_fitted_temperatures_are_temperatures(data: tuple[Tensor, Tensor]) -> None:
    models = [model.eval() for model in trained(6, data)]
    lens = recorded(models, data, weights=None)
    model = models[-1]
    fitted = lens.fit_temperatures(model)
    assert set(fitted) == {"module:relu", ""}
    every = lens.open_share(model)
    z, opened = (
        np.concatenate([every[name][part] for name in ("relu", "relu (2)")]) for part in (0, 1)
    )
    assert fitted["module:relu"] == pytest.approx(float(likeliest_temperature(z, opened)[0]))
    ExcitationPullback(model, fitted).attribute(data[0], data[1])
    channels = lens.fit_temperatures(model, per_channel=True)
    assert channels["module:relu"].shape == (3, 1, 1)
    assert len(set(channels["module:relu"].flatten().tolist())) == 3
    ExcitationPullback(model, channels).attribute(data[0], data[1])
    with pytest.raises(LensError, match="not the model of the last record"):
        lens.fit_temperatures(trained(0, data, seed=9)[0])


def test_a_module_of_many_widths_has_one_temperature(data: tuple[Tensor, Tensor]) -> None:
    """As one ReLU of a bottleneck: there are no channels that all its calls have."""

    def widths() -> nn.Module:
        return Handmade(
            lambda net, x: net.relu(net.two(net.relu(net.one(x)))).mean((2, 3)),
            one=nn.Conv2d(1, 3, 3), two=nn.Conv2d(3, 5, 3), relu=nn.ReLU(),
        )  # fmt: skip

    x, y = torch.randn(6, 1, 8, 8), torch.arange(6) % 5
    lens = TrainingLens(x, y, weights=None)
    for step in range(3):
        torch.manual_seed(step)
        lens.record(model := widths().eval(), step)
    assert lens.fit_temperatures(model, per_channel=True) == lens.fit_temperatures(model)


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_gate_of_one_unit_has_a_temperature_too(per_channel: bool) -> None:
    """Its input has no dimension but that of the examples."""

    def single() -> nn.Module:
        return Handmade(
            lambda net, x: net.relu(net.linear(x)[:, 0])[:, None],
            linear=nn.Linear(4, 1), relu=nn.ReLU(),
        )  # fmt: skip

    lens = TrainingLens(torch.randn(6, 4), torch.zeros(6, dtype=torch.int64), weights=None)
    for step in range(3):
        torch.manual_seed(step)
        lens.record(model := single().eval(), step)
    fitted = lens.fit_temperatures(model, per_channel=per_channel)
    assert isinstance(fitted["module:relu"], float)


def test_step_weights_are_shares_of_time() -> None:
    np.testing.assert_allclose(step_weights([0, 1, 2, 4, 10]), [0.05, 0.1, 0.15, 0.4, 0.3])
    np.testing.assert_allclose(step_weights([5]), [1])


@pytest.mark.parametrize("gate", [nn.ReLU6(), nn.Hardtanh(), nn.LeakyReLU(0.1), nn.PReLU()])
def test_other_gates_are_open_where_they_pass(gate: nn.Module) -> None:
    z = torch.tensor([[-2.0, -0.5, 0.5, 7.0]], requires_grad=True)
    slope = torch.autograd.grad(gate(z).sum(), z)[0]
    gates, _ = read_gates(gate, z.detach())
    assert torch.equal(gates[0].open, slope == 1)
    with FixedPaths([gates[0].open.float()]):
        fixed = torch.autograd.grad(gate(z).sum(), z)[0]
    torch.testing.assert_close(fixed, slope)


@pytest.mark.parametrize("gate", [nn.GELU(), nn.SiLU(), nn.Hardswish(inplace=True)])
def test_graded_gates_are_open_where_more_than_half_passes(gate: nn.Module) -> None:
    z = torch.tensor([[-4.0, -0.5, 0.5, 7.0]])
    gates, _ = read_gates(gate, z)
    assert torch.equal(gates[0].open, gate(z.clone()) / z > 0.5)
    leaf = z.clone().requires_grad_()
    with FixedPaths([torch.tensor([[0.1, 0.2, 0.3, 0.4]])]):
        output = gate(leaf * 1)
    assert torch.equal(output, gate(z.clone()))
    output.sum().backward()
    torch.testing.assert_close(leaf.grad, torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
