"""PyTorch's private names, each behind one of ours that says what it is for.

Nothing else in the package uses a name of PyTorch that begins with an underscore, but for the
operators below `torch.ops.aten`. `tests/test_torch_private.py` fails by name where one changes.
"""

from __future__ import annotations

import sys
import types
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

__all__ = [
    "FUNCTION_HOMES",
    "enter_mode",
    "has_batched_gradient",
    "input_shapes",
    "is_compiled_module",
    "is_in_checkpoint",
    "is_transformed",
    "is_view",
    "is_watched",
    "leave_mode",
    "mode_depth",
    "modes",
    "own",
    "saved_value",
    "unseen",
    "unwrapped",
    "version",
    "will_run",
    "without_override",
]


#: Where PyTorch keeps the functions that it shows to function modes.
FUNCTION_HOMES: tuple[Any, ...] = (
    torch.nn.functional,
    torch,
    Tensor,
    torch._C._nn,
    torch.special,
    torch.linalg,
)


# --- function modes: a stack that belongs to the thread ---


def mode_depth() -> int:
    """How many function modes this thread is in."""
    return torch._C._len_torch_function_stack()


def modes() -> list[TorchFunctionMode]:
    """The function modes that this thread is in, the outermost first."""
    return [torch._C._get_function_stack_at(index) for index in range(mode_depth())]


def enter_mode(mode: TorchFunctionMode) -> None:
    """Put a mode on top of the stack."""
    torch._C._push_on_torch_function_stack(mode)


def leave_mode(mode: TorchFunctionMode) -> bool:
    """Take a mode out of the stack, wherever in it it is; whether it was on top."""
    above: list[TorchFunctionMode] = []
    depth = mode_depth()
    if not any(found is mode for found in modes()):
        return False
    try:
        while (top := torch._C._pop_torch_function_stack()) is not mode:
            above.append(top)
    finally:
        # Also where Ctrl-C comes between two of these lines.
        while above and mode_depth() < depth - 1:
            torch._C._push_on_torch_function_stack(above.pop())
    return not above


def unseen() -> AbstractContextManager[Any]:
    """A block whose operations function modes are not shown, which would take its time."""
    return nullcontext() if torch.compiler.is_compiling() else torch._C.DisableTorchFunction()


def without_override(function: Any) -> Any:
    """A copy of one of PyTorch's functions that does not ask function modes whether to run.

    Its own operations are shown to them: so a function that is written in Python can be looked
    into.
    """
    quiet = dict.fromkeys(
        ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"),
        lambda *_: False,
    )
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **quiet},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


# --- who else is at work ---


def is_transformed() -> bool:
    """Whether `torch.func` or `torch.vmap` is at work."""
    return bool(torch._C._are_functorch_transforms_active())


def is_watched() -> bool:
    """Whether a compiler, `torch.func` or `torch.vmap` is at work."""
    return torch.compiler.is_compiling() or is_transformed()


def unwrapped(tensor: Tensor) -> Tensor:
    """The tensor that `torch.func` and `torch.vmap` have wrapped, which has the graph."""
    functorch: Any = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def has_batched_gradient(grad: Tensor) -> bool:
    """Whether a gradient is one of many that `is_grads_batched` takes at once."""
    functorch: Any = torch._C._functorch
    return bool(functorch.is_legacy_batchedtensor(grad))


def is_in_checkpoint() -> bool:
    """Whether this runs in a reentrant checkpoint, which hides gates from autograd for now."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    frame: types.FrameType | None = sys._getframe()
    while frame := frame.f_back if frame else None:
        if frame.f_code is CheckpointFunction.forward.__code__:
            return True
    return False


def is_compiled_module(module: torch.nn.Module) -> bool:
    """Whether calling this module runs a compiled graph."""
    compiled_in_place = getattr(module, "_compiled_call_impl", None) is not None
    return compiled_in_place or isinstance(module, torch._dynamo.OptimizedModule)


# --- autograd's graph ---


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
        plain = output.as_subclass(Tensor).detach()  # type: ignore[attr-defined]
        owned = torch.Tensor._make_subclass(type(output), plain)
    owned.__dict__.update(output.__dict__)
    return owned


def is_view(tensor: Tensor) -> bool:
    """Whether a tensor is a part of another one, or all of it in another shape."""
    return tensor._is_view()


def version(tensor: Tensor) -> int:
    """How often a tensor was written into; 0 where nobody counts."""
    return 0 if tensor.is_inference() else tensor._version


def will_run(node: Node | None) -> bool:
    """Whether the backward pass that is going on is going to run this node."""
    return node is not None and bool(torch._C._will_engine_execute_node(node))


def input_shapes(node: Node) -> list[tuple[torch.Size, torch.dtype]]:
    """Shapes and types of the gradients that come to a node."""
    return [
        (torch.Size(meta.shape), meta.dtype) for meta in getattr(node, "_input_metadata", ())
    ]

