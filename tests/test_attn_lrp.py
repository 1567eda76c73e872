"""AttnLRP by lxt, against relevance that is written out by hand, and against zennit's own."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
import torch.nn.functional as F
from snapshot import hooks
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from captum_pullback import SEMANTIC, ExcitationPullback
from captum_pullback.study.attn_lrp import CONV_GAMMA, LINEAR_GAMMA, attn_lrp
from captum_pullback.zoo.hybrid import HybridNet, SqueezeExcitation, TransformerBlock

# What lxt adds to the denominators of its rules.
LINEAR, OTHER = 1e-6, 1e-8
HEADS = 2


@pytest.fixture
def lxt() -> None:
    pytest.importorskip("lxt", reason="lxt is not installed")


@pytest.fixture
def zennit() -> None:
    pytest.importorskip("zennit", reason="zennit is not installed")


class Attending(nn.Module):
    """Self-attention in one of its spellings, and the tokens' mean."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.spelling = spelling
        self.attention = nn.MultiheadAttention(6, HEADS, batch_first=True)
        nn.init.normal_(self.attention.in_proj_bias)
        nn.init.normal_(self.attention.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, L, 6) to (N, 6)."""
        own = self.attention
        if self.spelling == "module":
            return own(x, x, x, need_weights=False)[0].mean(1)
        parts = F.linear(x, own.in_proj_weight, own.in_proj_bias)
        parts = parts.view(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts
        if self.spelling == "function":
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            logits = (query @ key.transpose(-2, -1)) * query.shape[-1] ** -0.5
            mixed = logits.softmax(-1) @ value
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        return F.linear(mixed, own.out_proj.weight, own.out_proj.bias).mean(1)


def shared(relevance: Tensor, x: Tensor, weight: Tensor, z: Tensor) -> Tensor:
    """The epsilon rule of z = W x + b, term by term."""
    terms = weight[None] * x[:, None, :]  # (L, out, in)
    return (terms * (relevance / (z + LINEAR))[:, :, None]).sum(1)


def by_hand(model: Attending, x: Tensor, target: int) -> Tensor:
    """AttnLRP of one example (L, 6), from the paper's propositions; nothing is differentiated."""
    own = model.attention
    weights, biases = own.in_proj_weight.chunk(3), own.in_proj_bias.chunk(3)
    length = len(x)
    projected = [x @ w.T + b for w, b in zip(weights, biases, strict=True)]
    query, key, value = (p.view(length, HEADS, -1) for p in projected)
    logits = torch.einsum("qhd,khd->hqk", query, key) / query.shape[-1] ** 0.5
    attention = logits.exp() / logits.exp().sum(-1, keepdim=True)
    mixed = torch.einsum("hqk,khd->qhd", attention, value)
    flat = mixed.reshape(length, -1)
    out = flat @ own.out_proj.weight.T + own.out_proj.bias

    relevance = torch.zeros_like(out)
    score = out[:, target].mean()
    relevance[:, target] = out[:, target] / length * score / (score + OTHER)  # mean: epsilon
    of_mixed = shared(relevance, flat, own.out_proj.weight, out).view_as(mixed)
    # Products: each term has its share, and gives half to each factor (3.3).
    terms = torch.einsum("hqk,khd->hqkd", attention, value)
    terms = terms * (of_mixed / (2 * mixed + OTHER)).permute(1, 0, 2)[:, :, None]
    of_attention, of_value = terms.sum(3), terms.sum(1).permute(1, 0, 2)
    # Softmax: the Taylor expansion at its inputs (3.1).
    of_logits = logits * (of_attention - attention * of_attention.sum(-1, keepdim=True))
    scale = query.shape[-1] ** -0.5
    terms = torch.einsum("qhd,khd->hqkd", query, key)
    terms = terms * (of_logits / (2 * logits / scale + OTHER))[..., None]
    of_query, of_key = terms.sum(2).permute(1, 0, 2), terms.sum(1).permute(1, 0, 2)
    parts = zip((of_query, of_key, of_value), weights, projected, strict=True)
    return sum(shared(each.reshape(length, -1), x, w, z) for each, w, z in parts)


@pytest.mark.usefixtures("lxt")
class TestRules:
    @pytest.mark.parametrize("spelling", ["module", "function", "written out"])
    def test_attention_is_that_of_the_paper(self, spelling: str) -> None:
        model = Attending(spelling).double().eval()
        x = torch.randn(2, 5, 6, dtype=torch.float64)
        found = attn_lrp(model, 0, 0)(x, torch.tensor([1, 4]))
        with torch.no_grad():
            expected = torch.stack([by_hand(model, x[0], 1), by_hand(model, x[1], 4)])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        assert found.abs().max() > 1e-2

    def test_a_gated_product_gives_half_to_each(self) -> None:
        """Squeeze-and-excitation on one pixel, without biases: written out."""
        model = SqueezeExcitation(8).double()
        nn.init.zeros_(model.reduce.bias)
        nn.init.zeros_(model.expand.bias)
        x = torch.randn(1, 8, 1, 1, dtype=torch.float64)
        whole = nn.Sequential(model, nn.Flatten())
        found = attn_lrp(whole, 0, 0)(x, 3)[0, :, 0, 0]
        with torch.no_grad():
            score = whole(x)[0, 3]
            flat = x[0, :, 0, 0]
            hidden = model.reduce.weight @ flat
            gate = model.expand.weight @ F.gelu(hidden)
            of_hidden = F.gelu(hidden) * model.expand.weight[3] * score / 2 / (gate[3] + LINEAR)
            expected = shared(of_hidden[None], flat[None], model.reduce.weight, hidden[None])[0]
            expected *= flat / (flat + OTHER)  # the mean of one pixel
            expected[3] += score / 2
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)

    def test_relevance_is_conserved_where_there_are_no_biases(self, zennit: None) -> None:
        torch.manual_seed(3)
        gated = SqueezeExcitation(8)
        nn.init.zeros_(gated.reduce.bias)
        nn.init.zeros_(gated.expand.bias)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.GELU(), gated, nn.MaxPool2d(2), nn.Flatten(),
            nn.LayerNorm(128, bias=False), nn.Linear(128, 16, bias=False), nn.SiLU(),
            nn.Linear(16, 4, bias=False),
        ).double()  # fmt: skip
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
        for gammas in ((0, 0), (CONV_GAMMA, LINEAR_GAMMA)):
            found = attn_lrp(model, *gammas)(x, 2)
            torch.testing.assert_close(found.sum((1, 2, 3)), model(x)[:, 2], rtol=1e-3, atol=1e-7)
            assert found.abs().sum() > 2 * found.sum().abs()  # of both signs

    def test_for_relus_epsilon_is_input_times_gradient(self) -> None:
        torch.manual_seed(4)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(6, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 4),
        ).double().eval()  # fmt: skip
        nn.init.normal_(model[1].running_mean)
        nn.init.normal_(model[1].bias)
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
        found = attn_lrp(model, 0, 0)(x, 1)
        torch.testing.assert_close(found, x.detach() * gradient, rtol=1e-3, atol=1e-6)

    def test_without_products_epsilon_is_input_times_the_hard_pullback(self) -> None:
        """GELU and LayerNorm held: two engines that share no line."""
        block = TransformerBlock(6, 2)
        block.attention = nn.Linear(6, 6)
        model = nn.Sequential(block, block.mlp[0], nn.GELU(), nn.Flatten(), nn.Linear(54, 4))
        model = model.double().eval()
        x = torch.randn(2, 3, 6, dtype=torch.float64)
        explainer = ExcitationPullback(model, 0.0, rules=SEMANTIC, multiply_by_inputs=True)
        expected = explainer.attribute(x, target=1)
        found = attn_lrp(model, 0, 0)(x, 1)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)

    def test_a_vision_transformer_is_its_written_out_twin(self) -> None:
        torch.manual_seed(5)
        model = VisionTransformer(16, 8, 2, HEADS, 6, 12, num_classes=3)
        nn.init.normal_(model.heads[0].weight)
        model = model.double().eval()
        twin = copy.deepcopy(model)
        for block in twin.encoder.layers:
            block.self_attention = WrittenOut(block.self_attention)
        x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
        torch.testing.assert_close(twin(x), model(x))
        found = attn_lrp(model, 0, 0)(x, 1)
        torch.testing.assert_close(found, attn_lrp(twin, 0, 0)(x, 1), rtol=1e-6, atol=1e-10)
        assert found.abs().max() > 1e-4


class WrittenOut(nn.Module):
    """What `nn.MultiheadAttention` computes, in plain operations."""

    def __init__(self, own: nn.MultiheadAttention) -> None:
        super().__init__()
        self.own = own

    def forward(self, x: Tensor, *_: Tensor, **__: object) -> tuple[Tensor, None]:
        """From (N, L, E) to the same."""
        own = self.own
        packed = F.linear(x, own.in_proj_weight, own.in_proj_bias)
        query, key, value = (
            each.unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in packed.chunk(3, -1)
        )
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        mixed = (F.softmax(logits, -1) @ value).transpose(1, 2).flatten(2)
        return F.linear(mixed, own.out_proj.weight, own.out_proj.bias), None


@pytest.mark.usefixtures("lxt", "zennit")
class TestGammas:
    def test_they_are_zennits_own(self) -> None:
        from zennit.attribution import Gradient
        from zennit.canonizers import SequentialMergeBatchNorm
        from zennit.composites import LayerMapComposite
        from zennit.rules import Gamma, Pass

        torch.manual_seed(6)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)
        ).eval()
        nn.init.normal_(model[1].running_mean)
        nn.init.normal_(model[1].bias)
        x, target = torch.randn(2, 3, 8, 8), torch.tensor([1, 3])
        composite = LayerMapComposite(
            [
                (nn.Conv2d, Gamma(CONV_GAMMA)),
                (nn.Linear, Gamma(LINEAR_GAMMA)),
                (nn.ReLU, Pass()),
            ],
            canonizers=[SequentialMergeBatchNorm()],
        )
        with Gradient(copy.deepcopy(model), composite) as attributor:
            _, expected = attributor(
                x.clone(), lambda output: output.detach() * F.one_hot(target, 4)
            )
        torch.testing.assert_close(attn_lrp(model)(x, target), expected, rtol=1e-3, atol=1e-6)
        assert expected.abs().max() > 1e-3

    def test_the_hybrid_is_left_as_it_was(self) -> None:
        model = HybridNet(5, (4, 8, 8, 8), 16, 1, 2).eval()
        x, target = torch.randn(3, 3, 16, 16), torch.tensor([1, 4, 0])
        before, state = model(x), copy.deepcopy(model.state_dict())
        attribute = attn_lrp(model)
        found = attribute(x, target)
        assert torch.equal(model(x), before)
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
        assert not hooks(model)
        assert torch.equal(attribute(x, target), found)
        assert torch.equal(attribute((x,), target)[0], found)
        alone = torch.cat([attribute(x[i : i + 1], int(target[i])) for i in range(3)])
        torch.testing.assert_close(alone, found, rtol=1e-3, atol=1e-5 * float(found.abs().max()))
        other = attribute(x, (target + 1) % 5)
        assert F.cosine_similarity(found.flatten(1), other.flatten(1)).abs().max() < 0.999


class Called(nn.Module):
    """A function between two linear layers."""

    def __init__(self, function) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(4, 4), nn.Linear(4, 3), function

    def forward(self, x: Tensor) -> Tensor:
        """From (N, 4) to (N, 3)."""
        return self.last(self.function(self.first(x)))


class Scaled(nn.Module):
    """Multiplies by a function of its own parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x * torch.sin(self.factor)


def masked(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True)[0]


def used_again(x: Tensor) -> Tensor:
    return x.relu_() + x


@pytest.mark.usefixtures("lxt")
class TestRefusals:
    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (torch.sin, "no rule for sin"),
            (lambda x: x.softmax(0), "softmax over the last dimension"),
            (masked, "no rule for masks"),
            (used_again, "changed in place"),
            (lambda x: F.batch_norm(x, None, None, training=True), "running statistics"),
        ],
    )
    def test_what_has_no_rule(self, function, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            attn_lrp(Called(function), 0, 0)(torch.randn(2, 4), 1)

    def test_what_the_inputs_do_not_decide_needs_no_rule(self) -> None:
        """Nor are factors that are parameters given a share."""
        plain, scaled = Called(nn.Identity()).double(), Called(Scaled()).double()
        scaled.first.load_state_dict(plain.first.state_dict())
        scaled.last.load_state_dict(plain.last.state_dict())
        with torch.no_grad():
            scaled.last.weight /= torch.sin(scaled.function.factor)
        x = torch.randn(2, 4, dtype=torch.float64)
        expected = attn_lrp(plain, 0, 0)(x, 1)
        torch.testing.assert_close(attn_lrp(scaled, 0, 0)(x, 1), expected, rtol=1e-4, atol=1e-6)

    def test_a_layer_that_runs_twice(self, zennit: None) -> None:
        model = nn.Sequential(layer := nn.Linear(4, 4), nn.GELU(), layer)
        with pytest.raises(ValueError, match="runs twice"):
            attn_lrp(model)(torch.randn(2, 4), 1)
        assert attn_lrp(model, 0, 0)(torch.randn(2, 4), 1).abs().max() > 0


def test_without_lxt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lxt", "lxt.explicit", "lxt.explicit.functional", "lxt.explicit.rules"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"lxt is not installed: pip install --no-deps lxt"):
        attn_lrp(nn.Linear(4, 2))
