"""What is not linear, by name and by kind of gate, however it is spelled."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_pullback.engine.names.spellings import spellings

__all__ = [
    "KINDS", "NONLINEAR", "Operation", "kind_of", "nonlinear_of", "read_call", "split_call",
]  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """A function of PyTorch that is not linear.

    Attributes:
        name: What records call it.
        kind: The kind of gate that it is, as rules and temperatures name it; the function itself,
            of an operation that is not PyTorch's.
        inplace: Whether it always writes into its input.
        flag: Where among the arguments after the input it says whether it does; None if nowhere.
        read: From the arguments after the input to the kind and the arguments that its rule reads,
            where they are not these.
    """

    name: str
    kind: Any
    inplace: bool = False
    flag: int | None = None
    read: Callable[..., tuple[str, tuple[Any, ...], dict[str, Any]]] | None = None


# Kinds whose name is not that of their operation.
_KIND_OF = {
    "hardtanh": "relu6",
    "_threshold": "threshold",
    "_prelu_kernel": "prelu",
    "clamp_min": "clamp",
    "clip": "clamp",
    "scaled_dot_product_attention": "attention",
    "multi_head_attention_forward": "attention",
    "_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "absolute": "abs",
    **{
        f"{adaptive}max_pool{d}d{indices}": "max_pool"
        for d in (1, 2, 3)
        for adaptive in ("", "adaptive_")
        for indices in ("", "_with_indices")
    },
}

_NONLINEAR = (
    *_KIND_OF, "__pow__", "__rpow__", "abs", "acos", "acosh", "amax", "amin", "aminmax", "asin",
    "asinh", "atan", "atan2", "atanh", "cdist", "ceil", "celu", "clamp", "clamp_max", "cos", "cosh",
    "cosine_similarity", "cummax", "cummin", "cumprod", "elu", "erf", "erfc", "erfinv", "exp",
    "exp2", "expm1", "float_power", "floor", "fmax", "fmin", "fmod", "fractional_max_pool2d",
    "fractional_max_pool3d", "frac", "gelu", "glu", "group_norm", "gru", "gru_cell",
    "gumbel_softmax", "hardshrink", "hardsigmoid", "hardswish", "hypot", "index_reduce",
    "instance_norm", "kthvalue", "layer_norm", "ldexp", "leaky_relu", "lgamma",
    "local_response_norm", "log", "log10", "log1p", "log2", "log_softmax", "logaddexp",
    "logcumsumexp", "logit", "logsigmoid", "logsumexp", "lp_pool1d", "lp_pool2d", "lp_pool3d",
    "lstm", "lstm_cell", "max", "maximum", "median", "min", "minimum", "mish",
    "native_group_norm", "native_layer_norm", "norm", "normalize", "pdist", "pow", "prelu",
    "prod", "reciprocal", "relu", "relu6", "renorm", "rms_norm", "rnn_relu", "rnn_relu_cell",
    "rnn_tanh", "rnn_tanh_cell", "round", "rrelu", "rsqrt", "scatter_reduce", "segment_reduce",
    "selu", "sigmoid", "silu", "sin", "sinc", "sinh", "softmax", "softmin", "softplus",
    "softshrink", "softsign", "sort", "sqrt", "square", "std", "std_mean", "tan", "tanh",
    "tanhshrink", "threshold", "topk", "trunc", "var", "var_mean", "vector_norm", "where",
)  # fmt: skip

KINDS = frozenset({*(_KIND_OF.get(name, name) for name in _NONLINEAR), "product"})
"""The kinds of gates and of other nonlinearities, which rules and temperatures may name."""


def kind_of(operation: str) -> str:
    """The kind of gate that an operation of this name is."""
    return _KIND_OF.get(operation, operation)


def _flag(function: Any) -> int | None:
    """Where among the arguments after the input the flag ``inplace`` is."""
    if not inspect.isfunction(function):
        return None
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return names.index("inplace") - 1 if "inplace" in names else None


_Read = tuple[str, tuple[Any, ...], dict[str, Any]]


def _relu6() -> _Read:
    return "relu6", (0.0, 6.0), {}


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0) -> _Read:
    return "relu6", (min_val, max_val), {}


def _clamp(min: Any = None, max: Any = None) -> _Read:
    # A clamp from 0 is a ReLU or a capped one. Other clamps guard logarithms and pixel ranges.
    if isinstance(min, Tensor) or isinstance(max, Tensor) or min is None or min != 0:
        return "clamp", (), {}
    return ("relu", (), {}) if max is None else ("relu6", (0.0, max), {})


def _pool(dimensions: int, adaptive: bool) -> Callable[..., _Read]:
    given = {"dimensions": dimensions, "adaptive": adaptive}

    def read(*args: Any, **named: Any) -> _Read:
        return "max_pool", args, {**named, **given}

    return read


_READERS: dict[str, Callable[..., _Read]] = {
    "relu6": _relu6,
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clip": _clamp,
    **{
        f"{adaptive}max_pool{d}d{indices}": _pool(d, bool(adaptive))
        for d in (1, 2, 3)
        for adaptive in ("", "adaptive_")
        for indices in ("", "_with_indices")
    },
}


def _nonlinear() -> dict[Any, Operation]:
    table: dict[Any, Operation] = {}
    for name in _NONLINEAR:
        title = name.strip("_").removesuffix("_with_indices").removesuffix("_kernel")
        kind, read = _KIND_OF.get(name, name.strip("_")), _READERS.get(name)
        for function in spellings(name):
            table.setdefault(function, Operation(title, kind, False, _flag(function), read))
        if not name.endswith("_"):
            for function in spellings(name + "_"):
                table.setdefault(function, Operation(title, kind, True, None, read))
    return table


def read_call(
    operation: Operation, rest: tuple[Any, ...], named: dict[str, Any]
) -> tuple[str, tuple[Any, ...], dict[str, Any], bool]:
    """The kind of a call, the arguments that its rule reads, and whether it works in place.

    Args:
        operation: Of the call.
        rest: Its positional arguments after the input.
        named: Its keyword arguments.
    """
    inplace = operation.inplace
    if operation.flag is not None:
        if len(rest) > operation.flag:
            inplace = bool(rest[operation.flag])
            rest = rest[: operation.flag]
        elif "inplace" in named:
            inplace = bool(named["inplace"])
            named = {key: value for key, value in named.items() if key != "inplace"}
    if operation.read is None:
        return operation.kind, rest, named, inplace
    return *operation.read(*rest, **named), inplace


NONLINEAR: dict[Any, Operation] = _nonlinear()


# Dynamo's own look into a dict misses functions that PyTorch wraps, so that tables are looked into
# where it does not look; but it cannot hand on what has functions in it.
_IN_SIGHT = {
    function: operation
    for function, operation in NONLINEAR.items()
    if operation.read is not None or getattr(function, "__closure__", None)
}


def nonlinear_of(func: Any) -> Operation | None:
    """What a function is, if it is not linear."""
    if not torch.compiler.is_compiling():
        return NONLINEAR.get(func)
    return _IN_SIGHT[func] if func in _IN_SIGHT else _nonlinear_of(func)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _nonlinear_of(func: Any) -> Operation | None:
    return NONLINEAR.get(func)


def split_call(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A call as its input, its other positional arguments, and its keyword arguments."""
    if args:
        return args[0], args[1:], kwargs
    named = dict(kwargs)
    for name in ("input", "self", "query"):
        if name in named:
            return named.pop(name), (), named
    return None, (), named
