"""Autograd's graph, and what tensors know of it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node


def notes(node: Node) -> dict[str, Any]:
    """What is kept with a node, for as long as it lives."""
    kept: Any = node.metadata  # a property, which the type hints take for a method
    return kept  # type: ignore[no-any-return]


def number_of(node: Node) -> int:
    """A number that no other node of this thread has."""
    return int(node._sequence_nr())


def saved_value(node: Node, name: str, default: Any = None) -> Any:
    """What a node keeps under a name, such as ``training`` of a BatchNorm."""
    return getattr(node, f"_saved_{name}", default)


def own(output: Any) -> Any:
    """A tensor that no other one is the base of, of the same memory and class.

    What an autograd function returns as a view may not be changed in place later on. Some
    operations return a view of a tensor of their own (one-dimensional pools), and subclasses of
    tensors do it always.
    """
    if not isinstance(output, Tensor) or not output._is_view():
        return output
    if type(output) is Tensor:
        return output.detach()
    with torch._C.DisableTorchFunctionSubclass():
        plain = output.as_subclass(Tensor).detach()
        owned = torch.Tensor._make_subclass(type(output), plain)
    owned.__dict__.update(output.__dict__)
    return owned


#: Hooks that take what is saved for a backward pass, if any do: then autograd checks no versions.
saved_tensor_hooks: Callable[[bool], Any] = torch._C._autograd._top_saved_tensors_default_hooks


def witness(tensor: Tensor) -> Tensor:
    """An empty tensor whose version is that of another one, also when that changes."""
    seen = tensor.detach()
    seen.data = tensor.new_empty(0)
    return seen


def autocasts(tensor: Tensor) -> bool:
    """Whether autocast is on for tensors like this one."""
    return not tensor.is_meta and torch.is_autocast_enabled(tensor.device.type)


#: Whether a tensor is a part of another one, or all of it in another shape.
is_view: Callable[[Tensor], bool] = Tensor._is_view

#: The tensor that a view is a part of.
base: Callable[[Tensor], Tensor] = operator.attrgetter("_base")


def version(tensor: Tensor) -> int:
    """How often a tensor was written into; 0 where nobody counts."""
    return 0 if tensor.is_inference() else tensor._version


def input_shapes(node: Node) -> list[tuple[torch.Size, torch.dtype]]:
    """Shapes and types of the gradients that come to a node."""
    return [(torch.Size(meta.shape), meta.dtype) for meta in getattr(node, "_input_metadata", ())]
