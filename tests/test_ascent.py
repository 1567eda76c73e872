"""The ascent against one written by hand, on networks whose optimum is known, and at its limits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from climbs import LENGTHS, convolutional, images, lengths, normal, seeded
from torch import Tensor, nn

from captum_pullback import PullbackAscent, Spread
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.photos import SAMPLES, sample_photo

# The ascent by hand: numpy, one example, no autograd.


def by_hand(
    weights: list[np.ndarray],
    x: np.ndarray,
    target: int,
    temperature: float,
    step_size: float,
    radius: float,
    low: float,
    high: float,
) -> tuple[list[np.ndarray], list[float]]:
    """Five steps for ``W3 relu(W2 relu(W1 x))``: the points and the target's scores."""
    w1, w2, w3 = weights
    point, points, scores = x, [], []
    for step in range(6):
        z1 = w1 @ point
        z2 = w2 @ np.maximum(z1, 0)
        points.append(point)
        scores.append(float(w3[target] @ np.maximum(z2, 0)))
        if step == 5:
            break
        gate1, gate2 = (
            1 / (1 + np.exp(-z / temperature)) if temperature else (z > 0) for z in (z1, z2)
        )
        pullback = w1.T @ (gate1 * (w2.T @ (gate2 * w3[target])))
        total = point + step_size * pullback / math.sqrt((pullback**2).sum()) - x
        length = math.sqrt((total**2).sum())
        if length > radius:
            total = total * radius / length
        point = np.clip(x + total, low, high)
    return points, scores


@pytest.mark.parametrize("temperature", [0.0, 0.3, 2.0])
@pytest.mark.parametrize(
    ("step_size", "radius", "bounds"),
    [(0.5, 100.0, (-9.0, 9.0)), (0.5, 0.9, (-9.0, 9.0)), (0.7, 1.5, (-1.0, 1.1))],
    ids=["free", "ball", "ball and bounds"],
)
def test_it_is_the_ascent_by_hand(
    temperature: float, step_size: float, radius: float, bounds: tuple[float, float]
) -> None:
    weights = [normal(9, 6, seed=1), normal(7, 9, seed=2), normal(4, 7, seed=3)]
    layers: list[nn.Module] = []
    for weight in weights:
        layers += [nn.Linear(*weight.shape[::-1], bias=False, dtype=torch.float64), nn.ReLU()]
        layers[-2].weight = nn.Parameter(weight)
    inputs, targets = normal(4, 6, seed=4).clamp(*bounds), [2, 0, 3, 2]
    ascent = PullbackAscent(
        nn.Sequential(*layers[:-1]), temperature, step_size=step_size, radius=radius, bounds=bounds
    )
    trace = ascent.trace(inputs, targets)
    for number, target in enumerate(targets):
        points, scores = by_hand(
            [w.numpy() for w in weights], inputs[number].numpy(), target, temperature, step_size,
            radius, *bounds,
        )  # fmt: skip
        for step, (point, score) in enumerate(zip(points, scores, strict=True)):
            found = trace[step]
            np.testing.assert_allclose(found.inputs[number], point, rtol=1e-11, atol=1e-12)
            assert float(found.score[number]) == pytest.approx(score, rel=1e-11)
            before = points[max(step - 1, 0)]
            for value, expected in (
                (found.step_norm, np.linalg.norm(point - before)),
                (found.distance, np.linalg.norm(point - points[0])),
            ):
                assert float(value[number]) == pytest.approx(expected, rel=1e-11, abs=1e-12)
    reached = trace[-1].distance
    assert (reached.max() >= radius * (1 - 1e-12)) == (radius < 1.5), "each case meets its limit"


# Networks whose optimum is known.


def peak(center: Tensor) -> Callable[[Tensor], Tensor]:
    """``-sum |x - c|``, with its greatest value, 0, at c; |u| is made of two ReLUs."""

    def model(x: Tensor) -> Tensor:
        u = x - center
        return -(u.relu() + (-u).relu()).flatten(1).sum(dim=1)

    return model


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_it_comes_to_a_peak_and_stays(temperature: float) -> None:
    start = normal(2, 10)
    center = start[0] + 0.7 * torch.tensor([1.0, -1.0] * 5, dtype=torch.float64)
    ascent = PullbackAscent(peak(center), temperature, steps=400, step_size=0.02)
    trace = ascent.trace(start, None)
    for number in range(2):
        assert float((trace[-1].inputs[number] - center).norm()) < 0.05
    assert (trace[-1].score > -0.2).all()


def test_on_a_linear_network_it_is_the_best_point_of_the_ball() -> None:
    # At an infinite temperature every gate passes one half: the pullback is W2 W1 / 2 everywhere.
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)).double()
    start = normal(4, 6)
    direction = (model[2].weight @ model[0].weight)[1].detach()
    ascent = PullbackAscent(model, math.inf, step_size=0.5, radius=1.7)
    best = start + 1.7 * direction / direction.norm()
    torch.testing.assert_close(ascent.perturb(start, 1), best, rtol=1e-12, atol=1e-12)


def test_on_a_linear_network_it_is_the_best_corner_of_the_bounds() -> None:
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)).double()
    direction = (model[2].weight @ model[0].weight)[1].detach()
    ascent = PullbackAscent(model, math.inf, steps=50, radius=math.inf, bounds=(-2, 3))
    best = torch.where(direction > 0, 3.0, -2.0).double().expand(4, 6)
    torch.testing.assert_close(ascent.perturb(normal(4, 6), 1), best, rtol=0, atol=0)


# To the last digit.


@pytest.mark.parametrize("dtype", LENGTHS)
@pytest.mark.parametrize("radius", [0.01, 0.1, 1.0, 1.7, 3.3])
@pytest.mark.parametrize("bounded", [False, True])
def test_no_point_is_beyond_the_radius(dtype: torch.dtype, radius: float, bounded: bool) -> None:
    x, model = images(8, dtype=dtype).clamp(-1, 1), convolutional(dtype)
    bounds = (-1, 1) if bounded else None
    ascent = PullbackAscent(model, step_size=0.9, radius=radius, bounds=bounds)
    for step in ascent.trace(x, 1):
        assert step.inputs.dtype == dtype
        assert (lengths(step.inputs.double() - x.double()) <= radius).all()
        assert (step.distance <= radius).all()
    resolution = torch.finfo(dtype).eps * float(lengths(x).max())
    if not bounded and resolution < radius:
        assert (step.distance >= radius - resolution).all(), "and it goes as far as it may"


@pytest.mark.parametrize("dtype", LENGTHS)
@pytest.mark.parametrize("kind", ["numbers", "lists", "tensors", "full"])
def test_no_point_is_beyond_the_bounds(dtype: torch.dtype, kind: str) -> None:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = torch.rand(8, 3, 8, 8, generator=seeded())
    low, high = (0 - mean.double()) / std.double(), (1 - mean.double()) / std.double()
    bounds: dict[str, Any] = {
        "numbers": (-1.7, 2.2),
        "lists": (low.tolist(), high.tolist()),
        "tensors": (low, high),
        "full": (low.view(3, 1, 1).expand(3, 8, 8), high.view(1, 3, 1, 1)),
    }
    x = ((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)).to(dtype)
    ascent = PullbackAscent(convolutional(dtype), step_size=9, bounds=bounds[kind])
    low, high = (-1.7, 2.2) if kind == "numbers" else (b.view(3, 1, 1) for b in (low, high))
    for step in ascent.trace(x, 1)[1:]:
        point = step.inputs.double()
        assert (point >= low).all()
        assert (point <= high).all()
    assert (point < low + 0.02).any()
    assert (point > high - 0.02).any(), "bounds that nothing came up to would test nothing"


def test_inputs_out_of_bounds_are_brought_in() -> None:
    x = images() * 4
    ascent = PullbackAscent(convolutional(), step_size=0.1, radius=0.2, bounds=(-1, 1))
    assert ascent.perturb(x, 0).abs().max() <= 1


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_the_length_of_a_step_does_not_depend_on_that_of_the_gradient(scale: float) -> None:
    model = convolutional()
    unscaled = PullbackAscent(model, 0.3, step_size=0.5).perturb(images(), 0)
    scaled = PullbackAscent(lambda x: model(x) * scale, 0.3, step_size=0.5).trace(images(), 0)
    torch.testing.assert_close(scaled[-1].inputs, unscaled)
    for step in scaled[1:]:
        torch.testing.assert_close(step.step_norm, torch.full_like(step.step_norm, 0.5))


def test_coarse_numbers_lose_no_steps() -> None:
    """Steps too small for bfloat16 add up, since what is rounded is only what the network sees."""
    x = torch.full((1, 3, 8, 8), 100.0, dtype=torch.bfloat16)
    model = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(192, 1)).to(torch.bfloat16)
    nn.init.ones_(model[2].weight)
    trace = PullbackAscent(model, 0.3, steps=8, step_size=0.1 * 192**0.5).trace(x, 0)
    assert trace[1].distance == 0
    assert torch.equal(trace[-1].inputs, x + 1)


# What it gives.


def test_attribute_perturb_and_trace_agree() -> None:
    x, model = images(), convolutional()
    ascent = PullbackAscent(model, 0.5, step_size=0.4, radius=1.5)
    trace = ascent.trace(x, [0, 4, 2])
    assert [step.step for step in trace] == [0, 1, 2, 3, 4, 5]
    torch.testing.assert_close(trace[0].inputs, x, rtol=0, atol=0)
    assert torch.equal(ascent.perturb(x, [0, 4, 2]), trace[-1].inputs)
    assert torch.equal(ascent(x, [0, 4, 2]), trace[-1].inputs)
    assert torch.equal(ascent.attribute(x, [0, 4, 2]), trace[-1].inputs - x)
    for before, after in itertools.pairwise(trace):
        torch.testing.assert_close(after.step_norm, lengths(after.inputs - before.inputs))
        torch.testing.assert_close(after.distance, lengths(after.inputs - x))
    for step in trace:
        torch.testing.assert_close(step.score, model(step.inputs)[range(3), [0, 4, 2]].detach())
        assert not step.score.requires_grad
        assert not step.inputs.requires_grad


def test_a_batch_is_its_examples() -> None:
    x, targets = images(5), [0, 4, 2, 2, 1]
    ascent = PullbackAscent(convolutional(), relative=True, radius=0.35, bounds=(-2, 2))
    batch = ascent.trace(x, targets)
    for number, target in enumerate(targets):
        alone = ascent.trace(x[number : number + 1], target)
        for together, single in zip(batch, alone, strict=True):
            for name in ("inputs", "score", "step_norm", "distance"):
                value = getattr(together, name)[number : number + 1]
                torch.testing.assert_close(value, getattr(single, name), rtol=1e-10, atol=1e-12)


def test_a_tuple_is_one_vector() -> None:
    model = convolutional()
    x = images()
    whole = PullbackAscent(model, 0.5, step_size=0.7, radius=2.0, bounds=(-2, 2))
    parts = PullbackAscent(
        lambda a, b: model(torch.cat([a, b.to(a.dtype)], dim=2)),
        0.5, step_size=0.7, radius=2.0, bounds=(-2, 2),
    )  # fmt: skip
    pair = (x[:, :, :5], x[:, :, 5:])
    found = parts.attribute(pair, 3)
    assert isinstance(found, tuple)
    torch.testing.assert_close(torch.cat(found, dim=2), whole.attribute(x, 3))
    mixed = parts.perturb((pair[0], pair[1].bfloat16()), 3)
    assert [part.dtype for part in mixed] == [torch.float64, torch.bfloat16]


def test_relative_lengths_are_fractions_of_the_norm() -> None:
    x = images() * torch.tensor([0.01, 1.0, 50.0], dtype=torch.float64).view(3, 1, 1, 1)
    norm = lengths(x)
    trace = PullbackAscent(convolutional(), relative=True, step_size=0.1, radius=0.25).trace(x, 0)
    torch.testing.assert_close(trace[1].step_norm, 0.1 * norm)
    assert (trace[-1].distance <= 0.25 * norm).all()
    assert (trace[-1].distance > 0.1 * norm).all()
    for number in range(3):
        length = float(norm[number])
        absolute = PullbackAscent(convolutional(), step_size=0.1 * length, radius=0.25 * length)
        single = x[number : number + 1]
        torch.testing.assert_close(absolute.perturb(single, 0)[0], trace[-1].inputs[number])


def test_defaults_are_the_published_ones() -> None:
    ascent, relative = PullbackAscent(convolutional()), PullbackAscent(nn.ReLU(), relative=True)
    assert (ascent.steps, ascent.step_size, ascent.radius) == (5, 20.0, 100.0)
    assert (relative.steps, relative.step_size, relative.radius) == (5, 0.1, 0.5)
    assert (ascent.temperature, ascent.pool_temperature, ascent.bounds) == (
        Spread(1, "output"),
        None,
        None,
    )


def test_an_example_without_gradient_stays_where_it_is() -> None:
    def model(x: Tensor) -> Tensor:  # the first example's is zero throughout
        return x.relu().flatten(1).sum(dim=1) * torch.tensor([0.0, 1.0, 1.0])

    x = images(dtype=torch.float32)
    trace = PullbackAscent(model, step_size=0.5).trace(x, None)
    assert torch.equal(trace[-1].inputs[0], x[0])
    assert [float(step.step_norm[0]) for step in trace] == [0.0] * 6
    assert (trace[-1].distance[1:] > 2.4).all()
    torch.testing.assert_close(trace[-1].score[0], torch.tensor(0.0))


# On the network that comes with the package.


def test_targets_rise_on_photographs() -> None:
    network = zoo.reference_network()
    x = torch.stack([network.preprocess(sample_photo(name)) for name in SAMPLES])
    trace = PullbackAscent(network.model, relative=True).trace(x, [5, 0, 12, 18])
    scores = torch.stack([step.score for step in trace])
    assert (scores[1] > scores[0]).all()
    assert (scores[-1] > scores[0] + 1).all()


def test_with_bounds_it_is_a_photograph_still() -> None:
    network = zoo.reference_network()
    mean, std = torch.tensor(network.mean), torch.tensor(network.std)
    ascent = PullbackAscent(
        network.model, relative=True, bounds=((0 - mean) / std, (1 - mean) / std)
    )
    x = torch.stack([network.preprocess(sample_photo(name)) for name in SAMPLES[:2]])
    pixels = ascent.perturb(x, 5) * std.view(3, 1, 1) + mean.view(3, 1, 1)
    assert float(pixels.min()) > -1e-6
    assert float(pixels.max()) < 1 + 1e-6
