"""Libraries that not everyone has installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["installed", "zennit"]


def installed(module: str, library: str, what: str) -> Any:
    """Import a module of a library.

    Args:
        module: The module.
        library: The library's name.
        what: What to give to ``pip install``.

    Raises:
        ValueError: The library is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f"{library} is not installed: pip install {what}") from error


def zennit(*parts: str) -> tuple[Any, ...]:
    """Import modules of zennit.

    Raises:
        ValueError: It is not installed.
    """
    return tuple(
        installed(f"zennit.{part}", "zennit", "'captum-pullback[rivals]'") for part in parts
    )
