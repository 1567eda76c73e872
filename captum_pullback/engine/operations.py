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

from captum_pullback.engine.gates import RELU, PiecewiseLinear, soft_gate, soft_prelu
from captum_pullback.engine.pooling import soft_max_pool
from captum_pullback.engine.windows import AdaptiveWindows, Windows, per_axis

__all__ = ["DROPOUTS", "GATES", "SMOOTH", "TRAINING", "Gate", "split_call", "trains"]

Operation = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Gate:
    """One gating operation as it was called.

    Attributes:
        run: Runs the operation, given as a function of its input alone, with a soft backward
            pass: ``run(operation, input, temperature, once)``, the last being whether the
            gradient is going to be taken once only.
        pools: Whether it gates over windows, and so takes the pool temperature.
        inplace: Whether it overwrites its input, of which it then keeps a copy.
    """

    run: Callable[[Operation, Tensor, float | Tensor, bool], Any]
    pools: bool = False
    inplace: bool = False


Reader = Callable[..., Gate | None]


def split_call(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A gate's call as its input, its other positional arguments, and its keyword arguments."""
    if args:
        return args[0], args[1:], kwargs
    named = dict(kwargs)
    x = named.pop("input", None)
    return (named.pop("self", None) if x is None else x), (), named


def _elementwise(curve: PiecewiseLinear, inplace: bool) -> Gate:
    def run(operation: Operation, z: Tensor, temperature: float | Tensor, once: bool) -> Tensor:
        return soft_gate(operation, z, curve, temperature, inplace=inplace, once=once)

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
    def run(operation: Operation, z: Tensor, temperature: float | Tensor, once: bool) -> Tensor:
        return soft_prelu(operation, z, weight, temperature)

    return Gate(run)


def _max_pool(dimensions: int) -> Reader:
    def read(
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Gate:
        kernel = per_axis(kernel_size, dimensions)
        strided = stride is not None and stride != () and stride != []
        windows = Windows(
            kernel,
            per_axis(stride, dimensions) if strided else kernel,  # type: ignore[arg-type]
            per_axis(padding, dimensions),
            per_axis(dilation, dimensions),
        )
        return _pool(windows)

    return read


def _adaptive_max_pool(dimensions: int) -> Reader:
    def read(output_size: Any, return_indices: bool = False) -> Gate:
        return _pool(AdaptiveWindows(dimensions))

    return read


def _pool(windows: Windows | AdaptiveWindows) -> Gate:
    def run(operation: Operation, x: Tensor, temperature: float | Tensor, once: bool) -> Any:
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


@dataclass(frozen=True)
class Training:
    """What is linear unless it trains.

    Attributes:
        name: Name of the operation.
        place: Where among the arguments the flag is that says whether it trains.
        default: What the flag is where it is left out.
    """

    name: str
    place: int
    default: bool


# function -> what it is; each takes the probability right after its input
DROPOUTS: dict[Any, Training] = {}
for _name in ("dropout", "dropout1d", "dropout2d", "dropout3d"):
    DROPOUTS[getattr(F, _name)] = Training(_name, 2, default=True)
for _name in ("alpha_dropout", "feature_alpha_dropout"):
    DROPOUTS[getattr(F, _name)] = Training(_name, 2, default=False)
for _name in (
    "dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout"
):  # fmt: skip
    for _function in (getattr(torch, _name), *_spellings(_name)):
        DROPOUTS.setdefault(_function, Training(_name, 2, default=True))

TRAINING: dict[Any, Training] = {F.batch_norm: Training("batch_norm", 5, default=False), **DROPOUTS}


def trains(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of a function of `TRAINING` does what it does in training only."""
    place, default = TRAINING[func].place, TRAINING[func].default
    flag = args[place] if len(args) > place else kwargs.get("training", kwargs.get("train"))
    if not (default if flag is None else flag):
        return False
    return func not in DROPOUTS or (args[1] if len(args) > 1 else kwargs.get("p", 0.5)) != 0
