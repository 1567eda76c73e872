"""Every way in which PyTorch spells an operation."""

from __future__ import annotations

from typing import Any

import torch

from captum_pullback.engine._torch import FUNCTION_HOMES

__all__ = ["spellings"]


def spellings(name: str) -> list[Any]:
    """Every callable that PyTorch shows a function mode for an operation of this name."""
    packet = getattr(torch.ops.aten, name, None)
    overloads = [
        getattr(packet, overload)
        for overload in (packet.overloads() if packet else [])
        if "out" not in overload
    ]
    found = [getattr(home, name) for home in FUNCTION_HOMES if hasattr(home, name)]
    return found + ([packet] if packet else []) + overloads
