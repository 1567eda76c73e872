"""On a GPU: what the CPU gives, compiled and in half precision too; skipped where there is none."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_pullback import ExcitationPullback, LayerExcitationPullback, soften

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


class Net(nn.Module):
    """What is special about the package, in a small residual network."""

    def __init__(self, inplace: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.relu = nn.ReLU6(inplace)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.relu(self.block(x) + x)
        return self.head(F.adaptive_avg_pool2d(F.max_pool2d(x, 2), 1).flatten(1))


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


@pytest.fixture
def net() -> Net:
    net = Net()
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand_like(value))
    return net.eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 16, 16)


def on_gpu(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    return copy.deepcopy(model).to("cuda", dtype)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 2.0, float("inf")])
@pytest.mark.parametrize("pool_temperature", [None, 0.0])
def test_values_are_those_of_the_cpu(
    net: Net, x: Tensor, temperature: float, pool_temperature: float | None
) -> None:
    net, x = net.double(), x.double()
    expected = ExcitationPullback(net, temperature, pool_temperature=pool_temperature).attribute(
        x, 2
    )
    found = ExcitationPullback(
        on_gpu(net), temperature, pool_temperature=pool_temperature
    ).attribute(x.cuda(), 2)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected)


def test_forward_is_bit_identical(net: Net, x: Tensor) -> None:
    model, z = on_gpu(net), x.cuda().requires_grad_()
    outside = model(z)
    with soften(model):
        assert torch.equal(model(z), outside)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_hard_gates_are_the_plain_gradient_to_the_last_bit(
    net: Net, x: Tensor, dtype: torch.dtype, last: bool
) -> None:
    model, z = on_gpu(net, dtype), x.to("cuda", dtype)
    if last:
        model = model.to(memory_format=torch.channels_last)
        z = z.to(memory_format=torch.channels_last)
    leaf = z.clone().requires_grad_()
    (plain,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    assert torch.equal(ExcitationPullback(model, 0.0).attribute(z, 1), plain)


POOLS: dict[str, Any] = {
    "overlapping": lambda x: F.max_pool2d(x, 3, 2, 1),
    "plain": lambda x: F.max_pool2d(x, 2),
    "dilated": lambda x: F.max_pool2d(x, 2, 2, 0, 2),
    "rounded up": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, (3, 4)),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("spread", [1.0, 1e4], ids=["near", "far apart"])
def test_soft_pools_are_those_of_the_cpu(pool: Any, spread: float) -> None:
    x = spread * torch.randn(2, 3, 9, 11)
    pullback = ExcitationPullback(lambda x: pool(x).square().flatten(1).sum(1), 0.7)
    found, expected = pullback.attribute(x.cuda()), pullback.attribute(x)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5 * spread)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_single(net: Net, x: Tensor, dtype: torch.dtype) -> None:
    expected = ExcitationPullback(net).attribute(x, 2)
    found = ExcitationPullback(on_gpu(net, dtype)).attribute(x.to("cuda", dtype), 2).float().cpu()
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99


def test_under_autocast_it_is_near_single(net: Net, x: Tensor) -> None:
    expected = ExcitationPullback(net).attribute(x, 2)
    with torch.autocast("cuda", torch.bfloat16):
        found = ExcitationPullback(on_gpu(net)).attribute(x.cuda(), 2).float().cpu()
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor", "ignore:.*TensorFloat32", "ignore:.*jit"
)
def test_compiled_by_inductor_it_is_the_same(net: Net, x: Tensor) -> None:
    expected = ExcitationPullback(net).attribute(x, 2)
    torch.compiler.reset()
    compiled = torch.compile(on_gpu(net))
    found = ExcitationPullback(compiled).attribute(x.cuda(), 2)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4)


def test_several_targets_chunks_and_layers_are_those_of_the_cpu(net: Net, x: Tensor) -> None:
    net, x = net.double(), x.double()
    model = on_gpu(net)
    expected = ExcitationPullback(net).attribute_targets(x, [0, 3])
    found = ExcitationPullback(model).attribute_targets(x.cuda(), [0, 3], internal_batch_size=3)
    torch.testing.assert_close(found.cpu(), expected)
    layer = LayerExcitationPullback(net, net.stem).attribute(x, 1)
    on_layer = LayerExcitationPullback(model, model.stem).attribute(x.cuda(), 1)
    torch.testing.assert_close(on_layer.cpu(), layer)


def test_less_memory_than_a_plain_gradient(x: Tensor) -> None:
    layers = [m for _ in range(6) for m in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))]
    model = nn.Sequential(nn.Conv2d(3, 8, 1), *layers, nn.ReLU(), nn.Flatten(1)).eval().cuda()
    images = torch.randn(8, 3, 64, 64, device="cuda")

    def peak(call: Any) -> int:
        call()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated()

    def plain() -> Tensor:
        leaf = images.clone().requires_grad_()
        return torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)[0]

    pullback = ExcitationPullback(model)
    assert peak(lambda: pullback.attribute(images, 0)) < 0.7 * peak(plain)
