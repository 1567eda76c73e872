"""Autograd's operations: their names, and which of them are linear.

Lists of what *is* linear, not of what is not: an operation that nobody thought of is named, not
passed over.
"""

from __future__ import annotations

import re

from torch.autograd.graph import Node

__all__ = [
    "BATCH_NORM", "CONSTANT", "FACTORS", "LINEAR", "PIECEWISE", "named", "operation", "readable",
]  # fmt: skip


def named(text: str) -> frozenset[str]:
    """A set of names that stand in one text."""
    return frozenset(text.split())


# Linear in all of their inputs together.
LINEAR = named(
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
PIECEWISE = named(
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
CONSTANT = named(
    """
    Div GridSampler2D GridSampler3D GridSampler2DCudnn Lerp PreluKernel Prelu
    """
)

BATCH_NORM = frozenset(("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"))

_NAME = re.compile(r"^(?:.*::)?(.*?)(?:Backward(?:AutogradNestedTensor)?\d*)?$")
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

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
