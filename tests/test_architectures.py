"""ResNet-50, VGG11-BN and DenseNet-121 against the same networks written out by hand.

The references read a state dict and nothing else, and have soft operations of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from reference import gradient, max_pool2d, relative_error, relu
from torch import Tensor, nn

from captum_pullback import ExcitationPullback, soften

Weights = dict[str, Tensor]


def conv(w: Weights, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), stride, padding)


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    scale = weight / (w[f"{name}.running_var"] + 1e-5).sqrt()
    shift = bias - w[f"{name}.running_mean"] * scale
    return x * scale[:, None, None] + shift[:, None, None]


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def resnet50(w: Weights, x: Tensor, t: float, pool_t: float) -> Tensor:
    x = relu(norm(w, "bn1", conv(w, "conv1", x, 2, 3)), t)
    x = max_pool2d(x, pool_t, 3, 2, 1)
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            y = relu(norm(w, f"{name}.bn1", conv(w, f"{name}.conv1", x)), t)
            y = relu(norm(w, f"{name}.bn2", conv(w, f"{name}.conv2", y, stride, 1)), t)
            y = norm(w, f"{name}.bn3", conv(w, f"{name}.conv3", y))
            if block == 0:
                x = conv(w, f"{name}.downsample.0", x, stride)
                x = norm(w, f"{name}.downsample.1", x)
            x = relu(x + y, t)
    return linear(w, "fc", x.mean((2, 3)))


def vgg11_bn(w: Weights, x: Tensor, t: float, pool_t: float) -> Tensor:
    place = 0
    for width in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
        if width == "M":
            x = max_pool2d(x, pool_t, 2, 2)
            place += 1
        else:
            x = conv(w, f"features.{place}", x, 1, 1)
            x = relu(norm(w, f"features.{place + 1}", x), t)
            place += 3
    # Adaptive average pooling from 2 x 2 to 7 x 7 averages the entries that a cell touches.
    cells = [[*range(o * 2 // 7, -(-(o + 1) * 2 // 7))] for o in range(7)]
    x = torch.stack([x[:, :, r].mean(2) for r in cells], 2)
    x = torch.stack([x[..., c].mean(3) for c in cells], 3).flatten(1)
    x = relu(linear(w, "classifier.0", x), t)
    return linear(w, "classifier.6", relu(linear(w, "classifier.3", x), t))


def densenet121(w: Weights, x: Tensor, t: float, pool_t: float) -> Tensor:
    x = relu(norm(w, "features.norm0", conv(w, "features.conv0", x, 2, 3)), t)
    x = max_pool2d(x, pool_t, 3, 2, 1)
    for block, layers in enumerate((6, 12, 24, 16), 1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            y = conv(w, f"{name}.conv1", relu(norm(w, f"{name}.norm1", x), t))
            y = conv(w, f"{name}.conv2", relu(norm(w, f"{name}.norm2", y), t), 1, 1)
            x = torch.cat([x, y], 1)
        if block < 4:
            name = f"features.transition{block}"
            x = conv(w, f"{name}.conv", relu(norm(w, f"{name}.norm", x), t))
            n, c, h, v = x.shape
            x = x.reshape(n, c, h // 2, 2, v // 2, 2).mean((3, 5))
    return linear(w, "classifier", relu(norm(w, "features.norm5", x), t).mean((2, 3)))


REFERENCES: dict[str, Callable[[Weights, Tensor, float, float], Tensor]] = {
    "resnet50": resnet50,
    "vgg11_bn": vgg11_bn,
    "densenet121": densenet121,
}


@pytest.fixture(scope="module", params=REFERENCES)
def case(request: pytest.FixtureRequest) -> tuple[str, nn.Module, Tensor]:
    """A network with random weights and the statistics of a batch of smooth random pictures."""
    with torch.device("meta"):
        model = getattr(torchvision.models, request.param)(weights=None, num_classes=10)
    model = model.double().to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.3, generator=generator)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            deviation = (2 / module.weight[0].numel()) ** 0.5
            module.weight.uniform_(-deviation, deviation, generator=generator).mul_(3**0.5)
            if module.bias is not None:
                module.bias.normal_(0, 0.1, generator=generator)
    noise = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=generator)
    pictures = F.interpolate(noise, 64, mode="bicubic")
    model.train()(pictures)
    model.eval()
    return request.param, model, pictures[:1].requires_grad_()


@pytest.mark.parametrize(
    ("temperature", "pool_temperature", "tolerance"),
    [(0.3, 0, 1e-5), (0.3, 0.3, 1e-4), (0, 0.5, 1e-4)],
)
def test_the_pullback_agrees_with_the_network_written_by_hand(
    case: tuple[str, nn.Module, Tensor],
    temperature: float,
    pool_temperature: float,
    tolerance: float,
) -> None:
    name, model, x = case
    output = REFERENCES[name](model.state_dict(), x, temperature, pool_temperature)
    expected = gradient(output[:, 7].sum(), x)
    pullback = ExcitationPullback(model, temperature, pool_temperature=pool_temperature)
    found = pullback.attribute(x, 7)
    assert relative_error(output, model(x)) < 1e-10
    assert relative_error(found, expected) < tolerance / 1e3  # float64 does better than is asked
    assert relative_error(found, gradient(model(x)[:, 7].sum(), x)) > 0.1


def test_temperature_zero_is_the_plain_gradient_to_the_bit(
    case: tuple[str, nn.Module, Tensor],
) -> None:
    _, model, x = case
    plain = gradient(model(x)[:, 7].sum(), x)
    assert torch.equal(ExcitationPullback(model, 0).attribute(x, 7), plain)


def test_the_forward_pass_is_bit_identical(case: tuple[str, nn.Module, Tensor]) -> None:
    _, model, x = case
    outside = model(x)
    with soften(model, 0.3):
        assert torch.equal(model(x), outside)


GATES = {"resnet50": (49, 1), "vgg11_bn": (10, 5), "densenet121": (121, 1)}


def test_every_gate_is_softened_and_nothing_left_hard(case: tuple[str, nn.Module, Tensor]) -> None:
    name, model, x = case
    with soften(model, 0.3) as record:
        model(x)
    counts = [
        sum(met.calls for met in record.softened if met.operation == operation)
        for operation in ("relu", "max_pool2d")
    ]
    assert tuple(counts) == GATES[name]
    assert record.left_hard == []


def test_float32_is_close_to_the_reference(case: tuple[str, nn.Module, Tensor]) -> None:
    name, model, x = case
    output = REFERENCES[name](model.state_dict(), x, 0.3, 0.3)
    expected = gradient(output[:, 7].sum(), x)
    try:
        found = ExcitationPullback(model.float(), 0.3).attribute(x.detach().float(), 7)
    finally:
        model.double()
    assert relative_error(found, expected) < 1e-3
