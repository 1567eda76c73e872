"""Compression of the small networks' weights: kernels and matrices as int8."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor

from captum_pullback.zoo.hybrid import HybridNet
from captum_pullback.zoo.reference import ReferenceNet

__all__ = ["NETWORKS", "dequantize", "pack", "quantize", "unpack"]

#: The networks that a file may contain, by the name in the file.
NETWORKS: dict[str, type[ReferenceNet | HybridNet]] = {
    "ReferenceNet": ReferenceNet,
    "HybridNet": HybridNet,
}


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight to int8, with one scale for each output channel.

    Returns:
        ``(rounded, scale)``, of the shapes ``(out, ...)`` and ``(out,)``. No entry of
        ``dequantize(rounded, scale)`` is off by more than ``scale / 2``.
    """
    scale = weight.detach().float().flatten(1).abs().amax(1) / 127
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (weight.detach() / _per_output(scale, weight)).round().to(torch.int8), scale


def dequantize(rounded: Tensor, scale: Tensor) -> Tensor:
    """Return the float32 weight that ``quantize`` stands for."""
    return rounded.float() * _per_output(scale, rounded)


def pack(model: ReferenceNet | HybridNet) -> bytes:
    """Pack a network into bytes: its kernels and matrices as int8, all other state as it is."""
    state: dict[str, Any] = {}
    for key, value in model.state_dict().items():
        state[key] = quantize(value.contiguous()) if value.ndim > 1 else value
    buffer = io.BytesIO()
    torch.save(
        {"network": type(model).__name__, "settings": model.settings, "state": state}, buffer
    )
    return buffer.getvalue()


def unpack(data: bytes) -> ReferenceNet | HybridNet:
    """Unpack a network, in training mode."""
    saved = torch.load(io.BytesIO(data), weights_only=True)
    with torch.device("meta"):  # draws no random numbers for weights that are replaced
        model = NETWORKS[saved.get("network", "ReferenceNet")](**saved["settings"])
    state = {
        key: dequantize(*value) if isinstance(value, tuple) else value
        for key, value in saved["state"].items()
    }
    model.load_state_dict(state, assign=True)
    return model


def _per_output(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (weight.ndim - 1))
