"""Other kinds of tensors, views, and gradients that are missing: right, or refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Saliency
from handmade import Handmade
from pulls import WAYS, Function, attributed, by_reference, sigma
from reference import max_pool2d, relu
from torch import Tensor, nn

from captum_pullback import (
    ExcitationPullback,
    LayerExcitationPullback,
    NeuronExcitationPullback,
    soften,
)
from captum_pullback.engine._torch import mode_depth
from captum_pullback.engine.errors import SofteningError

T = 0.6
every_way = pytest.mark.parametrize("way", WAYS)


def soft(z: Tensor) -> Tensor:
    return relu(z, T)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 2, 4, 4, dtype=torch.float64)


# --- subclasses -----------------------------------------------------------------------------------


class Bare(torch.Tensor):
    """A subclass that does nothing of its own."""


class Annotated(torch.Tensor):
    """Carries a note from each operation's arguments to its result, as medical images do."""

    note: str = ""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})
        notes = [a.note for a in args if isinstance(a, cls) and a.note]
        if notes and isinstance(result, cls):
            result.note = notes[0]
        return result


def layers(*made: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    network = nn.Sequential(*made).double().eval()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.3 if "var" in name else -0.8, 1)
    return network


# name: (a network, the same without subclasses or anything in place, of the reference's gates)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any, Tensor], Tensor]]] = {
    "conv": (
        lambda: layers(nn.Conv2d(2, 3, 2), nn.ReLU(inplace=True)), lambda m, x: soft(m[0](x))
    ),
    "conv, out of place": (
        lambda: layers(nn.Conv2d(2, 3, 2), nn.ReLU()), lambda m, x: soft(m[0](x))
    ),
    "conv1d": (
        lambda: layers(nn.Flatten(2), nn.Conv1d(2, 3, 2), nn.ReLU(inplace=True)),
        lambda m, x: soft(m[1](x.flatten(2))),
    ),
    "conv_transpose": (
        lambda: layers(nn.ConvTranspose2d(2, 3, 2), nn.ReLU(inplace=True)),
        lambda m, x: soft(m[0](x)),
    ),
    "batch_norm": (
        lambda: layers(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(inplace=True)),
        lambda m, x: soft(m[1](m[0](x))),
    ),
    "linear": (
        lambda: layers(nn.Linear(4, 3), nn.ReLU(inplace=True)), lambda m, x: soft(m[0](x))
    ),
    "avg_pool": (
        lambda: layers(nn.AvgPool2d(2), nn.ReLU(inplace=True)), lambda m, x: soft(m[0](x))
    ),
    "max_pool": (
        lambda: layers(nn.MaxPool2d(2), nn.ReLU(inplace=True)),
        lambda m, x: soft(max_pool2d(x, T, 2, 2)),
    ),
    "adaptive pool": (
        lambda: layers(nn.AdaptiveMaxPool2d(2), nn.ReLU(inplace=True)),
        lambda m, x: soft(max_pool2d(x, T, 2, 2)),
    ),
    "two gates": (
        lambda: layers(
            nn.Conv2d(2, 3, 2), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 2), nn.ReLU(inplace=True)
        ),
        lambda m, x: soft(m[2](soft(m[0](x)))),
    ),
    "a gate alone": (lambda: layers(nn.ReLU()), lambda m, x: soft(x)),
    "relu6": (
        lambda: layers(nn.Conv2d(2, 3, 2), nn.ReLU6(inplace=True)),
        lambda m, x: soft(m[0](x)) - soft(m[0](x) - 6),
    ),
    "prelu": (
        lambda: layers(nn.Conv2d(2, 3, 2), nn.PReLU()),
        lambda m, x: m[1].weight * m[0](x) + (1 - m[1].weight) * soft(m[0](x)),
    ),
}  # fmt: skip


@every_way
@pytest.mark.parametrize("kind", [Bare, Annotated])
@pytest.mark.parametrize("name", NETWORKS)
def test_subclasses_made_in_the_network(name: str, kind: type[Tensor], way: str, x: Tensor) -> None:
    make, written_out = NETWORKS[name]
    model = make()
    found = WAYS[way](lambda x: model(x.as_subclass(kind)).as_subclass(Tensor), x, T)
    torch.testing.assert_close(found, by_reference(lambda x: written_out(model, x), x))


@pytest.mark.parametrize("kind", [Bare, Annotated])
@pytest.mark.parametrize("name", NETWORKS)
def test_subclasses_as_inputs(name: str, kind: type[Tensor], x: Tensor) -> None:
    make, written_out = NETWORKS[name]
    model = make()
    given = x.as_subclass(kind)
    if kind is Annotated:
        given.note = "from the scanner"
    found = attributed(model, given, T)
    expected = by_reference(lambda x: written_out(model, x), x)
    torch.testing.assert_close(found.as_subclass(Tensor), expected)
    assert not given.requires_grad


@pytest.mark.parametrize("kind", [Bare, Annotated])
def test_a_subclass_and_its_note_come_out_as_outside(kind: type[Tensor], x: Tensor) -> None:
    model = NETWORKS["conv"][0]()
    given = x.as_subclass(kind)
    if kind is Annotated:
        given.note = "from the scanner"
    outside = model(given)
    with soften(model, T):
        given.requires_grad_()
        inside = model(given)
        inside.sum().backward()
    assert type(inside) is type(outside) is kind
    assert torch.equal(inside, outside)
    if kind is Annotated:
        assert inside.note == "from the scanner"


# --- views ----------------------------------------------------------------------------------------

VIEWS: dict[str, Function] = {
    "transposed": lambda h: h.transpose(1, 2),
    "mT": lambda h: h.mT,
    "permuted": lambda h: h.permute(0, 3, 1, 2),
    "diagonal": lambda h: h.diagonal(dim1=2, dim2=3),
    "a slice": lambda h: h[:, 1:],
    "every other": lambda h: h[..., ::2],
    "one channel": lambda h: h[:, 0],
    "reshaped": lambda h: h.view(len(h), -1),
    "a new dimension": lambda h: h[:, None],
    "unfolded": lambda h: h.unfold(2, 2, 2),
    "a diagonal of a transposed slice": lambda h: h[:, :2].transpose(2, 3).diagonal(dim1=2, dim2=3),
}
BELOW: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: layers(nn.Conv2d(2, 2, 1)),
    "linear": lambda: layers(nn.Linear(4, 4)),
    "batch_norm": lambda: layers(nn.BatchNorm2d(2)),
    "conv and batch_norm": lambda: layers(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)),
    "avg_pool": lambda: layers(nn.AvgPool2d(2)),
}


@every_way
@pytest.mark.parametrize("used", ["view", "base"])
@pytest.mark.parametrize("below", BELOW)
@pytest.mark.parametrize("view", VIEWS)
def test_a_gate_in_place_on_a_view_of_a_linear_operations_output(
    view: str, below: str, used: str, way: str, x: Tensor
) -> None:
    model = BELOW[below]()

    def forward(x: Tensor) -> Tensor:
        h = model(x)
        y = F.relu(VIEWS[view](h), inplace=True)
        return (y if used == "view" else h) * 2

    def written_out(x: Tensor) -> Tensor:
        h = model(x)
        seen = torch.zeros_like(h)
        VIEWS[view](seen).fill_(1)
        if used == "view":
            return 2 * soft(VIEWS[view](h))
        return 2 * (soft(h) * seen + h * (1 - seen))

    torch.testing.assert_close(WAYS[way](forward, x, T), by_reference(written_out, x))


# --- complex, nested, sparse, meta ----------------------------------------------------------------


def right_or_refused(run: Callable[[], Tensor], expected: Tensor, words: str) -> None:
    """The right value, or an error that says what came and what to do."""
    try:
        found = run()
    except (SofteningError, TypeError, ValueError) as error:
        assert re.search(words, str(error), re.IGNORECASE), error  # noqa: PT017
        assert len(str(error).split()) > 8  # noqa: PT017
    else:
        torch.testing.assert_close(found, expected)
    assert mode_depth() == 0


def complex_layers() -> dict[str, nn.Module]:
    torch.manual_seed(1)
    kind = {"dtype": torch.complex128}
    return {
        "conv1d": nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 2, 2, **kind)),
        "conv2d": nn.Conv2d(2, 2, 2, **kind),
        "conv_transpose2d": nn.ConvTranspose2d(2, 2, 2, **kind),
        "linear": nn.Linear(4, 3, **kind),
    }


REAL: dict[str, Function] = {
    "abs": torch.abs, "real": torch.real, "as real": torch.view_as_real
}  # fmt: skip


@every_way
@pytest.mark.parametrize("temperature", [0, T])
@pytest.mark.parametrize("part", REAL)
@pytest.mark.parametrize("name", complex_layers())
def test_complex_layers_are_right(
    name: str, part: str, temperature: float, way: str, x: Tensor
) -> None:
    layer = complex_layers()[name]

    def forward(x: Tensor, gate: Function) -> Tensor:
        return gate(REAL[part](layer(torch.complex(x, x.flip(1)))) - 0.3)

    found = WAYS[way](lambda x: forward(x, F.relu), x, temperature)
    expected = by_reference(lambda x: forward(x, lambda z: relu(z, temperature)), x)
    torch.testing.assert_close(found, expected)


def ragged(layout: torch.layout) -> Callable[[Tensor, Function], Tensor]:
    def forward(x: Tensor, gate: Function) -> Tensor:
        parts = [x[0, 0], x[1, 0, :2]]
        return gate(torch.nested.as_nested_tensor(parts, layout=layout))

    return forward


@every_way
@pytest.mark.parametrize("below", ["nothing", "linear"])
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors(layout: torch.layout, below: str, way: str, x: Tensor) -> None:
    weight = torch.randn(4, 4, dtype=torch.float64)

    def gate(z: Tensor) -> Tensor:
        z = F.linear(z, weight) if below == "linear" else z
        return F.relu(z).to_padded_tensor(0.0)

    z = x[:, 0] @ weight.T if below == "linear" else x[:, 0]
    slope = sigma(z, T)
    slope[1, 2:] = 0
    expected = torch.zeros_like(x)
    expected[:, 0] = slope @ weight if below == "linear" else slope
    right_or_refused(lambda: WAYS[way](lambda x: ragged(layout)(x, gate), x, T), expected, "nested")


@every_way
@pytest.mark.parametrize("temperature", [0, T])
def test_sparse_tensors(temperature: float, way: str) -> None:
    x = torch.tensor([[1.0, 0.0, -0.5], [0.0, 2.0, 0.0]], dtype=torch.float64)
    # Of what is stored the gate's slope, and of what is not, whose value is no entry, nothing.
    # But PyTorch's dense gradient of what is not stored is that of zeros: either is right.
    slope = sigma(x, temperature) if temperature else (x > 0).double()

    def forward(x: Tensor) -> Tensor:
        return torch.relu(x.to_sparse()).to_dense()

    def run() -> Tensor:
        return torch.where(x != 0, WAYS[way](forward, x, temperature), 0.0)

    right_or_refused(run, torch.where(x != 0, slope, 0.0), "sparse")


def test_meta_tensors_have_shapes_or_are_refused() -> None:
    model = NETWORKS["conv"][0]().to("meta")
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, device="meta")
    try:
        found = ExcitationPullback(model, T).attribute(x, (0, 1, 1))
    except (SofteningError, TypeError, ValueError) as error:
        assert "meta" in str(error)  # noqa: PT017
    else:
        assert found.device.type == "meta"
        assert found.shape == x.shape
        assert found.dtype == x.dtype
    assert mode_depth() == 0


def test_a_meta_model_in_a_block() -> None:
    model = NETWORKS["conv"][0]().to("meta")
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, device="meta", requires_grad=True)
    try:
        with soften(model, T):
            model(x).sum().backward()
    except (SofteningError, TypeError, ValueError) as error:
        assert "meta" in str(error)  # noqa: PT017
    else:
        assert x.grad is not None
        assert x.grad.shape == x.shape


# --- gradients that are missing -------------------------------------------------------------------


class Silent(torch.autograd.Function):
    """Has no gradient to give, and says None, as quantised layers do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        return None


class SilentOnOne(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


UNDER_SILENCE: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: layers(nn.ReLU()),
    "relu in place": lambda: layers(nn.Conv2d(2, 3, 2), nn.ReLU(inplace=True)),
    "leaky_relu": lambda: layers(nn.LeakyReLU()),
    "relu6": lambda: layers(nn.ReLU6()),
    "prelu": lambda: layers(nn.PReLU()),
    "max_pool": lambda: layers(nn.MaxPool2d(2)),
    "adaptive pool": lambda: layers(nn.AdaptiveMaxPool2d(2)),
    "max_pool1d": lambda: layers(nn.Flatten(2), nn.MaxPool1d(2)),
    "conv": lambda: layers(nn.ReLU(), nn.Conv2d(2, 3, 2)),
    "conv1d": lambda: layers(nn.ReLU(), nn.Flatten(2), nn.Conv1d(2, 3, 2)),
    "batch_norm": lambda: layers(nn.ReLU(), nn.BatchNorm2d(2)),
    "avg_pool": lambda: layers(nn.ReLU(), nn.AvgPool2d(2)),
    "linear": lambda: layers(nn.ReLU(), nn.Linear(4, 3)),
    "gate, conv, gate": lambda: layers(nn.ReLU(), nn.Conv2d(2, 3, 2), nn.ReLU()),
}


def silenced(model: nn.Module) -> Function:
    return lambda x: Silent.apply(model(x)).flatten(1).sum(1)


@every_way
@pytest.mark.parametrize("temperature", [0, T])
@pytest.mark.parametrize("name", UNDER_SILENCE)
def test_a_missing_gradient_is_an_error_as_for_saliency(
    name: str, temperature: float, way: str, x: Tensor
) -> None:
    forward = silenced(UNDER_SILENCE[name]())
    with pytest.raises(RuntimeError):
        Saliency(forward).attribute(x.clone().requires_grad_())
    with pytest.raises(RuntimeError, match=r"not have been used|nothing was softened"):
        WAYS[way](forward, x, temperature)
    assert mode_depth() == 0


@pytest.mark.parametrize("name", UNDER_SILENCE)
def test_a_missing_gradient_is_never_accumulated_as_zeros(name: str, x: Tensor) -> None:
    model = UNDER_SILENCE[name]()
    leaf = x.clone().requires_grad_()
    try:
        with soften(model, T):
            silenced(model)(leaf).sum().backward()
    except SofteningError:
        pass
    assert leaf.grad is None


def test_a_missing_gradient_of_a_unit_and_to_a_layer(x: Tensor) -> None:
    model = Handmade(
        lambda net, x: net.two(Silent.apply(F.relu(net.one(x)))).flatten(1),
        one=nn.Linear(4, 4), two=nn.Identity(),
    ).double()  # fmt: skip
    with pytest.raises(RuntimeError):
        NeuronExcitationPullback(model, model.two, T).attribute(x, (0, 0, 0))
    with pytest.raises(RuntimeError):
        LayerExcitationPullback(model, model.one, T).attribute(x, 0)


@every_way
def test_one_of_two_gradients_missing_is_the_other(way: str, x: Tensor) -> None:
    found = WAYS[way](lambda x: SilentOnOne.apply(F.relu(x), F.relu(3 * x)), x, T)
    torch.testing.assert_close(found, sigma(x, T))


def test_an_input_that_only_a_missing_gradient_reaches(x: Tensor) -> None:
    """As for Saliency: no zeros for the second input."""

    def forward(a: Tensor, b: Tensor) -> Tensor:
        return SilentOnOne.apply(F.relu(a), F.relu(b)).flatten(1).sum(1)

    with pytest.raises(RuntimeError):
        Saliency(forward).attribute(tuple((x + i).requires_grad_() for i in range(2)))
    with pytest.raises(RuntimeError):
        ExcitationPullback(forward, T).attribute((x, x + 1))
