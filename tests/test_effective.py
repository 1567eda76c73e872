"""Effective weights: the identity f(x) = W x + b, in one region, on what networks are made of."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from affine import applied, assert_close
from handmade import Handmade
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_pullback import EXCITATION, SEMANTIC, ExcitationPullback, effective_weights
from captum_pullback.effective import NotPiecewiseLinearError
from captum_pullback.engine.errors import SofteningError
from captum_pullback.engine.softening import watch
from captum_pullback.zoo.reference import ReferenceNet

patient = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def settled(model: nn.Module) -> nn.Module:
    """In float64 and eval mode, with BatchNorm statistics and biases that matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.double().eval()


def region(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Which piece every gate is on: a sign for a ReLU, the order of entries for a pool."""
    pieces: list[Tensor] = []

    def see(module: str, operation: str, z: Tensor) -> None:
        # Entries that keep their order over the whole map keep their windows' maxima.
        pieces.append(z.flatten(2).argsort(-1) if "pool" in operation else z > 0)

    with torch.no_grad(), watch(model, see):
        model(x)
    return pieces


def residual(channels: int) -> nn.Module:
    return Handmade(
        lambda net, x: F.relu(x + net.bn(net.conv(x))),
        conv=nn.Conv2d(channels, channels, 3, padding=1), bn=nn.BatchNorm2d(channels),
    )  # fmt: skip


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "conv": lambda c: nn.Conv2d(c, c, 3, padding=1),
    "strided": lambda c: nn.Conv2d(c, c, 3, stride=2, padding=1, bias=False),
    "bn": nn.BatchNorm2d,
    "relu": lambda c: nn.ReLU(),
    "relu in place": lambda c: nn.Sequential(nn.Conv2d(c, c, 1), nn.ReLU(inplace=True)),
    "leaky": lambda c: nn.LeakyReLU(0.2),
    "prelu": nn.PReLU,
    "max pool": lambda c: nn.MaxPool2d(3, 2, 1),
    "avg pool": lambda c: nn.AvgPool2d(2, 1, 1),
    "residual": residual,
    "dropout": lambda c: nn.Dropout(0.5),
}


@st.composite
def convolutional(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(draw(st.integers(0, 10**6)))
    channels, classes = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    names = draw(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=7))
    head: list[nn.Module] = [
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * channels, classes),
    ]
    body = [nn.Conv2d(2, channels, 3), nn.ReLU(), *(LAYERS[name](channels) for name in names)]
    x = torch.randn(draw(st.integers(1, 3)), 2, 9, 8, dtype=torch.float64)
    return settled(nn.Sequential(*body, *head)), x


@patient
@given(convolutional())
def test_network_is_its_affine_map_in_the_whole_region(case: tuple[nn.Module, Tensor]) -> None:
    model, x = case
    weight, bias = effective_weights(model, x)
    output = model(x).detach()
    assert weight.shape == (*output.shape, *x.shape[1:])
    assert bias.shape == output.shape
    assert_close(applied(weight, bias, x), output)
    # The same map at another point of the region, which knows nothing of how b was had at x.
    here, step = region(model, x), torch.randn_like(x)
    while not all(map(torch.equal, here, region(model, x + step))):
        step = step / 2
    scale = float(output.abs().max() + weight.abs().sum() * step.abs().max())
    assert_close(applied(weight, bias, x + step), model(x + step).detach(), scale)


@patient
@given(
    seed=st.integers(0, 10**6),
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    examples=st.integers(1, 4),
)
def test_mlp_against_the_product_of_its_matrices(
    seed: int, widths: list[int], examples: int
) -> None:
    torch.manual_seed(seed)
    linears = [nn.Linear(a, b).double() for a, b in itertools.pairwise(widths)]
    model = nn.Sequential(*[part for linear in linears for part in (linear, nn.ReLU())][:-1])
    x = torch.randn(examples, widths[0], dtype=torch.float64)
    weight, bias = effective_weights(model, x)
    for n in range(examples):
        product = torch.eye(widths[0], dtype=torch.float64)
        shift, z = x.new_zeros(widths[0]), x[n]
        for depth, linear in enumerate(linears):
            product, shift = linear.weight @ product, linear.weight @ shift + linear.bias
            z = linear(z)
            if depth < len(linears) - 1:
                gate = (z > 0).double()
                product, shift, z = gate[:, None] * product, gate * shift, gate * z
        assert_close(weight[n], product.detach(), 1.0)
        assert_close(bias[n], shift.detach(), 1.0)


def test_batch_norm_residual_network_of_the_package() -> None:
    torch.manual_seed(0)
    model = settled(ReferenceNet(6, (4, 6, 8, 10)))
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    weight, bias = effective_weights(model, x)
    assert_close(applied(weight, bias, x), model(x).detach())
    for n in range(3):
        alone, its_bias = effective_weights(model, x[n : n + 1])
        assert_close(alone[0], weight[n])
        assert_close(its_bias[0], bias[n])


@pytest.mark.parametrize(
    "function",
    [
        torch.abs,
        lambda x: x.amax(-1, keepdim=True),
        lambda x: torch.maximum(x, -2 * x),
        lambda x: x.clamp(-0.5, 0.5),
        lambda x: x.sort(-1).values,
        lambda x: torch.where(x > 0.3, x, 3 * x - 1),
        F.hardsigmoid,
        lambda x: F.pad(x, (1, 1)).unfold(1, 3, 1).sum(-1) / 7,
        lambda x: torch.cat([x, x.relu()], 1) @ torch.ones(8, 2, dtype=x.dtype),
        lambda x: (2 * x).relu_() - x.cumsum(1),
    ],
)
def test_other_piecewise_linear_functions(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.linspace(-1, 1.3, 12, dtype=torch.float64).view(3, 4)
    weight, bias = effective_weights(function, x)
    step = 1e-6 * torch.cos(torch.arange(12, dtype=torch.float64)).view(3, 4)
    assert_close(applied(weight, bias, x + step), function(x + step), 1.0)


def test_targets_choose_rows() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4)).double()
    x = torch.randn(3, 5, dtype=torch.float64)
    weight, bias = effective_weights(model, x)
    for target, rows in (
        (2, [2, 2, 2]),
        ([1, 0, 3], [1, 0, 3]),
        (torch.tensor([3, 3, 1]), [3, 3, 1]),
        ([(1,), (2,), (0,)], [1, 2, 0]),
        (-1, [3, 3, 3]),
    ):
        w, b = effective_weights(model, x, target)
        assert w.shape == (3, 1, 5)
        assert b.shape == (3, 1)
        for n, row in enumerate(rows):
            assert_close(w[n, 0], weight[n, row])
            assert_close(b[n, 0], bias[n, row], 1.0)
    for wrong, error in ((4, IndexError), ([0, 1], ValueError), ((0, 1), IndexError)):
        with pytest.raises(error, match=r"shape|targets"):
            effective_weights(model, x, wrong)


def test_outputs_of_other_dimensions() -> None:
    conv = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU()).double()
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    weight, bias = effective_weights(conv, x)
    assert weight.shape == (2, 3, 4, 5, 2, 4, 5)
    flat = applied(weight.flatten(1, 3), bias.flatten(1), x)
    assert_close(flat, conv(x).detach().flatten(1))
    one, one_bias = effective_weights(conv, x, (2, 0, 4))
    assert_close(one[:, 0], weight[:, 2, 0, 4])
    assert_close(one_bias[:, 0], bias[:, 2, 0, 4], 1.0)
    single, single_bias = effective_weights(lambda t: conv(t).sum((1, 2, 3)), x)
    assert single.shape == (2, 1, 2, 4, 5)
    assert_close(single[:, 0], weight.sum((1, 2, 3)))
    assert_close(single_bias, bias.sum((1, 2, 3))[:, None])


def test_tuples_of_inputs_and_additional_arguments() -> None:
    first, second = nn.Linear(3, 4).double(), nn.Linear(2, 4).double()

    def both(a: Tensor, b: Tensor, factor: float) -> Tensor:
        return torch.relu(first(a) + second(b)) * factor

    a, b = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    (wa, wb), bias = effective_weights(both, (a, b), additional_forward_args=3.0)
    assert_close(applied(wa, bias, a) + applied(wb, 0 * bias, b), both(a, b, 3.0).detach())


def counted(model: nn.Module, counts: dict[str, int]) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        counts["forward"] += 1

        def passed(gradient: Tensor) -> None:
            counts["backward"] += 1

        x = x * 1
        x.register_hook(passed)
        return model(x)

    return forward


def test_passes_are_counted_and_memory_bounds_them() -> None:
    torch.manual_seed(0)
    model = settled(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 12)))
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    largest = 2 * 8 * 4 * 4 * 8  # bytes of the convolution's output
    whole = None
    for at_once, passes in ((12, 1), (6, 2), (5, 3), (1, 12)):
        counts = {"forward": 0, "backward": 0}
        result = effective_weights(counted(model, counts), x, max_bytes=at_once * 4 * largest)
        assert counts == {"forward": 1, "backward": passes}  # b is had in the one forward pass
        whole = result if whole is None else whole
        for part, expected in zip(result, whole, strict=True):
            assert_close(part, expected)
    counts = {"forward": 0, "backward": 0}
    effective_weights(counted(model, counts), x, 3)
    assert counts == {"forward": 1, "backward": 1}
    with pytest.raises(ValueError, match="max_bytes"):
        effective_weights(model, x, max_bytes=0)


class _NoVmap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (2.0 if gradient.sum().item() == gradient.sum().item() else 0.0)


def test_what_vmap_cannot_do_is_done_one_class_at_a_time() -> None:
    model = nn.Linear(4, 5).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    with pytest.raises(NotPiecewiseLinearError, match="no_vmap"):
        effective_weights(lambda t: model(_NoVmap.apply(t)), x)
    weight, _ = effective_weights(lambda t: model(_NoVmap.apply(t)), x, linearize=True)
    assert_close(weight, (2 * model.weight.detach()).expand(3, 5, 4))


@pytest.mark.parametrize("temperature", [0.5, {"0": 0.2, "": 1.0}, float("inf")])
def test_softened_map_holds_the_pullbacks_of_all_classes(temperature: Any) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    model = settled(nn.Sequential(body, residual(4), nn.Flatten(), nn.Linear(36, 3)))
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    weight, bias = effective_weights(model, x, temperature=temperature, pool_temperature=0.4)
    assert_close(applied(weight, bias, x), model(x).detach())
    for c in range(3):
        pullback = ExcitationPullback(model, temperature, pool_temperature=0.4).attribute(x, c)
        assert_close(weight[:, c], pullback)
    hard, _ = effective_weights(model, x)
    assert not torch.allclose(hard, weight)
    with pytest.raises(SofteningError):
        effective_weights(nn.Linear(2, 2), torch.randn(1, 2), temperature=0.3)


def gate_by_itself(x: Tensor) -> Tensor:
    return x * torch.relu(x)


def self_attention(x: Tensor) -> Tensor:
    tokens = x.view(-1, 2, 2)
    return ((tokens @ tokens.mT) @ tokens).flatten(1)


HELD_BY_DEFAULT: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (nn.Sequential(nn.Linear(4, 4), nn.GELU()), "gelu"),
    (nn.LayerNorm(4), "layer_norm"),
    (nn.SiLU(), "silu"),
    (nn.GLU(), "glu"),
    (gate_by_itself, "mul of two things"),
    (self_attention, "mm of two things"),
    (lambda x: x / x.abs().sum(1, keepdim=True), "div by something"),
    (lambda x: x / (x.abs() + 1).log(), "log"),  # what divides is held, whatever it is
    (torch.sin, "sin"),
    (torch.sigmoid, "sigmoid"),  # here the output is held, too
    (lambda x: x**2, "pow"),
]


@pytest.mark.parametrize(
    ("function", "named", "rules"),
    [
        *((function, named, EXCITATION) for function, named in HELD_BY_DEFAULT),
        (nn.Sequential(nn.Linear(4, 4), nn.Softmax(1)), r"softmax.*logits", SEMANTIC),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
         r"BatchNorm in training.*eval\(\)", SEMANTIC),
        (nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)),
         r"dropout in training.*eval\(\)", SEMANTIC),
        (lambda x: F.dropout(x, 0.1), "dropout in training", SEMANTIC),
        (lambda x: F.alpha_dropout(x, training=True), "alpha_dropout in training", SEMANTIC),
        (lambda x: torch.native_dropout(x, 0.5, True)[0], "native_dropout in training", SEMANTIC),
        (nn.RReLU(), "rrelu in training", SEMANTIC),
        (torch.log, "log", SEMANTIC),
        (lambda x: F.layer_norm(x, (4,), x[0] * 2), "layer_norm with weights that", SEMANTIC),
        (gate_by_itself, "mul of two things", {**SEMANTIC, "product": None}),
        (lambda x: F.gelu(x) * F.silu(x), "mul of two things", {**SEMANTIC, "product": None}),
    ],
)  # fmt: skip
def test_what_is_not_piecewise_linear_is_named(
    function: Callable[[Tensor], Tensor], named: str, rules: Any
) -> None:
    x = torch.linspace(0.5, 1.5, 12).view(3, 4)
    with pytest.raises(NotPiecewiseLinearError, match=named):
        effective_weights(function, x, rules=rules)
    weight, bias = effective_weights(function, x, linearize=True)
    assert weight.shape == (*bias.shape, 4)
    assert bias.shape == function(x).shape


@pytest.mark.parametrize("function", [function for function, _ in HELD_BY_DEFAULT])
def test_what_is_held_by_default_is_an_affine_map(function: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(1)
    x = torch.randn(3, 4, dtype=torch.float64)
    if isinstance(function, nn.Module):
        function = copy.deepcopy(function).double()
    expected = function(x).detach()
    for temperature in (0.0, 0.7):
        weight, bias = effective_weights(function, x, temperature=temperature)
        assert_close(applied(weight, bias, x), expected)


def test_linearized_map_is_the_jacobian() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(copy.deepcopy(model), x)  # (5, 3, 5, 4)
    weight, bias = effective_weights(model, x, linearize=True)
    for n in range(5):
        assert_close(weight[n], expected[n, :, n])
    assert_close(applied(weight, bias, x), model(x).detach())
    model.eval()
    weight, _ = effective_weights(model, x, linearize=True)
    expected = torch.autograd.functional.jacobian(model, x)
    assert_close(weight, torch.stack([expected[n, :, n] for n in range(5)]))


def test_dropout_of_probability_zero_and_weights_of_their_own_are_no_matter() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Dropout(0.0))
    mixed = nn.Parameter(torch.randn(4))
    x = torch.randn(3, 4)
    weight, bias = effective_weights(lambda t: model(t) * mixed.softmax(0), x)
    expected = (model(x) * mixed.softmax(0)).detach()
    torch.testing.assert_close(applied(weight, bias, x), expected)


def test_float32_bias_is_no_difference_of_large_numbers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12288, 64), nn.ReLU(), nn.Linear(64, 10))
    x = torch.rand(2, 3, 64, 64) + 10  # <W, x> is large beside b
    weight, bias = effective_weights(model, x)
    assert weight.dtype == bias.dtype == torch.float32
    _, exact = effective_weights(copy.deepcopy(model).double(), x.double())
    torch.testing.assert_close(bias.double(), exact, rtol=0, atol=1e-7)
    # As f(x) - <W, x>, with the rounding errors of f, it is off by more than that.
    product = (weight.double() * x[:, None].double()).flatten(2).sum(2)
    assert ((model(x).detach().double() - product) - exact).abs().max() > 1e-6


def test_nothing_is_left_changed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    x = torch.randn(3, 4)
    before = x.clone()
    with torch.no_grad():
        weight, bias = effective_weights(lambda t: model(t.add_(1)), x)
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert not weight.requires_grad
    assert not bias.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.inference_mode(), pytest.raises(SofteningError, match="inference_mode"):
        effective_weights(model, x)
    with pytest.raises(TypeError, match="floating"):
        effective_weights(model, x.long())
    with pytest.raises(ValueError, match="batch"):
        effective_weights(lambda t: model(t)[:2], x)


def test_outputs_that_do_not_depend_on_inputs() -> None:
    x = torch.randn(3, 4)
    weight, bias = effective_weights(lambda t: torch.ones(3, 2), x)
    assert torch.equal(weight, torch.zeros(3, 2, 4))
    assert torch.equal(bias, torch.ones(3, 2))
