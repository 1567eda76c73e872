"""The scores where they are known beforehand: on linear models, and from Captum by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from snapshot import hooks
from torch import Tensor, nn

from captum_pullback.study import scores
from captum_pullback.study.methods import METHODS, Settings
from captum_pullback.study.metrics import disturbances
from captum_pullback.zoo.networks import Network, preprocessing

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


def network(make: Callable[[], nn.Module], size: int = 8) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
    return Network(model, ("a", "b"), preprocessing(size, None, MEAN, STD), MEAN, STD, size)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 2)
    )


def inputs() -> Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", ["saliency", "ig", "inputxgradient"])
def test_a_linear_model_is_explained_perfectly(method: str) -> None:
    """Each in the form that it is scored in: in the other form the infidelity is about 1."""
    scored = scores.score(network(linear), inputs(), 1, method, Settings())
    assert scored.infidelity < 1e-8
    if method == "saliency":
        assert scored.sensitivity < 1e-6
        weight = network(linear).model[1].weight[1].view(3, 8, 8)
        torch.testing.assert_close(scored.attribution, weight, rtol=0, atol=0)
    else:  # proportional to the input, which moves by up to 0.02 / std
        assert 0.01 < scored.sensitivity < 0.1


def test_which_methods_multiply_by_the_inputs() -> None:
    """Where the gradient is constant, contributions are the inputs times the derivatives."""
    net, x = network(linear), inputs()
    gradient = net.model[1].weight[1].view(3, 8, 8)
    for name in ("saliency", "ig", "inputxgradient", "smoothgrad"):
        result = scores.score(net, x, 1, name, Settings(scores="none")).attribution
        factor = x[0] if METHODS[name].multiplies_by_inputs else 1
        torch.testing.assert_close(result, gradient * factor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_is_seeded_and_leaves_no_trace(method: str) -> None:
    net, x = network(convolutional), inputs()
    if "LRP, Epsilon" in METHODS[method].title or method == "attn_lrp":
        pytest.importorskip("zennit", reason="zennit is not installed")
    if method == "attn_lrp":
        pytest.importorskip("lxt", reason="lxt is not installed")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = scores.score(net, x, 1, method, Settings(seed=5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    second = scores.score(net, x, 1, method, Settings(seed=5))
    assert torch.equal(first.attribution, second.attribution)
    assert (first.infidelity, first.sensitivity) == (second.infidelity, second.sensitivity)
    assert math.isfinite(first.infidelity)
    assert 0 < first.sensitivity < 10
    assert first.seconds > 0
    assert not first.attribution.requires_grad
    assert not x.requires_grad
    assert all(p.grad is None for p in net.model.parameters())
    assert hooks(net.model) == []


def test_another_seed_gives_other_noise() -> None:
    net = network(convolutional)
    one, two = (scores.score(net, inputs(), 1, "saliency", Settings(seed=s)) for s in (0, 1))
    assert torch.equal(one.attribution, two.attribution)
    assert one.infidelity != two.infidelity
    assert one.sensitivity != two.sensitivity


def test_smoothgrad_is_captums_noise_tunnel() -> None:
    net = network(convolutional)
    scored = scores.score(net, inputs(), 1, "smoothgrad", Settings(seed=7, scores="none"))
    torch.manual_seed(7)
    expected = NoiseTunnel(Saliency(net.model)).attribute(
        inputs().requires_grad_(),
        nt_type="smoothgrad",
        nt_samples=25,
        stdevs=0.15 * 3 / sum(STD),
        target=1,
        abs=False,
    )
    torch.testing.assert_close(scored.attribution, expected[0])


def test_guided_backprop_without_modules_is_refused() -> None:
    """Captum's would silently be the plain gradient."""
    with pytest.raises(ValueError, match=r"nn\.ReLU modules"):
        scores.score(network(linear), inputs(), 1, "guidedbackprop", Settings())


def test_squares_are_filled_with_pixels_from_black_to_white() -> None:
    net = network(linear, 16)
    x = torch.full((40, 3, 16, 16), 100.0)
    torch.manual_seed(0)
    changed = disturbances.noise_squares_of(net)(x)
    assert (x == 100).all()
    for i, example in enumerate(changed):
        rows, columns = torch.where((example != 100).all(0))
        assert len(rows) == (8, 4)[i % 2] ** 2
        square = example[:, rows, columns] * torch.tensor(STD)[:, None]
        pixels = square + torch.tensor(MEAN)[:, None]
        assert -1e-6 < pixels.min() < 0.3
        assert 0.7 < pixels.max() < 1 + 1e-6


def test_sensitivitys_noise_has_its_radius_in_pixels() -> None:
    noise = disturbances.uniform_noise_of(network(linear))(torch.zeros(500, 3, 8, 8))
    largest = noise.abs().amax((0, 2, 3)) * torch.tensor(STD)
    torch.testing.assert_close(largest, torch.full((3,), 0.02), rtol=0.01, atol=0)


def test_without_scores_there_are_none() -> None:
    scored = scores.score(network(linear), inputs(), 0, "saliency", Settings(scores="none"))
    assert math.isnan(scored.infidelity)
    assert math.isnan(scored.sensitivity)


def explained(*seconds: float) -> list[tuple[int, dict[str, scores.Scored]]]:
    names = ("saliency", "inputxgradient", "guidedbackprop")
    net = network(convolutional)
    maps = {
        name: replace(scores.attributed(net, inputs(), 1, name, Settings()), seconds=cost)
        for name, cost in zip(names, seconds, strict=False)
    }
    return [(1, maps)]


@pytest.mark.parametrize(
    ("seconds", "left", "draws", "without"),
    [
        ((0.1, 0.1, 0.1), 20.0, 10, ()),
        ((1.0, 2.0, 3.0), 20.0, 3, ()),
        ((1.0, 1.0, 30.0), 20.0, 10, ("guidedbackprop",)),
        ((25.0, 4.0, 30.0), 20.0, 5, ("guidedbackprop", "saliency")),
        ((30.0,), 20.0, 0, ("saliency",)),
        ((30.0,), math.inf, 10, ()),
    ],
)
def test_all_methods_get_as_many_draws_as_fit(
    seconds: tuple[float, ...], left: float, draws: int, without: tuple[str, ...]
) -> None:
    assert scores._affordable(explained(*seconds), left) == (draws, without)


def test_what_is_cut_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over n draws the score is the greatest change to the first n of the ten neighbors."""
    monkeypatch.setattr(scores, "BUDGET", 1000.0)
    net, x = network(convolutional), inputs()
    rated = scores.rate(net, x, explained(200.0, 100.0), Settings())
    assert rated.draws == 3
    assert rated.cut == "max-sensitivity over 3 of 10 draws"
    torch.manual_seed(0)
    near = disturbances.nearby(net, x, 10)
    gradient = METHODS["saliency"].make(net, Settings())
    leaf = torch.cat([x, near]).requires_grad_()
    own, *others = gradient(leaf, target=1)
    changes = [float((other - own).norm() / own.norm()) for other in others]
    assert rated.maps[0]["saliency"].sensitivity == pytest.approx(max(changes[:3]), rel=1e-5)
    full = scores.rate(net, x, explained(200.0, 100.0), Settings(scores="full"))
    assert full.cut == ""
    assert full.maps[0]["saliency"].sensitivity == pytest.approx(max(changes), rel=1e-5)


def test_a_photograph_is_perturbed_once_for_all_methods_and_targets() -> None:
    net = network(convolutional)
    seen: list[int] = []
    net.model.register_forward_pre_hook(
        lambda _, given: None if torch.is_grad_enabled() else seen.append(len(given[0]))
    )
    one, two = explained(0.1, 0.1), explained(0.1, 0.1, 0.1)
    scores.rate(net, inputs(), [*one, (0, two[0][1])], Settings())
    assert sum(seen) == 33


def test_no_time_at_all_leaves_eight_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "BUDGET", 0.0)
    rated = scores.rate(network(convolutional), inputs(), explained(1.0), Settings())
    assert (rated.squares, rated.draws) == (8, 0)
    assert rated.cut == "infidelity over 8 of 32 squares, no max-sensitivity"
    assert math.isnan(rated.maps[0]["saliency"].sensitivity)
    assert rated.maps[0]["saliency"].infidelity > 0
