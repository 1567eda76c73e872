"""Effective weights of transformers, ConvNeXt and the rest: f(x) = <W, x> + b, exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import convnext, efficientnet, mobilenetv3, swin_transformer
from torchvision.models.vision_transformer import VisionTransformer
from torchvision.ops import SqueezeExcitation

from captum_pullback import SEMANTIC, ExcitationPullback, Spread, effective_weights
from captum_pullback.effective import NotPiecewiseLinearError
from captum_pullback.engine.calls.held import Context, Held
from captum_pullback.engine.rules import Rule

EXACT = 1e-10


def applied(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    rows = bias.flatten(1).shape[1]
    products = weight.reshape(len(x), rows, -1) @ x.reshape(len(x), -1, 1)
    return products.squeeze(-1).view_as(bias) + bias


def settled(model: nn.Module) -> nn.Module:
    """In float64 and eval mode, with parameters and statistics that matter."""
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or "layer_scale" in name:
            nn.init.normal_(parameter, 0.3, 0.3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.double().eval()


def without_constants(model: nn.Module) -> nn.Module:
    """A copy without biases, so that with each gate held nothing is added anywhere."""
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        last = name.rpartition(".")[2]
        if last in ("bias", "in_proj_bias", "class_token", "pos_embedding", "bias_k", "bias_v"):
            nn.init.zeros_(parameter)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.running_mean)
    return model


class Attention(nn.Module):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.ones(len(x), x.shape[1], dtype=torch.bool).triu(1)[:, :1].expand(-1, 3)
        if self.inner.batch_first:
            return self.inner(x, x, x, need_weights=False)[0].flatten(1)
        swapped = x.transpose(0, 1)
        hidden = torch.tensor([[False, False, True]]).expand(len(x), 3)
        out = self.inner(swapped, swapped, swapped, key_padding_mask=hidden)[0]
        return out.transpose(0, 1).flatten(1)


class SequenceFirst(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(0, 1)).transpose(0, 1).flatten(1)


class GatedMLP(nn.Module):
    """SwiGLU and an RMS norm written out by hand, as language models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(4, 6, bias=False), nn.Linear(4, 6)
        self.down, self.scale = nn.Linear(6, 4), nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        normal = self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        return (x + self.down(F.silu(self.gate(normal)) * self.up(normal))).flatten(1)


class Explicit(nn.Module):
    """Attention by softmax(q k) v, with a mask that is written, a position bias and a token."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.bias = nn.Linear(4, 12), nn.Parameter(torch.randn(4, 4))
        self.token = nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        q, k, v = self.qkv(x).chunk(3, -1)
        logits = torch.einsum("nie,nje->nij", q, k) / 2 + self.bias
        logits[:, :, 2] = -1e9
        return (F.dropout(logits.softmax(-1), 0.1, self.training) @ v)[:, 0]


encoder = partial(
    nn.TransformerEncoderLayer, 4, 2, dim_feedforward=6, dropout=0.1, activation="gelu"
)
TOKENS: dict[str, Callable[[], nn.Module]] = {
    "encoder, batch first": lambda: nn.Sequential(encoder(batch_first=True), nn.Flatten()),
    "encoder, norm first": lambda: nn.Sequential(
        nn.TransformerEncoder(
            encoder(batch_first=True, norm_first=True), 2, enable_nested_tensor=False
        ),
        nn.Flatten(),
    ),
    "encoder, sequence first": lambda: SequenceFirst(encoder()),
    "attention": lambda: Attention(batch_first=True),
    "attention, sequence first, masked": Attention,
    "attention with constants": lambda: Attention(add_bias_kv=True, add_zero_attn=True),
    "gated by hand": GatedMLP,
    "explicit attention": Explicit,
    "norms": lambda: nn.Sequential(
        nn.GroupNorm(1, 3), nn.Tanh(), nn.InstanceNorm1d(3, affine=True), nn.ELU(), nn.RMSNorm(4),
        nn.Softplus(), nn.Flatten(),
    ),
}  # fmt: skip

norm = partial(nn.LayerNorm, eps=1e-5)
IMAGES: dict[str, Callable[[], nn.Module]] = {
    "convnext": lambda: convnext.ConvNeXt(
        [convnext.CNBlockConfig(4, 6, 1), convnext.CNBlockConfig(6, None, 1)], num_classes=3
    ),
    "swin": lambda: swin_transformer.SwinTransformer(
        [2, 2], 4, [2, 2], [1, 2], [2, 2], num_classes=3
    ),
    "swin v2": lambda: swin_transformer.SwinTransformer(
        [2, 2], 4, [2, 2], [1, 2], [2, 2], num_classes=3,
        block=swin_transformer.SwinTransformerBlockV2,
        downsample_layer=swin_transformer.PatchMergingV2,
    ),
    "efficientnet": lambda: efficientnet.EfficientNet(
        [efficientnet.MBConvConfig(4, 3, 1, 8, 8, 1, 1.0, 1.0),
         efficientnet.FusedMBConvConfig(2, 3, 2, 8, 8, 1)],
        dropout=0.2, num_classes=3, last_channel=8,
    ),
    "mobilenet v3": lambda: mobilenetv3.MobileNetV3(
        [mobilenetv3.InvertedResidualConfig(8, 3, 8, 8, True, "HS", 1, 1, 1.0)], 8, num_classes=3
    ),
    "squeeze": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), SqueezeExcitation(4, 2), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(),
        nn.LazyLinear(3),
    ),
    "vit": lambda: VisionTransformer(16, 8, 2, 2, 4, 6, num_classes=3),
}  # fmt: skip
ALL = {**TOKENS, **IMAGES}


def case(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    model = ALL[name]()
    x = torch.randn(2, *((3, 4) if name in TOKENS else (3, 16, 16)), dtype=torch.float64)
    if name in IMAGES:
        model.double().eval()(x)  # lazy layers
    return settled(model), x


def assert_identity(model: Callable[[Tensor], Tensor], x: Tensor, **kwargs: Any) -> None:
    output = model(x).detach()
    found = applied(*effective_weights(model, x, **kwargs), x)
    scale = float(output.abs().max())
    torch.testing.assert_close(found, output, rtol=0, atol=EXACT * scale)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("temperature", [0.0, 0.5, Spread(1.0)], ids=str)
def test_network_is_its_affine_map(name: str, temperature: Any) -> None:
    assert_identity(*case(name), temperature=temperature)


@pytest.mark.parametrize("name", ALL)
def test_without_biases_nothing_is_added(name: str) -> None:
    # Were b what is missing to f(x), this is where a wrong gate would show.
    model, x = case(name)
    if any(isinstance(part, nn.Softplus) for part in model.modules()):
        return  # it is log 2 at 0
    if name == "explicit attention":
        nn.init.zeros_(model.token)
    model = without_constants(model)
    if name == "squeeze":
        model[2] = nn.ReLU()
    weight, bias = effective_weights(model, x)
    scale = float(model(x).detach().abs().max())
    torch.testing.assert_close(bias, torch.zeros_like(bias), rtol=0, atol=EXACT * scale)
    expected = model(x).detach()
    torch.testing.assert_close(applied(weight, 0 * bias, x), expected, rtol=0, atol=EXACT * scale)


@pytest.mark.parametrize("name", ALL)
def test_batch_is_its_examples(name: str) -> None:
    model, x = case(name)
    weight, bias = effective_weights(model, x)
    for n in range(len(x)):
        alone, its_bias = effective_weights(model, x[n : n + 1])
        for one, other in ((alone[0], weight[n]), (its_bias[0], bias[n])):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["encoder, batch first", "swin", "efficientnet", "vit"])
def test_rows_are_pullbacks(name: str) -> None:
    model, x = case(name)
    for temperature in (0.0, 0.5):
        weight, _ = effective_weights(model, x, temperature=temperature)
        for c in range(2):
            pullback = ExcitationPullback(model, temperature).attribute(x, c)
            torch.testing.assert_close(weight[:, c], pullback, rtol=1e-9, atol=1e-12)


def test_attention_layer_against_its_matrices() -> None:
    torch.manual_seed(3)
    model = settled(Attention(batch_first=True))
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    inner = model.inner
    wq, wk, wv = inner.in_proj_weight.detach().chunk(3)
    bq, bk, bv = inner.in_proj_bias.detach().chunk(3)
    out, shift = inner.out_proj.weight.detach(), inner.out_proj.bias.detach()
    weight, bias = effective_weights(model, x)
    for n in range(2):
        w = torch.zeros(3, 4, 3, 4, dtype=torch.float64)
        b = torch.zeros(3, 4, dtype=torch.float64) + shift
        for head in (slice(0, 2), slice(2, 4)):
            q, k = x[n] @ wq[head].T + bq[head], x[n] @ wk[head].T + bk[head]
            a = torch.softmax(q @ k.T / 2**0.5, -1)
            w += torch.einsum("ij,oe->ioje", a, out[:, head] @ wv[head])
            b = b + a.sum(1, keepdim=True) * (out[:, head] @ bv[head])
        torch.testing.assert_close(weight[n], w.view(12, 3, 4), rtol=0, atol=EXACT)
        torch.testing.assert_close(bias[n], b.flatten(), rtol=0, atol=EXACT)


def test_layer_norm_gelu_against_their_matrices() -> None:
    torch.manual_seed(4)
    model = settled(nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3), nn.GELU()))
    x = torch.randn(2, 5, dtype=torch.float64)
    scale, shift = model[0].weight.detach(), model[0].bias.detach()
    linear, offset = model[1].weight.detach(), model[1].bias.detach()
    rstd = (x.var(1, correction=0) + 1e-5).rsqrt()
    center = torch.eye(5, dtype=torch.float64) - 1 / 5
    gate = torch.special.ndtr(model[:2](x).detach())
    weight = gate[:, :, None] * (linear @ (scale[:, None] * center)) * rstd[:, None, None]
    bias = gate * (linear @ shift + offset)
    torch.testing.assert_close(effective_weights(model, x), (weight, bias), rtol=0, atol=EXACT)


def test_rules_of_users_need_no_push() -> None:
    """A pull that is not elementwise: b is made of its transpose, or of a push that is given."""

    def mixed(context: Context, grad: Tensor, z: Tensor) -> Tensor:
        return grad.flip(1) * z.flip(1).sigmoid()

    x = torch.randn(3, 4, dtype=torch.float64)
    own = {**SEMANTIC, "softsign": Rule(lambda: Held(mixed))}
    weight, bias = effective_weights(lambda t: F.softsign(t) + 1, x, rules=own)
    gate = x.sigmoid()
    expected = torch.diag_embed(gate).flip(2)
    torch.testing.assert_close(weight, expected, rtol=0, atol=EXACT)
    constant = F.softsign(x) + 1 - (weight @ x[:, :, None])[..., 0]
    torch.testing.assert_close(bias, constant, rtol=0, atol=EXACT)
    wrong = Held(mixed, softens=False, push=lambda context, moved, z: moved[0] * 0)
    with pytest.raises(ValueError, match="misses the output"):
        effective_weights(F.softsign, x, rules={**SEMANTIC, "softsign": Rule(lambda: wrong)})


def branches(x: Tensor) -> Tensor:
    """Control flow, indices and constants that depend on values."""
    total = x.new_zeros(len(x))
    for row in x.unbind(1):
        total = total + row.detach() * row if row.sum() > 0 else total - 2 * row
    largest = x.argmax(1, keepdim=True)
    scale = float(x[0, 0].detach()) + x.shape[1]
    return torch.stack([total * scale, x.gather(1, largest)[:, 0] + int(largest.sum())], 1)


def test_what_the_network_reads_off_its_values_is_held() -> None:
    for seed in range(4):
        torch.manual_seed(seed)
        # One example: the branches look at the whole batch.
        x = torch.randn(1, 5, dtype=torch.float64)
        assert_identity(branches, x)
    noise = nn.Linear(4, 3).double()
    state: list[Tensor] = []

    def noisy(t: Tensor) -> Tensor:
        state.append(torch.randn(len(t), 3, dtype=t.dtype))
        return noise(t + torch.randn_like(t)) + state[-1] + torch.rand_like(t[:, :3])

    x = torch.randn(2, 4, dtype=torch.float64)
    torch.manual_seed(7)
    found = applied(*effective_weights(noisy, x), x)
    after = torch.rand(1)
    torch.manual_seed(7)
    torch.testing.assert_close(found, noisy(x).detach(), rtol=0, atol=EXACT)
    assert torch.equal(after, torch.rand(1))
    assert len(state) == 2  # the network ran once for the weights


def shared_and_used_again(x: Tensor) -> Tensor:
    """A product's factor that passes on a share lies in the memory of what is used again."""
    y = 2 * x + 1
    return y * y + y * x + y.view(-1, 2, 2).matmul(y.view(-1, 2, 2)).flatten(1) + y


def test_factors_are_used_again_after_their_product() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    assert_identity(shared_and_used_again, x)
    assert_identity(shared_and_used_again, x, temperature=0.4)
    weight, bias = effective_weights(lambda t: (2 * t + 1).square() * 1 + (2 * t + 1), x)
    other = effective_weights(lambda t: (2 * t + 1) * (2 * t + 1) + (2 * t + 1), x)
    torch.testing.assert_close((weight, bias), other, rtol=0, atol=EXACT)  # y * y' in both
    torch.testing.assert_close(bias, 2 * x + 2, rtol=0, atol=EXACT)


def written_unseen(x: Tensor) -> Tensor:
    y = 2 * x
    with torch.no_grad():
        y.mul_(3)  # for autograd, a constant was added
    return y


def written_behind_autograd(x: Tensor) -> Tensor:
    y = 2 * x
    y.data.mul_(3)
    return y


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


def test_what_cannot_be_followed_is_refused_and_not_wrong() -> None:
    model, x = case("gated by hand")
    assert_identity(lambda t: checkpoint(model, t, use_reentrant=False), x)
    x = torch.randn(2, 4, dtype=torch.float64)
    weight, bias = effective_weights(written_unseen, x)
    torch.testing.assert_close(weight, 2 * torch.eye(4).double().expand(2, 4, 4))
    torch.testing.assert_close(bias, 4 * x)
    for function, named in (
        (written_behind_autograd, "misses the output by"),
        (Squared.apply, "squared"),
        (lambda t: torch.vmap(F.gelu)(t), "cannot be followed"),
        (lambda t: checkpoint(F.gelu, t, use_reentrant=True), "checkpoint_function"),
    ):
        with pytest.raises(NotPiecewiseLinearError, match=named):
            effective_weights(function, x)


PIECES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 4),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "hardswish": nn.Hardswish,
    "leaky": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "layer norm": lambda: nn.LayerNorm(4),
    "rms norm": lambda: nn.RMSNorm(4),
    "group norm": lambda: nn.GroupNorm(3, 3),
    "glu": lambda: nn.Sequential(nn.Linear(4, 8), nn.GLU()),
    "batch norm": lambda: nn.BatchNorm1d(3),
    "encoder": lambda: encoder(batch_first=True),
    "pool": lambda: nn.MaxPool1d(3, 1, 1),
    "softplus": nn.Softplus,
    "hand": lambda: Chain(GatedMLP()),
}


class Chain(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x).view_as(x)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    names=st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=6),
    temperature=st.sampled_from([0.0, 0.3, 2.0]),
    shortcut=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_drawn_networks_are_their_affine_maps(
    names: list[str], temperature: float, shortcut: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 4), nn.GELU(), *(PIECES[name]() for name in names)]
    inner = nn.Sequential(*layers)
    model = settled(nn.Sequential(Chain(inner) if shortcut else inner, nn.Flatten()))
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    assert_identity(model, x, temperature=temperature)
