"""Operations that keep only what the gradient with respect to their *input* needs.

For the gradients of weights, autograd keeps the input of every convolution and normalisation: most
of the memory of a backward pass, and of no use to an attribution. (Hard max pools keep theirs for
its shape.) Each rule here runs the original operation, keeps its weights and the shape of its
input, and then calls PyTorch's own backward kernel, which returns the same bits. A rule that does
not know its arguments returns None, and the operation runs as ever.

Only where no gradient with respect to parameters is asked for: the caller sees to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from captum_pullback.engine.gates import unseen
from captum_pullback.engine.windows import per_axis

__all__ = ["LEAN"]

# Overloads, which are quicker to call than what chooses among them.
_convolution_backward: Callable[..., Any] = torch.ops.aten.convolution_backward.default
_batch_norm_backward: Callable[..., Any] = torch.ops.aten.native_batch_norm_backward.default
_avg_pool2d_backward: Callable[..., Tensor] = torch.ops.aten.avg_pool2d_backward.default


class _Lean(Function):
    """``operation(x)`` forward, ``pull_back(grad, something like x)`` backward.

    What the operation returns beside the output, in a tuple, is kept and given to ``pull_back``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        operation: Callable[[Tensor], Any],
        pull_back: Callable[..., Tensor],
    ) -> Tensor:
        ctx.shape, ctx.strides, ctx.pull_back = x.shape, x.stride(), pull_back
        output = operation(x)
        if isinstance(output, tuple):
            output, *kept = output
            ctx.save_for_backward(*kept)
        result: Tensor = output
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        kept = ctx.saved_tensors
        with unseen():
            return ctx.pull_back(grad, _like(grad, ctx.shape, ctx.strides), *kept), None, None


_run: Callable[..., Tensor] = _Lean.apply


def _like(grad: Tensor, shape: torch.Size, strides: tuple[int, ...]) -> Tensor:
    """In place of an input of which PyTorch's kernels need the shape and the layout alone."""
    # Some walk through it: better through memory that is there. Their second derivatives want it
    # without a graph.
    if (grad.shape, grad.stride()) == (shape, strides):
        return grad.detach()
    return grad.new_empty_strided(shape, strides)


# What follows the bias in a call, in order; transposed convolutions have their own.
_AFTER_BIAS = ("stride", "padding", "dilation", "groups")
_AFTER_BIAS_TRANSPOSED = ("stride", "padding", "output_padding", "groups", "dilation")


def _convolution(dimensions: int, *, transposed: bool = False) -> Callable[..., Tensor | None]:
    names = _AFTER_BIAS_TRANSPOSED if transposed else _AFTER_BIAS

    def rule(
        operation: Callable[..., Tensor],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor | None:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if x.dim() != dimensions + 2 or isinstance(given.get("padding"), str):
            return None  # without a batch dimension, or padded to "same"
        return _convolve(
            x,
            weight,
            bias,
            lambda z: operation(z, weight, bias, *args, **kwargs),
            (
                per_axis(given.get("stride", 1), dimensions),
                per_axis(given.get("padding", 0), dimensions),
                per_axis(given.get("dilation", 1), dimensions),
                transposed,
                per_axis(given.get("output_padding", 0), dimensions),
                given.get("groups", 1),
            ),
        )

    return rule


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    operation: Callable[[Tensor], Tensor],
    numbers: tuple[Any, ...],
) -> Tensor:
    weight = weight.detach()
    sizes = None if bias is None else list(bias.shape)

    def pull_back(grad: Tensor, like: Tensor) -> Tensor:
        pulled: tuple[Tensor, Any, Any] = _convolution_backward(
            grad, like, weight, sizes, *numbers, [True, False, False]
        )
        return pulled[0]

    return _run(x, operation, pull_back)


def _linear(
    operation: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    # Autograd itself keeps no input for a weight that needs no gradient.
    return operation(x, weight.detach(), None if bias is None else bias.detach())


def _batch_norm(
    operation: Callable[..., Tensor],
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if training or running_mean is None or running_var is None:
        return None
    scale = None if weight is None else weight.detach()

    def pull_back(grad: Tensor, like: Tensor) -> Tensor:
        # In eval mode the input's values do not count.
        pulled: tuple[Tensor, Any, Any] = _batch_norm_backward(
            grad, like, scale, running_mean, running_var, None, None, False, eps,
            [True, False, False],
        )  # fmt: skip
        return pulled[0]

    return _run(
        x,
        lambda z: operation(z, running_mean, running_var, weight, bias, False, momentum, eps),
        pull_back,
    )


def _avg_pool2d(
    operation: Callable[..., Tensor],
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    rest = (ceil_mode, count_include_pad, divisor_override)
    sizes = (per_axis(kernel_size, 2), per_axis(stride or kernel_size, 2), per_axis(padding, 2))

    def pull_back(grad: Tensor, like: Tensor) -> Tensor:
        pulled: Tensor = _avg_pool2d_backward(grad, like, *sizes, *rest)
        return pulled

    return _run(x, lambda z: operation(z, kernel_size, stride, padding, *rest), pull_back)


def _max_pool(dimensions: int) -> Callable[..., Tensor | None]:
    forward, backward = (
        getattr(torch.ops.aten, f"max_pool{dimensions}d_with_indices{name}").default
        for name in ("", "_backward")
    )

    def rule(
        operation: Callable[..., Tensor],
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor | None:
        if return_indices or x.device.type not in ("cpu", "cuda"):
            return None  # other devices have kernels of their own
        given = (kernel_size, stride or kernel_size, padding, dilation)
        sizes = (*(per_axis(each, dimensions) for each in given), ceil_mode)

        def pull_back(grad: Tensor, like: Tensor, indices: Tensor) -> Tensor:
            pulled: Tensor = backward(grad, like, *sizes, indices)
            return pulled

        return _run(x, lambda z: forward(z, *sizes), pull_back)

    return rule


#: function -> rule(function, *its arguments), which gives the output or None
LEAN: dict[Any, Callable[..., Tensor | None]] = {
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
