"""What kind of model this is: its arguments, its modules and their names, compiled, scripted."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_pullback.engine._torch import COMPILED, SCRIPTED, children

__all__ = [
    "as_tuple",
    "leaves_of",
    "modules_of",
    "named_modules",
    "on_copies",
    "refuse_scripted",
    "replaced_method",
    "root_module",
    "wide_type",
    "widened",
]


def leaves_of(inputs: Tensor | tuple[Tensor, ...], *, integers: bool = False) -> tuple[Tensor, ...]:
    """The inputs as leaves of their own, which require gradients; ``integers`` stay as they are.

    Raises:
        TypeError: Something that is no tensor, or that can have no gradients.
    """
    tensors = as_tuple(inputs)
    for number, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"inputs must be a tensor or a tuple of tensors, but part {number} is "
                f"{type(tensor).__name__}"
            )
        if not integers and not _has_gradients(tensor):
            raise TypeError(
                f"inputs must be floating point to have gradients, but part {number} is "
                f"{tensor.dtype}: attribute to an embedding layer (LayerExcitationPullback), or "
                "pass it in additional_forward_args"
            )
        if tensor.is_inference():
            raise TypeError(
                f"part {number} of inputs was made in torch.inference_mode() and can have no "
                "gradients: pass inputs.clone()"
            )
    return tuple(t.detach().requires_grad_(_has_gradients(t)) for t in tensors)


def _has_gradients(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def as_tuple(given: Any) -> tuple[Any, ...]:
    """Arguments of a model as Captum takes them: a tuple of them, one alone, or None for none."""
    return given if isinstance(given, tuple) else () if given is None else (given,)


def on_copies(model: Callable[..., Any], inputs: Any, additional_forward_args: Any = None) -> Any:
    """What a model gives for copies of its inputs: one that works in place leaves these alone."""
    copies = (part.clone() for part in as_tuple(inputs))
    return model(*copies, *as_tuple(additional_forward_args))


def root_module(model: Callable[..., Any]) -> nn.Module | None:
    """The module that a model is, or is a method or a `functools.partial` of."""
    while isinstance(model, functools.partial):
        model = model.func
    if not isinstance(model, nn.Module):
        model = getattr(model, "__self__", model)
    return model if isinstance(model, nn.Module) else None


def named_modules(model: Callable[..., Any]) -> list[tuple[str, nn.Module]]:
    """The modules of a model by the names that they have in the original network.

    Args:
        model: A module, a method of one, or a `functools.partial` of these; any other callable
            has no modules that could be known.

    Returns:
        Pairs (name, module), parents first. What `torch.compile` and `torch.nn.DataParallel` put
        in front of names is left out, so that a wrapped network has the names of the bare one.
    """
    root = root_module(model)
    if root is None:
        return []
    modules = dict(root.named_modules())
    names: dict[str, str] = {"": ""}
    for raw in modules:
        if raw:
            parent, _, last = raw.rpartition(".")
            wraps = isinstance(modules[parent], nn.DataParallel) or last == COMPILED
            names[raw] = names[parent] if wraps else f"{names[parent]}.{last}".lstrip(".")
    return [(names[raw], module) for raw, module in modules.items()]


def wide_type(device: torch.device) -> torch.dtype:
    """The type in which sums are taken: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def widened(tensor: Tensor) -> Tensor:
    """A tensor without its history, in the `wide_type`."""
    return tensor.detach().to(wide_type(tensor.device))


def modules_of(model: Callable[..., Any]) -> list[nn.Module]:
    """The modules of a model, in no particular order; in less time than their names take."""
    root = root_module(model)
    found = {} if root is None else {root: None}
    stack = list(found)
    while stack:
        for child in children(stack.pop()).values():
            if child is not None and child not in found:
                found[child] = None
                stack.append(child)
    return list(found)


def refuse_scripted(model: Callable[..., Any], modules: list[nn.Module]) -> None:
    """Raise TypeError for what runs outside Python, where no gate can be met."""
    if isinstance(model, torch.export.ExportedProgram):
        raise TypeError("an ExportedProgram cannot be called: pass its .module()")
    if not callable(model):
        raise TypeError(f"model must be callable, not {type(model).__name__}")
    if _is_scripted(model) or any(issubclass(kind, SCRIPTED) for kind in set(map(type, modules))):
        named = named_modules(model)
        scripted = [name or "(model)" for name, module in named if _is_scripted(module)]
        raise TypeError(
            "scripted or traced code runs outside Python, where gates cannot be softened"
            + (f" (in {', '.join(scripted[:3])})" if scripted else "")
            + ": pass the original torch.nn.Module, or one exported by torch.export"
        )


def _is_scripted(model: object) -> bool:
    return isinstance(model, SCRIPTED)


_replacing = threading.Lock()


@contextmanager
def replaced_method(
    module: nn.Module, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Let ``module.name`` be ``wrap(module.name)`` for a while, however many threads ask at once.

    The first to come replaces it and the last to go restores it, so ``wrap`` must give a method
    that does the same for all of them.
    """
    with _replacing:
        replaced = module.__dict__.get(name)
        if not isinstance(replaced, _Replaced):
            replaced = _Replaced(wrap(getattr(module, name)), name in module.__dict__, replaced)
            module.__dict__[name] = replaced
        replaced.users += 1
    try:
        yield
    finally:
        with _replacing:
            replaced.users -= 1
            if not replaced.users:
                if replaced.was_own:
                    module.__dict__[name] = replaced.previous
                else:
                    del module.__dict__[name]


class _Replaced:
    def __init__(self, method: Callable[..., Any], was_own: bool, previous: Any) -> None:
        self.method, self.was_own, self.previous, self.users = method, was_own, previous, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.method(*args, **kwargs)
