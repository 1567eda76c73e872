"""Marks of tests that differ from one release of PyTorch to another."""

from __future__ import annotations

import pytest
import torch

#: What Dynamo itself trips over where warnings are errors: an input that is no leaf, and, in
#: torch 2.8, any autograd.Function.
dynamo_warns = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning",
    "ignore:<class 'torch.autograd.function.Function'> should not be:DeprecationWarning",
)

needs_override = pytest.mark.skipif(
    torch.__version__ < "2.9", reason="torch 2.8 shows torch.autograd.backward to no function mode"
)
#: Ways to take the gradient of y with respect to x.
every_way_to_take_a_gradient = pytest.mark.parametrize(
    "take",
    [
        pytest.param(lambda y, x: torch.autograd.grad([y], [x]), id="grad"),
        pytest.param(lambda y, x: y.backward(), id="Tensor.backward"),
        pytest.param(
            lambda y, x: torch.autograd.backward([y]), id="autograd.backward", marks=needs_override
        ),
    ],
)
