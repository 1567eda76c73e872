"""Everything that a softening might leave behind, as it is now."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_pullback.engine import _torch

#: Functions that somebody might replace to have a say in them.
_FUNCTIONS = {
    "torch.nn.functional": (
        F,
        "relu gelu silu softmax layer_norm group_norm normalize max_pool2d hardswish"
        " scaled_dot_product_attention multi_head_attention_forward linear conv2d",
    ),
    "torch": (torch, "softmax matmul bmm einsum mul relu sigmoid tanh rsqrt"),
    "Tensor": (Tensor, "softmax matmul __matmul__ mul __mul__ __truediv__ pow relu relu_ sigmoid"),
    "Module": (nn.Module, "__call__ _call_impl __getattr__ __setattr__"),
    "MultiheadAttention": (nn.MultiheadAttention, "forward"),
    "LayerNorm": (nn.LayerNorm, "forward"),
}


def hooks(model: nn.Module) -> list[Any]:
    """The hooks of all kinds that the modules of a model have."""
    kept = [value for m in model.modules() for name, value in vars(m).items() if "_hooks" in name]
    return [hook for by_number in kept for hook in by_number.values()]


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Plain values, to be compared."""
    return {
        "modules": {
            name: {
                key: (id(value), [*value] if isinstance(value, dict) else None)
                for key, value in vars(module).items()
            }
            for name, module in model.named_modules()
        },
        "classes": {name: type(module) for name, module in model.named_modules()},
        "parameters": {
            name: (id(p), p.requires_grad, id(p.grad), _torch.version(p), p._backward_hooks)
            for name, p in model.named_parameters()
        },
        "functions": {
            f"{where}.{name}": getattr(owner, name)
            for where, (owner, names) in _FUNCTIONS.items()
            for name in names.split()
        },
        "hooks of all modules": [
            len(hooks)
            for name, hooks in sorted(vars(nn.modules.module).items())
            if name.startswith("_global_") and isinstance(hooks, dict)
        ],
        "modes": (
            _torch.mode_depth(),
            torch._C._len_torch_dispatch_stack(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
        ),
        "flags": (
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_default_dtype(),
        ),
        "random numbers": torch.get_rng_state().tolist(),
    }


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Check that a block leaves the network and PyTorch as they were."""
    before, weights = snapshot(model), copy.deepcopy(model.state_dict())
    yield
    for what, value in snapshot(model).items():
        assert value == before[what], what
    after = model.state_dict()
    assert list(after) == list(weights)
    assert all(torch.equal(after[name], weights[name]) for name in weights)
