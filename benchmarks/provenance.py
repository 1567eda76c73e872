"""With what, and on what, something was measured."""

from __future__ import annotations

import hashlib
import os
import platform

import captum
import torch
import torchvision
from torch import nn

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


def checkpoint_hash(model: nn.Module) -> str:
    """The SHA-256 of a state dict's names, types, shapes and numbers, its first 16 digits."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
