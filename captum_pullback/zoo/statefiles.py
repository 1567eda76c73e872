"""Files of weights as training scripts save them, and how they are fitted to a network."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_pullback.zoo.errors import ZooError

__all__ = ["fill", "load", "read_state"]

#: The names under which training scripts save a state dict, the likelier first.
WRAPPED = ("state_dict", "model_state_dict", "model", "model_state", "network", "net", "weights")
_MOST_NAMED = 3


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict in a file, alone or under one of the usual names.

    Args:
        path: A file written by ``torch.save``, or a ``.safetensors`` file.

    Raises:
        ZooError: There is no such file, or it contains no state dict.
    """
    saved = load(path)
    while isinstance(saved, Mapping):
        inner = next((n for n in WRAPPED if isinstance(saved.get(n), Mapping)), None)
        if inner is None:
            break
        saved = saved[inner]
    if not isinstance(saved, Mapping):
        raise ZooError(
            f"{path} contains no state dict of tensors, only an object of type "
            f"{type(saved).__name__}"
        )
    others = [
        key for key, value in saved.items()
        if not isinstance(value, Tensor) and not str(key).endswith("_extra_state")
    ]  # fmt: skip
    if others or not saved:
        held = f", only {', '.join(map(repr, others[:_MOST_NAMED]))}" if others else ": it is empty"
        raise ZooError(
            f"{path} contains no state dict of tensors{held}; save one with "
            "torch.save(model.state_dict(), FILE)"
        )
    return {str(key): value for key, value in saved.items()}


def load(path: str | Path) -> Any:
    """Load a file's contents, on the CPU; code in it is never run.

    Raises:
        ZooError: There is no such file, or it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ZooError(f"there is no file {str(path)!r}")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    try:
        # Tensors stay on the disk until they are used; not in what torch wrote before version 1.6.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch.load raises half a dozen unrelated types on a broken file
        raise ZooError(f"{path} {_unreadable(str(error))}") from error


def fill(model: nn.Module, path: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Load a file's state dict into a model, whole.

    Prefixes that wrappers put before all names are removed or added: ``module.`` of
    DataParallel, ``_orig_mod.`` of torch.compile, a LightningModule's attribute.

    Args:
        model: The model.
        path: The file.
        state: The contents of the file, if they have been read already.

    Raises:
        ZooError: It cannot be read, does not fit, or has NaN in it.
    """
    state = read_state(path) if state is None else state
    wanted = model.state_dict()
    # If no names match, the model may still handle it, as BatchNorm does.
    fitting = next((s for s in _candidates(state, wanted) if s.keys() == wanted.keys()), state)
    for key, value in fitting.items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.float().isnan().any():
            raise ZooError(f"{path} has NaN in {key}: the training diverged before it was saved")
    try:
        model.load_state_dict(fitting)
    except RuntimeError as error:
        raise ZooError(f"{path} does not fit: {_difference(fitting, wanted)}") from error


def _unreadable(reason: str) -> str:
    """Return why torch.load refused a file and what to do, but not its advice to run the file."""
    if "TorchScript" in reason:
        return "is a TorchScript archive; save the original model's state_dict() instead"
    held = re.search(r"(?:Unsupported global: GLOBAL|Unsupported class|GLOBAL) ([\w.]+)", reason)
    if held:
        return (
            f"contains a Python object, {held[1]}, not only tensors. Loading it would run code "
            "from the file: save the state dict alone, torch.save(model.state_dict(), FILE)"
        )
    return "is not a readable state dict: it is damaged, or torch.save did not write it"


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ZooError(f"{path} needs safetensors: pip install safetensors") from error
    try:
        state: dict[str, Tensor] = load_file(path)
    except Exception as error:  # SafetensorError has no useful base class
        raise ZooError(f"{path} is not a readable .safetensors file ({error})") from error
    return state


def _candidates(
    state: Mapping[str, Tensor], wanted: Mapping[str, Any]
) -> Iterator[Mapping[str, Tensor]]:
    """Yield the state dict as it is, and with a prefix removed or added."""
    yield state
    for prefix in _prefixes(state):
        yield {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    for prefix in _prefixes(wanted):
        yield {prefix + key: value for key, value in state.items()}


def _prefixes(state: Mapping[str, Any]) -> list[str]:
    """Return all beginnings of names that end in a dot, the shortest first."""
    found = {key[: place.end()] for key in state for place in re.finditer(r"\.", key)}
    return sorted(found, key=lambda prefix: (prefix.count("."), prefix))


def _difference(state: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> str:
    """Describe which names are missing, which are unknown, and which have another shape."""
    parts = []
    for keys, what in (
        ([key for key in wanted if key not in state], "missing"),
        ([key for key in state if key not in wanted], "not in the network"),
    ):
        if keys:
            more = ", ..." if len(keys) > _MOST_NAMED else ""
            parts.append(f"{len(keys)} {what} ({', '.join(keys[:_MOST_NAMED])}{more})")
    for key, value in state.items():
        shape = getattr(wanted.get(key), "shape", value.shape)
        if value.shape != shape:
            parts.append(f"{key} is {tuple(value.shape)}, but {tuple(shape)} in the network")
    return ", ".join(parts[: _MOST_NAMED + 2]) or "its tensors have other types"
