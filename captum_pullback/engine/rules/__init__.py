"""Rules: what is held of each kind of gate, one function and one row for each.

A rule reads the arguments of one call after its input, and says what is held of it. A composite
says which rule holds for which kind of gate. `EXCITATION` has rules for ReLU's family and max
pools, `SEMANTIC` for every kind; users write their own from these::

    rules = {**SEMANTIC, "max_pool": "differentiated", "gelu": None}
    rules = {**SEMANTIC, "softsign": Rule(lambda: Held(pull))}
    rules = {**SEMANTIC, "features": EXCITATION}  # by module name: the longest prefix counts
    rules = {}  # the plain gradient
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_pullback.engine.calls.held import Context, Held
from captum_pullback.engine.rules import attention, gates, norms
from captum_pullback.engine.rules.gates import RELU, PiecewiseLinear
from captum_pullback.engine.rules.pooling import max_pool
from captum_pullback.engine.rules.steps import Step, step, step_normal
from captum_pullback.engine.rules.windows import AdaptiveWindows, Windows, per_axis
from captum_pullback.engine.spread import Temperature

__all__ = ["EXCITATION", "READINGS", "SEMANTIC", "Composite", "Rule", "RulesLike", "is_ours"]


@dataclass(frozen=True)
class Rule:
    """What is held of one kind of gate.

    Attributes:
        read: Takes the arguments of a call after its input (without ``inplace``), and returns what
            is held of it, or None if it is not a gate with these arguments.
        group: "gate", or "pool" for what takes the pool temperature.
        temperature: The kind's own default temperature. None means the common one.
        inside: Whether to look for gates inside the operation instead, if it is written in Python.
    """

    read: Callable[..., Held | None]
    group: str = "gate"
    temperature: Temperature | None = None
    inside: bool = False


class Composite(Mapping[Any, Any]):
    """An immutable mapping from kinds of gates to rules; ``{**SEMANTIC, ...}`` copies it.

    Args:
        name: Of the composite.
        rules: Kinds of gates with their rules.
    """

    def __init__(self, name: str, rules: Mapping[str, Rule]) -> None:
        self.name = name
        self._rules = dict(rules)

    def __getitem__(self, kind: Any) -> Any:
        return self._rules[kind]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        return _named, (self.name,)


RulesLike: TypeAlias = Mapping[Any, Any]
"""Kinds of gates (or functions) with a `Rule`, the name of a reading, or None to keep the
derivative; and names of modules with such a mapping of their own."""


# --- elementwise operations ---


def _relu(step: Step) -> Rule:
    held = RELU.held(step)
    return Rule(lambda *_, **__: held)  # of a clamp, too


def _capped(reading: str, step: Step = step) -> Rule:
    def read(low: float, high: float) -> Held:
        return gates.capped(float(low), float(high), reading, step)

    return Rule(read)


def _leaky_relu(step: Step) -> Rule:
    def read(negative_slope: float = 0.01) -> Held:
        return PiecewiseLinear((negative_slope, 1.0), (0.0,)).held(step)

    return Rule(read)


def _rrelu(step: Step) -> Rule:
    def read(lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Held | None:
        # In training its left slope is drawn anew for each entry: no gate, but noise.
        slope = (lower + upper) / 2
        return None if training else PiecewiseLinear((slope, 1.0), (0.0,)).held(step)

    return Rule(read)


def _threshold(step: Step) -> Rule:
    def read(threshold: float, value: float) -> Held:
        held = PiecewiseLinear((0.0, 1.0), (threshold,)).held(step)
        return held._replace(rectifies=held.rectifies and value == 0)

    return Rule(read)


def _prelu(step: Step) -> Rule:
    return Rule(lambda weight: gates.prelu(weight, step))


def _secant(*_: Any, **__: Any) -> Held:
    return gates.secant()


def _gelu(approximate: str = "none") -> Held:
    return gates.gated(gates.tanh_normal_gate if approximate == "tanh" else gates.normal_gate)


def _sigmoid(*_: Any) -> Held:
    return gates.secant(gate=True)


def _pow(exponent: Any) -> Held | None:
    if isinstance(exponent, Tensor) or exponent != int(exponent) or exponent < 1:
        return None  # no secant from 0
    return gates.secant()


def _glu(dim: int = -1) -> Held:
    """``a * sigmoid(b)``, whose sigmoid is held."""

    def pull(context: Context, grad: Tensor, x: Tensor) -> Tensor:
        pulled = grad * x.chunk(2, dim)[1].sigmoid()
        return torch.cat([pulled, torch.zeros_like(pulled)], dim)

    def push(context: Context, moved: tuple[Tensor, ...], x: Tensor) -> Tensor:
        return moved[0].chunk(2, dim)[0] * x.chunk(2, dim)[1].sigmoid()

    return Held(pull, softens=False, push=push)


# --- windows ---


def _max_pool(differentiated: bool) -> Rule:
    def read(
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | bool | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
        *,
        dimensions: int,
        adaptive: bool,
    ) -> Held:
        if adaptive:  # the arguments are others: sizes of the output
            return max_pool(AdaptiveWindows(dimensions), differentiated=differentiated)
        kernel = per_axis(kernel_size, dimensions)
        strided = stride is not None and stride != () and stride != []
        windows = Windows(
            kernel,
            per_axis(stride, dimensions) if strided else kernel,  # type: ignore[arg-type]
            per_axis(padding, dimensions),
            per_axis(dilation, dimensions),
        )
        return max_pool(windows, differentiated=differentiated)

    return Rule(read, group="pool")


# --- the rows ---


def _taken_apart(*_: Any, **__: Any) -> Held | None:
    """For products, which the mode takes apart: a factor that is a gate is held."""
    return None


_SECANT = Rule(_secant)
_SIGNED_GATE = Rule(lambda *_, **__: gates.secant(signed_gate=True))

READINGS: dict[str, dict[str, Rule]] = {
    "relu": {"logistic": _relu(step), "normal": _relu(step_normal)},
    "relu6": {
        "derivative": _capped("derivative"),
        "held": _capped("held"),
        "excited": _capped("excited"),
        "normal": _capped("derivative", step_normal),
    },
    "leaky_relu": {"logistic": _leaky_relu(step), "normal": _leaky_relu(step_normal)},
    "prelu": {"logistic": _prelu(step), "normal": _prelu(step_normal)},
    "rrelu": {"logistic": _rrelu(step), "normal": _rrelu(step_normal)},
    "threshold": {"logistic": _threshold(step), "normal": _threshold(step_normal)},
    "max_pool": {"held": _max_pool(False), "differentiated": _max_pool(True)},
    "gelu": {"held": Rule(_gelu)},
    "silu": {"held": Rule(lambda *_, **__: gates.gated(gates.sigmoid_gate))},
    "hardswish": {"held": Rule(lambda *_, **__: gates.gated(gates.hardswish_gate))},
    "sigmoid": {"held": Rule(_sigmoid)},
    "tanh": {"held": _SIGNED_GATE},
    "erf": {"held": _SIGNED_GATE},
    "hardsigmoid": {"held": Rule(lambda *_, **__: gates.secant(gate=True))},
    "glu": {"held": Rule(_glu)},
    "pow": {"held": Rule(_pow)},
    "layer_norm": {"held": Rule(norms.layer_norm)},
    "rms_norm": {"held": Rule(norms.rms_norm)},
    "group_norm": {"held": Rule(norms.group_norm)},
    "instance_norm": {"held": Rule(norms.instance_norm)},
    "normalize": {"held": Rule(norms.normalize)},
    "local_response_norm": {"held": Rule(_taken_apart, inside=True)},
    "attention": {"held": Rule(attention.scaled_dot_product_attention, temperature=1.0)},
    "product": {"shared": Rule(_taken_apart)},
    **{
        kind: {"held": _SECANT}
        for kind in (
            "abs", "asinh", "atan", "celu", "cos", "cosh", "elu", "exp", "exp2", "expm1",
            "hardshrink", "log1p", "logsigmoid", "mish", "selu", "sin", "sinh", "softplus",
            "softshrink", "softsign", "square", "tan", "tanhshrink",
        )
    },
}  # fmt: skip
"""For each kind of gate its readings by name, of which the first is the composites'; but for
ReLU6, of which `SEMANTIC` has the held one."""

_FAMILY = ("relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold", "max_pool")

EXCITATION = Composite(
    "EXCITATION", {kind: next(iter(READINGS[kind].values())) for kind in _FAMILY}
)
"""Rules for ReLU's family and max pools; all else keeps its derivative (arXiv 2507.22832 v1 to
v4, "excitation pullbacks")."""

SEMANTIC = Composite(
    "SEMANTIC",
    {
        **{kind: next(iter(readings.values())) for kind, readings in READINGS.items()},
        "relu6": READINGS["relu6"]["held"],
    },
)
"""Rules for every kind of gate (arXiv 2507.22832 v5 and v6, "semantic pullbacks")."""

_OURS = frozenset(id(rule) for readings in READINGS.values() for rule in readings.values())


def is_ours(rule: Rule) -> bool:
    """Whether a rule is one of `READINGS`, which say the same of calls with the same arguments."""
    return id(rule) in _OURS


def _named(name: str) -> Composite:
    return {"EXCITATION": EXCITATION, "SEMANTIC": SEMANTIC}[name]
