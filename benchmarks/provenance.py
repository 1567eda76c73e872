"""With what, and on what, something was measured; and how it is written down."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

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


def machine() -> dict[str, Any]:
    """Return what is known of the CPU and the system."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "instructions": instructions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }


def instructions() -> str:
    """Return the CPU's instructions that PyTorch uses, and what oneDNN was kept to."""
    found: str = torch.backends.cpu.get_cpu_capability()
    most = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return f"{found}, oneDNN at most {most}" if most else found


def versions() -> dict[str, str]:
    """Return the versions of everything that has a say in a number."""
    return {
        "captum_pullback": __version__,
        "captum": captum.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
    }


def command(program: str, args: Namespace, **instead: str | None) -> str:
    """Return the command that measures this again.

    Args:
        program: The module.
        args: All options, as they were parsed.
        instead: What stands for folders of this machine; None leaves an option out.
    """
    words = ["python", "-m", program]
    for key, value in (vars(args) | instead).items():
        option = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            words.append(f"--{option}")
            words += map(str, value if isinstance(value, (list, tuple)) else [value])
    return shlex.join(words)


def checkpoint_hash(model: nn.Module) -> str:
    """The SHA-256 of a state dict's names, types, shapes and numbers, its first 16 digits."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def write_json(path: Path, found: Any) -> None:
    """Write a result, in a folder that need not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
