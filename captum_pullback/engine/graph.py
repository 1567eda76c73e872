"""Autograd's graph, read: what a tensor depends on, what is linear, and where gates are.

Lists of what *is* linear, not of what is not: an operation that nobody thought of is named, not
passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import Node

from captum_pullback.engine._torch import notes, saved_value, unwrapped

__all__ = [
    "CONSTANT",
    "FACTORS",
    "LINEAR",
    "PIECEWISE",
    "mark_seen",
    "nonlinear_between",
    "operation",
    "readable",
    "shares_a_leaf",
    "sources",
]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Linear in all of their inputs together.
LINEAR = _names(
    """
    AccumulateGrad AdaptiveAvgPool2D AdaptiveAvgPool3D Add AffineGridGenerator Alias AsStrided
    AvgPool2D AvgPool3D Broadcast Cat Clone Col2Im ConstantPadNd Copy CopyBackwards CopySlices
    Cumsum Detach Diagonal Expand Fill Flip Gather Gather Im2Col Index IndexAdd IndexPut
    IndexSelect Identity Lift MaskedFill MaskedScatter MaskedSelect MaxUnpool2D MaxUnpool3D Mean
    Movedim Neg Permute PixelShuffle PixelUnshuffle ReduceAddCoalesced ReflectionPad1D
    ReflectionPad2D ReflectionPad3D Repeat ReplicationPad1D ReplicationPad2D ReplicationPad3D
    Reshape ReshapeAlias Roll Rot90 Rsub Scatter ScatterAdd Select SelectScatter Slice
    SliceScatter Split SplitWithSizes Squeeze Stack Sub Sum T ToCopy Trace Transpose Tril Triu
    Unbind Unfold UnsafeSplit UnsafeSplitWithSizes UnsafeView Unsqueeze UpsampleBicubic2D
    UpsampleBicubic2DAa UpsampleBilinear2D UpsampleBilinear2DAa UpsampleLinear1D UpsampleNearest1D
    UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact1D UpsampleNearestExact2D
    UpsampleNearestExact3D UpsampleTrilinear3D View ViewAsComplex ViewAsReal Real Imag Conj Zero
    """
)

# Piecewise linear in all of their inputs together: which piece holds may depend on any of them.
PIECEWISE = _names(
    """
    Abs AdaptiveMaxPool2D AdaptiveMaxPool3D Amax Amin Clamp ClampMax ClampMin Cummax Cummin Fmax
    Fmin Hardshrink Hardsigmoid Hardtanh Kthvalue LeakyRelu Max MaxPool2DWithIndices
    MaxPool3DWithIndices Maximum Median Min Minimum MkldnnMaxPool2D MkldnnMaxPool3D Relu
    RreluWithNoise Softshrink Sort Threshold Topk Where
    """
)

# Linear in each of these inputs alone: at most one of them may depend on the network's inputs.
FACTORS = {
    "Addbmm": (1, 2),
    "Addcmul": (1, 2),
    "Addmm": (1, 2),
    "Addmv": (1, 2),
    "Addr": (1, 2),
    "Baddbmm": (1, 2),
    "Bmm": (0, 1),
    "Convolution": (0, 1),
    "Dot": (0, 1),
    "Linear": (0, 1),
    "Mm": (0, 1),
    "Mul": (0, 1),
    "Mv": (0, 1),
    "Outer": (0, 1),
}
FACTORS |= dict.fromkeys(("CudnnConvolution", "MkldnnConvolution", "SlowConv2D"), (0, 1))

# (Piecewise) linear in the first input, whatever the others are, if those are constant.
CONSTANT = _names(
    """
    Div GridSampler2D GridSampler3D GridSampler2DCudnn Lerp PreluKernel Prelu
    """
)

BATCH_NORM = frozenset(("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"))

# What is bounded or a statistic, and so a gate where it multiplies features.
_GATES = _names("Softmax Sigmoid Hardsigmoid Rsqrt Reciprocal Std Var Norm LinalgVectorNorm")
# Steps that are taken back from a factor in search of its gate.
_MOST_STEPS = 200

_NAME = re.compile(r"^(?:.*::)?(.*?)(?:Backward(?:AutogradNestedTensor)?\d*)?$")
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SOURCES, _SEEN = "captum_pullback.sources", "captum_pullback.seen"
_GATE, _LINEAR = "captum_pullback.gate", "captum_pullback.linear"

_operations: dict[str, str] = {}


def operation(node: Node) -> str:
    """PyTorch's name of the operation whose derivative this is: Relu for ReluBackward0."""
    name = node.name()
    found = _operations.get(name)
    if found is None:
        match = _NAME.match(name)
        found = _operations[name] = match[1] if match else name
    return found


def readable(name: str) -> str:
    """The name of an operation as functions have it: max_pool2d for MaxPool2D."""
    return _WORD.sub("_", name.strip("_")).lower()


def share(node: Node | None) -> float | None:
    """Which share of its gradient a factor passes on; None where that is nobody's doing."""
    held = getattr(getattr(node, "call", None), "held", None)
    return None if held is None else held.share


def _children(node: Node) -> list[Node]:
    """What a node passes gradients on to: a held gate to nothing."""
    if share(node) == 0:
        return []
    return [child for child, _ in node.next_functions if child is not None]


def walk(roots: Iterable[Node]) -> list[Node]:
    """All nodes, each after those that it passes gradients on to."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(root, False) for root in roots]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(child, False) for child in _children(node)]
    return order


# --- what a tensor depends on ---


def sources(tensor: Tensor) -> frozenset[int]:
    """The leaves that a tensor depends on, other than parameters; and what was embedded."""
    tensor = unwrapped(tensor)
    node = tensor.grad_fn
    if node is None:
        return _leaf(tensor) if tensor.requires_grad else frozenset()
    return _sources(node)


def _leaf(tensor: Tensor) -> frozenset[int]:
    return frozenset() if isinstance(tensor, nn.Parameter) else frozenset((id(tensor),))


def mark_source(tensor: Tensor) -> None:
    """Let a tensor be one of those that others depend on: what a layer gives, for one."""
    node = unwrapped(tensor).grad_fn
    if node is not None:
        notes(node)[_SOURCES] = frozenset((id(node),))


def _sources(root: Node) -> frozenset[int]:
    # Kept with the nodes themselves, which live as long as the graph and no longer.
    stack = [root]
    while stack:
        node = stack[-1]
        if _SOURCES in notes(node):
            stack.pop()
            continue
        children = _children(node)
        missing = [child for child in children if _SOURCES not in notes(child)]
        if missing:
            stack += missing
            continue
        notes(node)[_SOURCES] = _own_sources(node).union(
            *(notes(child)[_SOURCES] for child in children)
        )
        stack.pop()
    found: frozenset[int] = notes(root)[_SOURCES]
    return found


def _own_sources(node: Node) -> frozenset[int]:
    variable = getattr(node, "variable", None)
    if variable is not None:
        return _leaf(variable)
    return frozenset((id(node),)) if operation(node) == "Embedding" else frozenset()


def shares_a_leaf(factors: Sequence[Tensor]) -> bool:
    """Whether two of these tensors depend on one leaf that is no parameter."""
    met: frozenset[int] = frozenset()
    for factor in factors:
        found = sources(factor)
        if met & found:
            return True
        met |= found
    return False


# --- gates among factors ---


class _Step(NamedTuple):
    """A node on the way from a factor to its gate.

    Attributes:
        node: The node.
        added: Whether a constant was added behind it, as in 1 + tanh.
        mixed: Whether its entries were mixed with weights behind it, as heads are.
    """

    node: Node
    added: bool = False
    mixed: bool = False


def gate_of(root: Node) -> Node | None:
    """The softmax, sigmoid or statistic that a tensor is made of by linear steps alone.

    Only a softmax stays a gate where weights mix its entries; and tanh and erf, of both signs, are
    gates where a constant is added, as in GELU's ``1 + tanh(...)``.
    """
    found: Node | None = None
    stack = [_Step(root)]
    for _ in range(_MOST_STEPS):
        if not stack:
            return found
        node, added, mixed = stack.pop()
        name = operation(node)
        held = getattr(getattr(node, "call", None), "held", None)
        children = [child for child in _children(node) if _sources(child)]
        if _is_gate(node, name, held, added=added):
            if mixed and name != "Softmax":
                return None
            found = found or node
            continue
        if held is not None and held.share is None and not held.linear:
            return None
        if name == "Div":  # a denominator is held as it is
            children = children[:1]
        elif name in FACTORS or (held is not None and held.linear == "mixes"):
            if len(children) > 1:
                return None
            mixed = mixed or name != "Mul"
        elif held is None and name not in LINEAR and name not in ("ClampMin", "Clamp", "Sqrt"):
            return None
        if not children:
            return None
        if name in ("Add", "Sub", "Rsub"):
            added = added or len(children) == 1
        stack += [_Step(child, added, mixed) for child in children]
    return None


def _is_gate(node: Node, name: str, held: Any, *, added: bool) -> bool:
    if held is not None:
        return bool(held.gate or (added and held.signed_gate))
    if name == "Pow":
        return bool(saved_value(node, "exponent", 1) < 0)
    return name in _GATES or (added and name in ("Tanh", "Erf"))


def output_gate(output: Tensor) -> Any:
    """The call of the gate that an output is, up to steps that move it about; None if none."""
    node = unwrapped(output).grad_fn
    for _ in range(_MOST_STEPS):
        if node is None:
            return None
        held = getattr(getattr(node, "call", None), "held", None)
        if held is not None or operation(node) not in LINEAR:
            return getattr(node, "call", None) if held is not None and held.gate else None
        children = _children(node)
        node = children[0] if len(children) == 1 else None
    return None


# --- what lies between an output and what is attributed to ---


def mark_seen(output: Any, inputs: Iterable[Any]) -> None:
    """Note that what was just computed is in the record, however many nodes it takes."""
    _mark(output, inputs, _SEEN)


def mark_linear(output: Any, inputs: Iterable[Any]) -> None:
    """Note that what was just computed is linear, which its nodes do not tell."""
    _mark(output, inputs, _LINEAR)


def is_linear(node: Node) -> bool:
    """Whether a node was noted as linear."""
    return _LINEAR in notes(node)


def _mark(output: Any, inputs: Iterable[Any], what: str) -> None:
    if not isinstance(output, Tensor):
        return
    root = unwrapped(output).grad_fn
    given = {unwrapped(part).grad_fn for part in inputs if isinstance(part, Tensor)}
    stack = [] if root is None else [root]
    while stack:
        node = stack.pop()
        # A node of an input that was written to is the output's own.
        if node is not root and (node in given or hasattr(node, "call")):
            continue
        if what in notes(node):
            continue
        notes(node)[what] = True
        if root not in given:
            stack += _children(node)


def nonlinear_between(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor] | None, *, also_seen: bool = False
) -> Iterator[tuple[Node, str]]:
    """What is not linear on the way from outputs to inputs, as far as it has no rule.

    Args:
        outputs: Of which a gradient is taken.
        inputs: With respect to which; None for all leaves that are no parameters.
        also_seen: Whether to give also those that are in the record already.

    Yields:
        The nodes with the names of their operations.
    """
    for node, leads in _between(outputs, inputs):
        kept = notes(node)
        if hasattr(node, "call") or _LINEAR in kept or (not also_seen and _SEEN in kept):
            continue
        name = operation(node)
        if name in LINEAR or name == "Embedding":
            continue
        if name in BATCH_NORM:
            if saved_value(node, "training", True):
                yield node, "batch_norm in training mode"
        elif name in FACTORS:
            factors = [node.next_functions[place][0] for place in FACTORS[name]
                       if place < len(node.next_functions)]  # fmt: skip
            if sum(child in leads for child in factors) > 1:
                yield node, readable(name)
        elif name in CONSTANT:
            if any(child in leads for child, _ in node.next_functions[1:]):
                yield node, readable(name)
        else:
            yield node, readable(name)


def _between(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor] | None
) -> Iterator[tuple[Node, set[Node]]]:
    roots = [node for out in outputs if (node := unwrapped(out).grad_fn) is not None]
    targets = None if inputs is None else {id(part) for part in inputs}
    edges = None if inputs is None else {part.grad_fn for part in inputs if part.grad_fn}
    leads: set[Node] = set()
    for node in walk(roots):
        variable = getattr(node, "variable", None)
        if targets is None:
            reaches = bool(_sources(node))
        else:
            own = id(variable) in targets if variable is not None else node in (edges or ())
            reaches = own or any(child in leads for child in _children(node))
        if reaches:
            leads.add(node)
            # An input that is no leaf: what made it lies before it, not on the way.
            if edges is None or node not in edges:
                yield node, leads


class Way(NamedTuple):
    """Whether an output depends on an input, and whether gates lie between them."""

    reached: bool
    gates: bool


def way_between(outputs: Sequence[Tensor], part: Tensor) -> Way:
    """What lies between outputs and one of the inputs."""
    reached = gates = False
    for node, _ in _between(outputs, [part]):
        held = getattr(getattr(node, "call", None), "entry", None) is not None
        reached, gates = True, gates or held or _GATE in notes(node)
    return Way(reached, gates)


def mark_gate(node: Node, done: str) -> None:
    """Note that a node of PyTorch's own is a gate that is held, or hard as it was asked for."""
    notes(node)[_SEEN] = True
    if done != "derivative kept":
        notes(node)[_GATE] = True
