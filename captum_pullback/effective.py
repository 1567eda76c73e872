r"""Effective weights: the affine map that a network is at one input.

With each gate held at its value, a network is

.. math::
    f(x) = W_{\mathrm{eff}}(x)\, x + b_{\mathrm{eff}}(x)

exactly. For piecewise linear networks :math:`W_{\mathrm{eff}}` is the Jacobian, and the same map
holds in the whole linear region; arXiv 2511.05628 follows it over training, for networks without
biases. Biases, BatchNorm's shifts and the like make :math:`b_{\mathrm{eff}}`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from captum_pullback.affine.at_zero import AtZero
from captum_pullback.affine.jacobian import jacobian
from captum_pullback.affine.linearity import Graph, RandomnessWatch
from captum_pullback.engine.models import leaves_of, on_copies
from captum_pullback.engine.rules import RulesLike
from captum_pullback.engine.softening import refuse_inference_mode, soften_for_inputs
from captum_pullback.engine.softness import Softness
from captum_pullback.engine.temperature import TemperatureLike

__all__ = ["NotPiecewiseLinearError", "effective_weights"]

Inputs = TypeVar("Inputs", Tensor, tuple[Tensor, ...])

# By how much of their size W and b may miss the output before something must be wrong.
_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-6}


class NotPiecewiseLinearError(ValueError):
    """With its gates held, the network is not an affine map; the message names the operations."""


def effective_weights(
    forward_func: Callable[..., Any],
    inputs: Inputs,
    target: Any = None,
    *,
    additional_forward_args: Any = None,
    temperature: TemperatureLike = 0.0,
    pool_temperature: TemperatureLike | None = None,
    rules: RulesLike | None = None,
    linearize: bool = False,
    max_bytes: int = 2**28,
) -> tuple[Inputs, Tensor]:
    r"""The weight and the bias with which the network, its gates held, is affine at each input.

    .. math::
        f_c(x) = \langle W_c(x), x \rangle + b_c(x)

    This is exact for everything that ``rules`` holds: GELU, normalizations, attention, gated
    products. :math:`W_c(x)` is the pullback of class c. For ReLU and its family, max pooling, and
    piecewise linear operations without a rule (``max``, ``min``, ``clamp``, ``sort``, ``where``),
    it is the gradient; on a boundary between pieces, it is that of the side that autograd chooses.
    A network of only these has the same W and b everywhere in the linear region of x (arXiv
    2511.05628).

    :math:`b_c(x)` is what the held network gives at the input 0: it is summed from biases and
    constants, not computed as the difference from :math:`f(x)`, so the equation checks both. With a
    temperature, W is the map of the softened network, which is the pullbacks of all classes (arXiv
    2507.22832), and the remainder at each softened gate is a constant, too.

    It costs one forward pass, in which each operation runs twice, and backward passes that take
    many classes at once (vmap). What autograd cannot see is not seen here, either: detached values
    count as constants, and so does what the network derives from values without a gradient
    (indices, comparisons, branches). A sigmoid at the output is held, too.

    Args:
        forward_func: The network in eval mode, or any callable that gives a tensor (N, C), (N,)
            or (N, ..., C). An example's output must depend on that example alone.
        inputs: Shape (N, ...), or a tuple of such, of floating point.
        target: None for all classes. Otherwise as in every Captum attribution: an int (or a
            tuple, where outputs have more dimensions) for all examples, or a list or tensor with
            one for each. Only those rows are computed.
        additional_forward_args: Further arguments of the network.
        temperature: 0 for gates as they are; else as for `soften`.
        pool_temperature: The same for max pooling; None follows ``temperature``.
        rules: What is held, as for `soften`. With `EXCITATION`, networks that contain more than the
            ReLU family, max pools and linear operations are refused.
        linearize: Whether to use the tangent at each input instead, for any network and with
            nothing held: W is the Jacobian and b = f(x) - <W, x>. For BatchNorm in training mode
            the batch statistics are differentiated too, each example's in its own output only, one
            backward pass per example; and a forward pass in training mode has its usual effects.
        max_bytes: About how much memory the gradients of one batched backward pass may take,
            beside the result. At least one class at a time is computed; on a CPU not more than
            make it faster.

    Returns:
        The weight, of shape (N, C, \*input shape), and the bias, (N, C), in the type of the
        inputs and of the output; detached. C is 1 with a target. For a tuple of inputs the weight
        is a tuple. Outputs of more dimensions have these in place of C.

    Raises:
        NotPiecewiseLinearError: The network runs what is neither piecewise linear nor held: a
            logarithm, a softmax that is not a factor, BatchNorm or dropout in training mode; or a
            part of it cannot be followed. The message names it.
        TypeError: Inputs that are not tensors of floating point.
        ValueError, IndexError: A target that does not fit the output, or ``max_bytes`` below 1.
        SofteningError: ``temperature`` is not 0 and nothing was softened, or
            `torch.inference_mode` is on.

    Example:
        >>> weight, bias = effective_weights(torch.relu, torch.tensor([[-1.0, 2.0]]))
        >>> weight
        tensor([[[0., 0.],
                 [0., 1.]]])
        >>> bias
        tensor([[0., 0.]])
    """
    refuse_inference_mode()
    if max_bytes < 1:
        raise ValueError(f"max_bytes is {max_bytes}; give a number of bytes above 0")
    leaves = leaves_of(inputs)
    if not leaves or any(leaf.dim() == 0 or leaf.is_complex() for leaf in leaves):
        raise TypeError("inputs must be one or more tensors of real numbers, of shape (N, ...)")
    if linearize:
        with torch.enable_grad():
            output = on_copies(forward_func, leaves, additional_forward_args)
            _check_output(output, len(leaves[0]))
            rows, shape = _rows(output, target)
            weights = jacobian(rows, leaves, Graph(output, leaves), max_bytes, checked=False)
        bias = _double(rows.detach()) - _products(weights, leaves)
    else:
        softness = Softness(temperature, pool_temperature, rules)
        # Outside of the softening, to see what it runs.
        with (
            torch.enable_grad(),
            RandomnessWatch() as watch,
            AtZero(leaves) as at_zero,
            _held(forward_func, softness, len(leaves[0])),
        ):
            output = on_copies(forward_func, leaves, additional_forward_args)
            _check_output(output, len(leaves[0]))
            graph = Graph(output, leaves)
            _refuse(graph, watch, at_zero)
            rows, shape = _rows(output, target)
            bias = _double(_rows(at_zero.finish(output), target)[0])
            checked = leaves[0].dtype in _TOLERANCES
            weights = jacobian(rows, leaves, graph, max_bytes, checked=checked)
        if miss := _miss(rows, bias, weights, leaves):
            raise NotPiecewiseLinearError(
                f"the affine map misses the output by {miss:.1g} of its size: a part of the "
                "network changes tensors where autograd does not see it, examples depend on each "
                "other, or a rule's pull is not linear. Take the tangent at each input with "
                "linearize=True."
            )
    shaped = [
        weight.reshape(len(leaf), *shape, *leaf.shape[1:])
        for weight, leaf in zip(weights, leaves, strict=True)
    ]
    result: Any = tuple(shaped) if isinstance(inputs, tuple) else shaped[0]
    return result, bias.to(output).reshape(-1, *shape)


@contextmanager
def _held(forward_func: Callable[..., Any], softness: Softness, batch: int) -> Iterator[None]:
    """A block in which gates are held, the output's too, and nothing is wrong with hard ones."""
    with soften_for_inputs(forward_func, softness, full=True, batch=batch) as mode:
        mode.keep_copies = False
        mode.holds_output, mode.may_be_plain = True, softness.is_hard
        yield


def _check_output(output: object, examples: int) -> None:
    if not isinstance(output, Tensor):
        raise TypeError(f"forward_func must return a tensor, not {type(output).__name__}")
    if output.dim() == 0 or len(output) != examples:
        raise ValueError(
            f"the output has shape {tuple(output.shape)} for {examples} inputs: the first "
            "dimension must be the batch's"
        )


def _refuse(graph: Graph, watch: RandomnessWatch, at_zero: AtZero) -> None:
    """Raise if the held network is no affine map, and say what in it is not."""
    found = list(dict.fromkeys(graph.nonlinear + at_zero.nonlinear + watch.random))
    if not found and at_zero.lost:
        raise NotPiecewiseLinearError(
            "the bias cannot be followed through the network: values that depend on the inputs "
            f"were made where they cannot be seen, at {', '.join(at_zero.lost)}. Take the "
            "tangent at each input with linearize=True, whose bias is f(x) - <W, x>."
        )
    if not found:
        return
    advice = ""
    if any("training mode" in name for name in found):
        advice += "call model.eval() first; "
    if any("softmax" in name for name in found):
        advice += "pass the network up to its logits, without the softmax; "
    if "compiled_function" in found:
        advice += "pass the module as it was before torch.compile; "
    raise NotPiecewiseLinearError(
        "the network with its gates held is not piecewise linear in its inputs: it runs "
        f"{', '.join(found)}. To fix this, {advice}give a rule for each, or take its tangent at "
        "each input with linearize=True."
    )


def _rows(output: Tensor, target: Any) -> tuple[Tensor, tuple[int, ...]]:
    """The outputs that are asked for, as (N, K), and the shape that stands for K."""
    if target is None:
        shape = tuple(output.shape[1:]) or (1,)
        return output.reshape(len(output), -1), shape
    if output.dim() == 1:
        raise IndexError("the output has one number per example: give target=None")
    if isinstance(target, Tensor):
        target = target.tolist()
    targets = target if isinstance(target, list) else [target] * len(output)
    if len(targets) == 1:
        targets = targets * len(output)
    if len(targets) != len(output):
        raise ValueError(f"{len(targets)} targets for {len(output)} examples")
    indices = [entry if isinstance(entry, tuple) else (entry,) for entry in targets]
    if any(len(index) != output.dim() - 1 for index in indices):
        raise IndexError(
            f"the output has shape {tuple(output.shape)}: a target is "
            + ("an int" if output.dim() == 2 else f"a tuple of {output.dim() - 1} ints")
        )
    try:
        picked = [output[n][index] for n, index in enumerate(indices)]
    except IndexError as error:
        raise IndexError(f"{error} (the output has shape {tuple(output.shape)})") from error
    return torch.stack(picked)[:, None], (1,)


def _miss(rows: Tensor, bias: Tensor, weights: list[Tensor], leaves: tuple[Tensor, ...]) -> float:
    """By how much of their size W and b, which were had in two ways, miss the output.

    0 where that is rounding, and where something is NaN.
    """
    tolerance = _TOLERANCES.get(leaves[0].dtype)
    if tolerance is None or not rows.numel():
        return 0.0
    output = _double(rows.detach())
    scale = output.abs() + bias.abs()
    for weight, leaf in zip(weights, leaves, strict=True):
        lengths = torch.linalg.vector_norm(weight.flatten(2), dim=2)
        scale += _double(lengths * leaf.detach().flatten(1).norm(dim=1, keepdim=True))
    misses = (output - bias - _products(weights, leaves)).abs() / scale.clamp_min(1e-300)
    largest = float(misses.nan_to_num().max())
    return largest if largest > tolerance else 0.0


def _double(tensor: Tensor) -> Tensor:
    """In float64, which Apple's GPUs do not have."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def _products(weights: list[Tensor], leaves: tuple[Tensor, ...]) -> Tensor:
    """<W, x> over all inputs, (N, K)."""
    return torch.stack(
        [_inner(weight, leaf) for weight, leaf in zip(weights, leaves, strict=True)]
    ).sum(0)


def _inner(weight: Tensor, inputs: Tensor) -> Tensor:
    """<W, x> as (N, K), summed in float64 without a float64 copy of the whole weight."""
    flat = _double(inputs.detach()).flatten(1)
    columns = [(_double(weight[:, k]).flatten(1) * flat).sum(1) for k in range(weight.shape[1])]
    return torch.stack(columns, 1) if columns else flat.new_zeros(len(flat), 0)
