"""Is a computation piecewise linear in its inputs? Read from the graph that autograd recorded.

A list of what is linear, not of what is not: an operation that nobody thought of is named, not
passed over. What two dependent factors make (``x * x``, attention) is no more linear than a GELU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import Node

from captum_pullback.engine.observer import Observer
from captum_pullback.engine.operations import DROPOUTS, SMOOTH, trains

__all__ = ["Graph", "RandomnessWatch"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Linear in all of their inputs together.
_LINEAR = _names(
    """
    AccumulateGrad AdaptiveAvgPool2D AdaptiveAvgPool3D Add AffineGridGenerator Alias AsStrided
    AvgPool2D AvgPool3D Broadcast Cat Clone Col2Im ConstantPadNd Copy CopySlices Cumsum
    Diagonal Expand Fill Flip Gather Im2Col Index IndexAdd IndexPut IndexSelect Identity Lift
    MaskedFill MaskedScatter MaskedSelect MaxUnpool2D MaxUnpool3D Mean Movedim Neg Permute
    PixelShuffle PixelUnshuffle ReduceAddCoalesced ReflectionPad1D ReflectionPad2D
    ReflectionPad3D Repeat ReplicationPad1D ReplicationPad2D ReplicationPad3D Reshape
    ReshapeAlias Roll Rot90 Rsub Scatter ScatterAdd Select SelectScatter Slice SliceScatter
    Split SplitWithSizes Squeeze Stack Sub Sum T ToCopy Trace Transpose Tril Triu Unbind Unfold
    UnsafeSplit UnsafeSplitWithSizes UnsafeView Unsqueeze UpsampleBicubic2D UpsampleBilinear2D
    UpsampleLinear1D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D
    UpsampleNearestExact1D UpsampleNearestExact2D UpsampleNearestExact3D UpsampleTrilinear3D
    View Zero
    """
)

# Piecewise linear in all of their inputs together: which piece holds may depend on any of them.
_PIECEWISE = _names(
    """
    Abs AdaptiveMaxPool2D AdaptiveMaxPool3D Amax Amin Clamp ClampMax ClampMin Fmax Fmin
    Hardshrink Hardsigmoid Hardtanh Kthvalue LeakyRelu Max MaxPool2DWithIndices
    MaxPool3DWithIndices Maximum Median Min Minimum MkldnnMaxPool2D MkldnnMaxPool3D Relu
    RreluWithNoise Softshrink Sort Threshold Topk Where _SoftGate _SoftMaxPool
    """
)

# Linear in each of these inputs alone: at most one of them may depend on the network's inputs.
_FACTORS = {
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
_FACTORS |= dict.fromkeys(("CudnnConvolution", "MkldnnConvolution", "SlowConv2D"), (0, 1))

# (Piecewise) linear in the first input, whatever the others are, if those are constant.
_CONSTANT = _names(
    """
    Div GridSampler2D GridSampler3D GridSampler2DCudnn Lerp PreluKernel Prelu _SoftPReLU
    """
)

_BATCH_NORM = frozenset(("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"))

# Of SMOOTH, what is piecewise linear all the same.
_CORNERED = frozenset(
    ("abs", "absolute", "amax", "amin", "hardshrink", "hardsigmoid", "max", "maximum", "min",
     "minimum", "softshrink")
)  # fmt: skip

_NAME = re.compile(r"^(?:.*::)?(.*?)(?:Backward(?:AutogradNestedTensor)?\d*)?$")
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Graph:
    """What autograd recorded between some inputs and an output.

    Args:
        output: What was computed, with a gradient.
        leaves: The inputs, leaves that require gradients.

    Attributes:
        nonlinear: What is not piecewise linear in the inputs, by PyTorch's names of it.
        couples: Whether examples of a batch see each other (BatchNorm in training mode).
        largest: Bytes of the largest tensor that was computed from the inputs.
    """

    def __init__(self, output: Tensor, leaves: Sequence[Tensor]) -> None:
        self.nonlinear: list[str] = []
        self.couples = False
        self.slices = False
        self.largest = max(leaf.numel() * leaf.element_size() for leaf in leaves)
        self._leaves = {id(leaf) for leaf in leaves}
        self._depends: dict[Node | None, bool] = {None: False}
        if output.grad_fn is not None:
            for node in self._inputs_first(output.grad_fn):
                self._visit(node)

    def _inputs_first(self, root: Node) -> list[Node]:
        order: list[Node] = []
        seen: set[Node] = set()
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack += [(child, False) for child, _ in node.next_functions if child is not None]
        return order

    def _visit(self, node: Node) -> None:
        variable = getattr(node, "variable", None)
        depends = [self._depends[child] for child, _ in node.next_functions]
        self._depends[node] = any(depends) or id(variable) in self._leaves
        if not any(depends):
            return
        for meta in getattr(node, "_input_metadata", ()):
            size = torch.Size(meta.shape).numel() * meta.dtype.itemsize
            self.largest = max(self.largest, size)
        name = operation(node)
        self.slices |= name == "CopySlices"
        if name in _BATCH_NORM:
            if any(depends[1:]):
                self._name("batch_norm with weights that depend on the inputs")
            if getattr(node, "_saved_training", True):
                self.couples = True
                self._name("BatchNorm in training mode")
        elif name in _FACTORS:
            if sum(depends[factor] for factor in _FACTORS[name] if factor < len(depends)) > 1:
                self._name(f"{_readable(name)} of two things that both depend on the inputs")
        elif name in _CONSTANT:
            if any(depends[1:]):
                self._name(f"{_readable(name)} by something that depends on the inputs")
        elif name not in _LINEAR and name not in _PIECEWISE:
            self._name(_readable(name))

    def _name(self, what: str) -> None:
        if what not in self.nonlinear:
            self.nonlinear.append(what)


def operation(node: Node) -> str:
    """PyTorch's name of the operation whose derivative this is: Relu for ReluBackward0."""
    found = _NAME.match(node.name())
    return found[1] if found else node.name()


def _readable(name: str) -> str:
    return _WORD.sub("_", name.strip("_")).lower()


class RandomnessWatch(Observer):
    """Notes what a graph does not tell: dropout, and nonlinearities that worked in place.

    Attributes:
        random: Operations that drew random numbers for the forward pass.
        smooth: Nonlinearities met, whether they depend on the inputs or not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.random: list[str] = []
        self.smooth: list[str] = []

    def observe(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Note what is random, and what is smooth."""
        if func in DROPOUTS:
            if trains(func, args, kwargs):
                self.random.append(f"{DROPOUTS[func].name} in training mode")
        elif func is F.rrelu and (args[3:4] == (True,) or kwargs.get("training")):
            self.random.append("rrelu in training mode")
        elif func in SMOOTH and SMOOTH[func] not in _CORNERED:
            self.smooth.append(SMOOTH[func])
