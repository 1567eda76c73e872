"""On a GPU, by the default rules and temperature: every kind of gate, whole networks, and what
stands on the engine, each against the CPU in float64; skipped where there is no GPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import NoiseTunnel
from families import FAMILIES
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captum_pullback import (
    EXCITATION,
    SEMANTIC,
    ExcitationPullback,
    LayerExcitationPullback,
    PullbackAscent,
    Spread,
    TrainingLens,
    effective_weights,
    fit_temperature,
    soften,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
DEVICE = "cuda"


class Attention(nn.Module):
    """Self-attention of 4 heads over 16 channels, fused or written out."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused, self.qkv, self.out = fused, nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 4)).movedim(-3, 0).transpose(-2, -3).unbind(0)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.mT / 2).softmax(-1) @ v
        return x + self.out(mixed.transpose(-2, -3).flatten(-2))


def convolutional(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), *parts, nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip


def sequential(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 4),
        nn.Flatten(2),
        Swapped(),
        *parts,
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 5),
    )


class Swapped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mT


KINDS = {
    **{
        kind.__name__: lambda kind=kind: convolutional(kind())
        for kind in (
            nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU,
            nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Sigmoid, nn.Tanh,
            nn.Softsign, nn.LogSigmoid,
        )
    },
    "GELU by tanh": lambda: convolutional(nn.GELU("tanh")),
    "GLU": lambda: convolutional(nn.Conv2d(8, 16, 1), nn.GLU(1)),
    "max pool": lambda: convolutional(nn.MaxPool2d(3, 2, 1)),
    "adaptive max pool": lambda: convolutional(nn.AdaptiveMaxPool2d((5, 7))),
    "BatchNorm": lambda: convolutional(nn.BatchNorm2d(8)),
    "GroupNorm": lambda: convolutional(nn.GroupNorm(2, 8)),
    "InstanceNorm": lambda: convolutional(nn.InstanceNorm2d(8)),
    "LayerNorm": lambda: sequential(nn.LayerNorm(16)),
    "RMSNorm": lambda: sequential(nn.RMSNorm(16)),
    "attention, fused": lambda: sequential(Attention(True)),
    "attention, written out": lambda: sequential(Attention(False)),
    "transformer": lambda: sequential(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)),
}  # fmt: skip


def made(make: Any) -> tuple[nn.Module, nn.Module, Tensor]:
    """A network in float64 on the CPU and on the GPU, and its input on the CPU."""
    torch.manual_seed(0)
    model = make().double().eval()
    return model, copy.deepcopy(model).to(DEVICE), torch.randn(3, 3, 16, 16, dtype=torch.float64)


def cosine(found: Tensor, expected: Tensor) -> float:
    return float(F.cosine_similarity(found.cpu().double().flatten(), expected.flatten(), dim=0))


@pytest.mark.parametrize("rules", [SEMANTIC, EXCITATION], ids=["semantic", "excitation"])
@pytest.mark.parametrize("temperature", [Spread(1.0, "output"), Spread(0.5), 0.3], ids=str)
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_kind_of_gate_is_that_of_the_cpu(make: Any, temperature: Any, rules: Any) -> None:
    model, on_gpu, x = made(make)
    expected = ExcitationPullback(model, temperature, rules=rules).attribute(x, 2)
    found = ExcitationPullback(on_gpu, temperature, rules=rules).attribute(x.to(DEVICE), 2)
    assert found.device.type == DEVICE
    torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_whole_networks_are_those_of_the_cpu(name: str) -> None:
    model, x, _ = FAMILIES[name]()
    expected = ExcitationPullback(model).attribute(x, 1)
    found = ExcitationPullback(model.to(DEVICE)).attribute(x.to(DEVICE), 1)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-7 * expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [KINDS["attention, fused"], KINDS["transformer"]])
def test_fused_attention_in_half_precision_is_near_double(make: Any, dtype: torch.dtype) -> None:
    model, on_gpu, x = made(make)
    expected = ExcitationPullback(model).attribute(x, 2)
    found = ExcitationPullback(on_gpu.to(dtype)).attribute(x.to(DEVICE, dtype), 2)
    assert cosine(found, expected) > 0.99


@pytest.mark.parametrize("make", [KINDS["ReLU"], KINDS["max pool"], KINDS["transformer"]])
def test_a_batch_is_that_of_each_example_alone(make: Any) -> None:
    _, model, x = made(make)
    pullback, x = ExcitationPullback(model), x.to(DEVICE)
    alone = torch.cat([pullback.attribute(one[None], 1) for one in x])
    torch.testing.assert_close(pullback.attribute(x, 1), alone)


def test_many_at_once_are_single_calls() -> None:
    _, model, x = made(KINDS["max pool"])
    x, pullback = x.to(DEVICE), ExcitationPullback(model)
    targets = [pullback.attribute(x, target) for target in (0, 3)]
    torch.testing.assert_close(pullback.attribute_targets(x, [0, 3]), torch.stack(targets))
    sweep = [Spread(1.0, "output"), 0.3, Spread(0.5)]
    single = [ExcitationPullback(model, each).attribute(x, 1) for each in sweep]
    torch.testing.assert_close(pullback.attribute_temperatures(x, sweep, 1), torch.stack(single))


def test_the_record_is_that_of_the_cpu() -> None:
    model, on_gpu, x = made(KINDS["max pool"])
    with soften(model) as expected:
        model(x.requires_grad_()).sum().backward()
    with soften(on_gpu) as found:
        on_gpu(x.detach().to(DEVICE).requires_grad_()).sum().backward()
    assert str(found).replace(DEVICE, "cpu") == str(expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_it_is_the_same(reentrant: bool) -> None:
    _, model, x = made(KINDS["max pool"])
    x = x.to(DEVICE).requires_grad_()
    expected = ExcitationPullback(model).attribute(x, 1)
    with soften(model):  # reentrant ones work with backward() alone
        checkpoint(model, x, use_reentrant=reentrant)[:, 1].sum().backward()
    torch.testing.assert_close(x.grad, expected)


def test_effective_weights_are_those_of_the_cpu_and_explain_the_output() -> None:
    model, on_gpu, x = made(KINDS["max pool"])
    expected, _ = effective_weights(model, x)
    found, bias = effective_weights(on_gpu, x.to(DEVICE))
    torch.testing.assert_close(found.cpu(), expected)
    affine = torch.einsum("ncijk,nijk->nc", found, x.to(DEVICE)) + bias
    torch.testing.assert_close(affine, on_gpu(x.to(DEVICE)))


def test_layers_ascent_and_noise_tunnel_are_those_of_the_cpu() -> None:
    model, on_gpu, x = made(KINDS["max pool"])
    layer = LayerExcitationPullback(model, model[1]).attribute(x, 1)
    on_layer = LayerExcitationPullback(on_gpu, on_gpu[1]).attribute(x.to(DEVICE), 1)
    torch.testing.assert_close(on_layer.cpu(), layer)
    climbed = PullbackAscent(model, step_size=0.5).attribute(x, 1)
    on_climb = PullbackAscent(on_gpu, step_size=0.5).attribute(x.to(DEVICE), 1)
    torch.testing.assert_close(on_climb.cpu(), climbed)
    quiet = NoiseTunnel(ExcitationPullback(on_gpu)).attribute(
        x.to(DEVICE), nt_samples=3, stdevs=0.0, target=1
    )
    torch.testing.assert_close(quiet.cpu(), ExcitationPullback(model).attribute(x, 1))


def test_fit_and_lens_run_on_the_gpu() -> None:
    _, model, x = made(KINDS["ReLU"])
    x = x.to(DEVICE)
    fit = fit_temperature(
        model, x, [0, 1, 2], units="output", n_perturb_samples=4, class_margin=float("inf"),
        show_progress=False,
    )  # fmt: skip
    assert str(fit)
    lens = TrainingLens(x, [0, 1, 2])
    lens.record(model, 0)
    lens.record(model, 1)
    for layer, agreement in lens.agreement().items():
        assert (agreement == 1).all(), layer


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor", "ignore:.*TensorFloat32", "ignore:.*jit"
)
@pytest.mark.parametrize("make", [KINDS["max pool"], KINDS["transformer"]])
def test_compiled_with_the_default_temperature_it_is_the_same(make: Any) -> None:
    model, on_gpu, x = made(make)
    torch.compiler.reset()
    pullback = ExcitationPullback(torch.compile(on_gpu))
    torch.testing.assert_close(
        pullback.attribute(x.to(DEVICE), 1).cpu(), ExcitationPullback(model).attribute(x, 1)
    )
