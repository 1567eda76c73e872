"""Operations that keep only what the gradient with respect to their *input* needs.

For the gradients of weights, autograd keeps the input of every convolution and normalization: most
of the memory of a backward pass, and of no use to an attribution. (Hard max pools keep theirs for
its shape.) Each rule here keeps the weights and the shape of the input, and calls PyTorch's own
backward kernel, which returns the same bits. A rule that does not know its arguments returns
None, and the operation runs as ever.

Only where no gradient with respect to parameters is asked for: the caller sees to that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_pullback.engine._torch import kernel
from captum_pullback.engine.calls.held import Context, Held
from captum_pullback.engine.rules.windows import per_axis

__all__ = ["LEAN"]

# Overloads, which are quicker to call than what chooses among them.
_convolution_backward: Callable[..., Any] = kernel(torch.ops.aten.convolution_backward.default)
_batch_norm_backward: Callable[..., Any] = kernel(torch.ops.aten.native_batch_norm_backward.default)
_avg_pool2d_backward: Callable[..., Tensor] = kernel(torch.ops.aten.avg_pool2d_backward.default)


def _like(context: Context, grad: Tensor) -> Tensor:
    """In place of an input of which PyTorch's kernels need the shape and the layout alone."""
    # Some walk through it: better through memory that is there. Their second derivatives want it
    # without a graph.
    if (grad.shape, grad.stride()) == (context.shape, context.strides):
        return grad.detach()
    return grad.new_empty_strided(context.shape, context.strides)  # type: ignore[arg-type]


# What follows the bias in a call, in order; transposed convolutions have their own.
_AFTER_BIAS = ("stride", "padding", "dilation", "groups")
_AFTER_BIAS_TRANSPOSED = ("stride", "padding", "output_padding", "groups", "dilation")


def _convolution(dimensions: int, *, transposed: bool = False) -> Callable[..., Held | None]:
    names = _AFTER_BIAS_TRANSPOSED if transposed else _AFTER_BIAS

    def numbers(*args: Any, **kwargs: Any) -> tuple[Any, ...] | None:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if isinstance(given.get("padding"), str):
            return None  # padded to "same"
        return (
            per_axis(given.get("stride", 1), dimensions),
            per_axis(given.get("padding", 0), dimensions),
            per_axis(given.get("dilation", 1), dimensions),
            transposed,
            per_axis(given.get("output_padding", 0), dimensions),
            given.get("groups", 1),
        )

    known = functools.lru_cache(maxsize=256)(numbers)

    def rule(
        x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Held | None:
        if x.dim() != dimensions + 2 or x.is_complex() or weight.is_complex():
            return None  # without a batch dimension, or such
        try:
            found = known(*args, **kwargs)
        except TypeError:  # lists
            found = numbers(*args, **kwargs)
        if found is None:
            return None
        sizes = None if bias is None else bias.shape

        def pull(context: Context, grad: Tensor, weight: Tensor) -> tuple[Tensor, None]:
            pulled: tuple[Tensor, Any, Any] = _convolution_backward(
                grad, _like(context, grad), weight, sizes, *found, _INPUT_ALONE
            )
            return pulled[0], None

        return Held(pull, (weight.detach(),), saves=(1,), layout=True, linear="mixes")

    return rule


# Which gradients PyTorch's kernels are to compute.
_INPUT_ALONE = (True, False, False)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Held | None:
    """A linear layer; of contiguous inputs autograd itself keeps none, if no weight needs it.

    Of others PyTorch chooses the kernel by whether the weight needs a gradient: with a detached
    one it would expand the weight over the batch, for many times the price and other last digits.
    """
    if x.dim() <= 2 or x.is_contiguous():
        return None

    def pull(context: Context, grad: Tensor, weight: Tensor) -> tuple[Tensor, None]:
        flat = grad.reshape(-1, grad.shape[-1]) @ weight
        return flat.reshape(*grad.shape[:-1], weight.shape[-1]), None

    return Held(pull, (weight.detach(),), saves=(1,), layout=True, linear="mixes")


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Held | None:
    if training or running_mean is None or running_var is None:
        return None

    def pull(
        context: Context, grad: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        # In eval mode the input's values do not count.
        like = _like(context, grad)
        if 1 in grad.shape and grad.stride() != like.stride():
            # Of whose layout two things can be said: PyTorch's kernel on CPUs says another of
            # the input than of the gradient, and misreads it.
            grad, like = grad.contiguous(), like.contiguous()
        # A batch's own statistics, which eval mode has none of: on GPUs they must be tensors.
        none = mean.new_empty(0)
        pulled: tuple[Tensor, Any, Any] = _batch_norm_backward(
            grad, like, weight, mean, variance, none, none, False, eps, _INPUT_ALONE
        )
        return pulled[0], None, None, None

    others = (running_mean, running_var, None if weight is None else weight.detach())
    return Held(pull, others, saves=(1, 2, 3), layout=True)


def _avg_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Held:
    rest = (ceil_mode, count_include_pad, divisor_override)
    sizes = (per_axis(kernel_size, 2), per_axis(stride or kernel_size, 2), per_axis(padding, 2))

    def pull(context: Context, grad: Tensor) -> Tensor:
        pulled: Tensor = _avg_pool2d_backward(grad, _like(context, grad), *sizes, *rest)
        return pulled

    return Held(pull, saves=(), layout=True, linear="moves")


def _max_pool(dimensions: int) -> Callable[..., Held | None]:
    forward, backward = (
        getattr(torch.ops.aten, f"max_pool{dimensions}d_with_indices{name}").default
        for name in ("", "_backward")
    )

    def rule(
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Held | None:
        if return_indices or x.device.type not in ("cpu", "cuda"):
            return None  # other devices have kernels of their own
        given = (kernel_size, stride or kernel_size, padding, dilation)
        sizes = (*(per_axis(each, dimensions) for each in given), ceil_mode)

        def run(operation: Callable[[Tensor], Any], x: Tensor) -> tuple[Any, ...]:
            output, indices = forward(x, *sizes)
            return output, indices

        def pull(context: Context, grad: Tensor, indices: Tensor) -> Tensor:
            pulled: Tensor = backward(grad, _like(context, grad), *sizes, indices)
            return pulled

        return Held(pull, (), run, (), layout=True)

    return rule


#: function -> rule(*its arguments), which gives what is held of it, or None
LEAN: dict[Any, Callable[..., Held | None]] = {
    F.conv1d: _convolution(1),
    F.conv2d: _convolution(2),
    F.conv3d: _convolution(3),
    F.conv_transpose1d: _convolution(1, transposed=True),
    F.conv_transpose2d: _convolution(2, transposed=True),
    F.conv_transpose3d: _convolution(3, transposed=True),
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.avg_pool2d: _avg_pool2d,
    F.max_pool2d: _max_pool(2),
    F.max_pool3d: _max_pool(3),
}
