"""BatchNorm where a layout is ambiguous: there PyTorch's own gradient is wrong on CPUs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_pullback import ExcitationPullback
from captum_pullback.engine.mode import lean


def transposed(x: Tensor) -> Tensor:
    """The same numbers, the last dimension before the channels in memory."""
    return x.transpose(1, -1).contiguous().transpose(1, -1)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("of_input", [False, True])
def test_the_gradient_is_right_in_each_layout(batch: int, of_input: bool) -> None:
    norm = nn.BatchNorm2d(3).double().eval()
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.uniform_(norm.weight, -1, 1)
    weight = torch.randn(batch, 3, 1, 4, dtype=torch.float64)
    x = torch.randn(batch, 3, 1, 4, dtype=torch.float64)
    x, weight = (transposed(x), weight) if of_input else (x, transposed(weight))

    def forward(x: Tensor) -> Tensor:
        return (norm(F.leaky_relu(x, 1.0)) * weight).sum((1, 2, 3))

    found = ExcitationPullback(forward, 0.5).attribute(x)
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    torch.testing.assert_close(found, weight * scale.reshape(-1, 1, 1))


def test_the_kernel_gets_what_autograd_would_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On GPUs it insists on tensors for a batch's statistics, of which eval mode has none."""
    norm, x = nn.BatchNorm2d(3).eval(), torch.randn(2, 3, 4, 4)
    given, run = [], lean._batch_norm_backward

    def watched(*args: Any) -> Any:
        given.append(args)
        return run(*args)

    monkeypatch.setattr(lean, "_batch_norm_backward", watched)
    ExcitationPullback(nn.Sequential(norm, nn.ReLU(), nn.Flatten())).attribute(x, 0)
    parts = norm.weight, norm.bias, norm.running_mean, norm.running_var
    _, *statistics = torch.native_batch_norm(x, *parts, False, 0.1, norm.eps)
    (args,) = given
    for found, expected in zip(args[5:7], statistics, strict=True):
        assert isinstance(found, Tensor)
        assert found.shape == expected.shape == (0,)
