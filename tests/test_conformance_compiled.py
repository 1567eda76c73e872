"""Compiled networks have the pullbacks of the networks that they were made from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES
from pulling import pulled
from reference import relative_error
from torch import Tensor, nn

from captum_pullback import ExcitationPullback
from captum_pullback.engine.errors import SofteningError

pytestmark = pytest.mark.filterwarnings(  # Dynamo's own, the second in torch 2.8
    "ignore:The .grad attribute of a Tensor",
    "ignore:<class 'torch.autograd.function.Function'> should not be:DeprecationWarning",
)

# PyTorch's own error in its attention module, where a function mode is in force.
before_2_9 = torch.__version__ < torch.torch_version.TorchVersion("2.9")
vit = pytest.param(
    "vit", marks=pytest.mark.xfail(before_2_9, reason="Dynamo of torch 2.8", strict=True)
)
COMPILED = [vit, "convnext", "hf_bert_sdpa"]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_network_has_the_same_pullback(name: str) -> None:
    model, x, _ = FAMILIES[name]()
    assert_compiles(model, x)


@pytest.mark.xfail(before_2_9, reason="Dynamo of torch 2.8", strict=True)
def test_a_compiled_attention_module_can_be_attributed_to_its_inputs() -> None:
    """An attribution saves less than soften does, which is the compiler's own concern."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 4)).double().eval()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    expected = ExcitationPullback(model).attribute(x, 1)
    torch.compiler.reset()
    found = ExcitationPullback(torch.compile(model, backend="aot_eager")).attribute(x, 1)
    torch.testing.assert_close(found, expected)


def assert_compiles(model: nn.Module, x: Tensor) -> None:
    expected = pulled(model, x)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager")
    assert relative_error(pulled(compiled, x), expected) < 1e-10


class Piece(nn.Module):
    """A part of a network that multiplies two things that it makes of its input."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.join = join
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.one(x), self.other(x)).flatten(1)


PIECES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squeeze-and-excitation": lambda a, b: a * b.sigmoid(),
    "gated linear unit": lambda a, b: F.glu(torch.cat([a, b], -1)),
    "SwiGLU": lambda a, b: a * F.silu(b),
    "product": lambda a, b: a * b,
    "quotient": lambda a, b: a / (1 + b.abs()),
    "attention": lambda a, b: (a[..., None] * b[:, None]).softmax(-1) @ b[..., None],
    "norm": lambda a, b: a + b * torch.rsqrt(b.pow(2).mean(-1, keepdim=True) + 1e-6),
    "unit length": lambda a, b: a + F.normalize(b, dim=-1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PIECES)
def test_a_compiled_piece_has_the_same_pullback(name: str) -> None:
    assert_compiles(Piece(PIECES[name]), torch.randn(3, 4, dtype=torch.float64))


def test_written_attention_of_another_temperature_is_refused() -> None:
    """Not raised where Dynamo traces, which would run this part as it is, and hard."""

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all = nn.Linear(6, 18)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.all(x).chunk(3, -1)
            return ((q @ k.mT).softmax(-1) @ v).mean(1)

    torch.compiler.reset()
    network = torch.compile(Written(), backend="aot_eager")
    with pytest.raises(SofteningError, match="always has temperature 1 in a compiled graph"):
        ExcitationPullback(network, {"": 0.5, "attention": 2.0}).attribute(torch.randn(2, 5, 6), 1)
