"""With what, and on what, something was measured."""

from __future__ import annotations

import os
import platform

import captum
import torch
import torchvision

from captum_pullback import __version__


def device(name: str) -> str:
    """Return the device in words."""
    if name.startswith("cuda"):
        return torch.cuda.get_device_name(name)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Return the versions of everything that has a say in a number."""
    return {
        "captum_pullback": __version__,
        "captum": captum.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
    }
