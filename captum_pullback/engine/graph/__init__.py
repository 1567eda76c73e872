"""Autograd's graph, read: what a tensor depends on, what is linear, and where gates are."""

from captum_pullback.engine.graph.factors import gate_of, output_gate
from captum_pullback.engine.graph.masks import CHOICES, COMPARISONS, Masks
from captum_pullback.engine.graph.operations import (
    BATCH_NORM,
    CONSTANT,
    FACTORS,
    LINEAR,
    PIECEWISE,
    operation,
    readable,
)
from captum_pullback.engine.graph.sources import mark_source, shares_a_leaf, sources, walk
from captum_pullback.engine.graph.ways import (
    is_linear,
    mark_gate,
    mark_linear,
    mark_seen,
    nonlinear_between,
    way_between,
)

__all__ = [
    "BATCH_NORM", "CHOICES", "COMPARISONS", "CONSTANT", "FACTORS", "LINEAR", "PIECEWISE", "Masks",
    "gate_of", "is_linear", "mark_gate", "mark_linear", "mark_seen", "mark_source",
    "nonlinear_between", "operation", "output_gate", "readable", "shares_a_leaf", "sources", "walk",
    "way_between",
]  # fmt: skip
