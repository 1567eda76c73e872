"""Networks that the benchmarks use besides the embedded one and torchvision's."""

from __future__ import annotations

from pathlib import Path

from captum_pullback.zoo.networks import Network, read_network

WEIGHTS = Path(__file__).with_name("weights")


def hybrid() -> Network:
    """A hybrid with GELU, BatchNorm, LayerNorm, attention and squeeze-and-excitation."""
    return read_network(WEIGHTS / "hybrid.pt", "hybrid")


def without_batch_norm() -> Network:
    """The embedded network's twin that was trained without any normalization."""
    return read_network(WEIGHTS / "reference_no_bn.pt", "reference_no_bn")
