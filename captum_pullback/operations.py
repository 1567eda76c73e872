"""Which operations of a forward pass are gates, under whatever name PyTorch calls them.

One table, from the function that a `torch.overrides.TorchFunctionMode` is shown to a reader of
its arguments. A reader returns what the operation's gate is, or None where these arguments make
it no gate. Everything that is neither a gate nor linear is in `SMOOTH`: it keeps its derivative,
and the record of a softening names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .gates import RELU, PiecewiseLinear, soft_gate, soft_prelu
from .pooling import AdaptiveWindows, Windows, soft_max_pool

__all__ = ["GATES", "SMOOTH", "TRAINING", "Gate"]

Operation = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Gate:
    """One gating operation as it was called.

    Attributes:
        run: Runs the operation, given as a function of its input alone, with a soft backward
            pass: ``run(operation, input, temperature)``.
        pools: Whether it gates over windows, and so takes the pool temperature.
        inplace: Whether it overwrites its input, of which it then keeps a copy.
    """

    run: Callable[[Operation, Tensor, float | Tensor], Any]
    pools: bool = False
    inplace: bool = False


Reader = Callable[..., Gate | None]


def _elementwise(curve: PiecewiseLinear, inplace: bool) -> Gate:
    def run(operation: Operation, z: Tensor, temperature: float | Tensor) -> Tensor:
        return soft_gate(operation, z, curve, temperature, inplace=inplace)

    return Gate(run, inplace=inplace)


def _relu(inplace: bool = False) -> Gate:
    return _elementwise(RELU, inplace)


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Gate:
    return _elementwise(PiecewiseLinear((0.0, 1.0, 0.0), (min_val, max_val)), inplace)


def _relu6(inplace: bool = False) -> Gate:
    return _hardtanh(0.0, 6.0, inplace)


def _leaky_relu(negative_slope: float = 0.01, inplace: bool = False) -> Gate:
    return _elementwise(PiecewiseLinear((negative_slope, 1.0), (0.0,)), inplace)


def _rrelu(
    lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Gate | None:
    # In training its left slope is drawn anew for each entry: no gate, but noise.
    return None if training else _leaky_relu((lower + upper) / 2, inplace)


def _threshold(threshold: float, value: float, inplace: bool = False) -> Gate:
    return _elementwise(PiecewiseLinear((0.0, 1.0), (threshold,)), inplace)


def _clamp(min: Any = None, max: Any = None, inplace: bool = False) -> Gate | None:
    # A clamp from 0 is a ReLU or a capped one. Other clamps guard logarithms and pixel ranges.
    if isinstance(min, Tensor) or isinstance(max, Tensor) or min is None or min != 0:
        return None
    return _relu(inplace) if max is None else _hardtanh(0.0, float(max), inplace)


def _prelu(weight: Tensor) -> Gate:
    def run(operation: Operation, z: Tensor, temperature: float | Tensor) -> Tensor:
        return soft_prelu(operation, z, weight, temperature)

    return Gate(run)


def _per_axis(value: int | Sequence[int], dimensions: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dimensions if len(values) == 1 else values


def _max_pool(dimensions: int) -> Reader:
    def read(
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Gate:
        kernel = _per_axis(kernel_size, dimensions)
        strided = stride is not None and stride != () and stride != []
        windows = Windows(
            kernel,
            _per_axis(stride, dimensions) if strided else kernel,  # type: ignore[arg-type]
            _per_axis(padding, dimensions),
            _per_axis(dilation, dimensions),
        )
        return _pool(windows)

    return read


def _adaptive_max_pool(dimensions: int) -> Reader:
    def read(output_size: Any, return_indices: bool = False) -> Gate:
        return _pool(AdaptiveWindows(dimensions))

    return read


def _pool(windows: Windows | AdaptiveWindows) -> Gate:
    def run(operation: Operation, x: Tensor, temperature: float | Tensor) -> Any:
        return soft_max_pool(operation, x, windows, temperature)

    return Gate(run, pools=True)


def _inplace(read: Reader) -> Reader:
    def read_inplace(*args: Any, **kwargs: Any) -> Gate | None:
        return read(*args, **kwargs, inplace=True)

    return read_inplace


_READERS: dict[str, Reader] = {
    "relu": _relu,
    "relu6": _relu6,
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky_relu,
    "rrelu": _rrelu,
    "threshold": _threshold,
    "_threshold": _threshold,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clip": _clamp,
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
}
for _d in (1, 2, 3):
    _READERS[f"max_pool{_d}d"] = _max_pool(_d)
    _READERS[f"max_pool{_d}d_with_indices"] = _max_pool(_d)
    _READERS[f"adaptive_max_pool{_d}d"] = _adaptive_max_pool(_d)
    _READERS[f"adaptive_max_pool{_d}d_with_indices"] = _adaptive_max_pool(_d)

_SMOOTH = (
    "__pow__", "__rpow__", "_log_softmax", "_softmax", "abs", "absolute", "amax", "amin",
    "aminmax", "atan", "cdist", "celu", "cos", "cosine_similarity", "cummax", "cumprod", "elu",
    "erf", "erfc", "exp", "exp2", "expm1", "float_power", "fractional_max_pool2d",
    "fractional_max_pool3d", "gelu", "glu", "group_norm", "gru", "gumbel_softmax", "hardshrink",
    "hardsigmoid", "hardswish", "instance_norm", "kthvalue", "layer_norm",
    "local_response_norm", "log", "log10", "log1p", "log2", "log_softmax", "logaddexp",
    "logsigmoid", "logsumexp", "lp_pool1d", "lp_pool2d", "lp_pool3d", "lstm", "max", "maximum",
    "median", "min", "minimum", "mish", "multi_head_attention_forward", "native_layer_norm",
    "norm", "normalize", "pdist", "pow", "prod", "reciprocal", "rms_norm", "rnn_relu",
    "rnn_tanh", "rsqrt", "scaled_dot_product_attention", "selu", "sigmoid", "silu", "sin",
    "softmax", "softmin", "softplus", "softshrink", "softsign", "sort", "sqrt", "square", "tan",
    "tanh", "tanhshrink", "topk", "where",
)  # fmt: skip


def _spellings(name: str) -> list[Any]:
    """Every callable that PyTorch shows a function mode for an operation of this name."""
    packet = getattr(torch.ops.aten, name, None)
    overloads = [
        getattr(packet, overload)
        for overload in (packet.overloads() if packet else [])
        if "out" not in overload
    ]
    homes = (F, torch, Tensor, torch._C._nn, torch.special)
    spellings = [getattr(home, name) for home in homes if hasattr(home, name)]
    return spellings + ([packet] if packet else []) + overloads


# function -> (name of the operation, reader of its arguments after the input)
GATES: dict[Any, tuple[str, Reader]] = {}
for _name, _read in _READERS.items():
    _title = _name.removeprefix("_").removesuffix("_with_indices").removesuffix("_kernel")
    for _function in _spellings(_name):
        GATES[_function] = (_title, _read)
    if "pool" not in _name:
        for _function in _spellings(_name + "_"):
            GATES[_function] = (_title, _inplace(_read))

# function -> name of the operation
SMOOTH: dict[Any, str] = {
    function: name.strip("_")
    for name in _SMOOTH
    for spelling in (name, name + "_")
    for function in _spellings(spelling)
}

# The same for what is linear unless it trains, with the place of that flag among its arguments.
TRAINING: dict[Any, tuple[str, int]] = {
    F.batch_norm: ("batch_norm", 5),
    F.dropout: ("dropout", 2),
    F.alpha_dropout: ("alpha_dropout", 2),
    F.feature_alpha_dropout: ("feature_alpha_dropout", 2),
}
