"""PyTorch's private names, each behind one of ours that says what it is for.

Nothing else in the package uses a name of PyTorch that begins with an underscore, but for the
operators below `torch.ops.aten`. `tests/test_torch_private.py` fails by name where one changes.
"""

from __future__ import annotations

import contextlib
import operator
import sys
import types
from collections.abc import Callable, Container
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

__all__ = [
    "COMPILED",
    "FUNCTION_HOMES",
    "SCRIPTED",
    "alive",
    "autocasts",
    "base",
    "children",
    "end_interrupted_calls",
    "enter_mode",
    "has_batched_gradient",
    "input_shapes",
    "is_compiled_module",
    "is_in_checkpoint",
    "is_traced_for_cond",
    "is_transformed",
    "is_view",
    "is_watched",
    "kernel",
    "leave_mode",
    "mode_depth",
    "modes",
    "module_key",
    "notes",
    "number_of",
    "own",
    "project_packed",
    "quiet",
    "restore_modes",
    "running_module",
    "saved_tensor_hooks",
    "saved_value",
    "undressed",
    "unseen",
    "unwrapped",
    "version",
    "without_override",
    "witness",
]

# The function that `torch.cond` gives Dynamo, in place of its operator.
_COND_WRAPPER = "_cond_op_wrapper"

#: Where PyTorch keeps the functions that it shows to function modes.
FUNCTION_HOMES: tuple[Any, ...] = (
    torch.nn.functional,
    torch,
    Tensor,
    torch._C._nn,
    torch.special,
    torch.linalg,
)


#: The name under which what `torch.compile` made of a module has the module itself.
COMPILED = "_orig_mod"

#: What runs outside Python.
SCRIPTED = (torch.jit.ScriptModule, torch.jit.ScriptFunction, torch._C.ScriptMethod)


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


def leave_mode(mode: TorchFunctionMode) -> list[TorchFunctionMode]:
    """Take a mode out of the stack, wherever in it it is; gives those that are above it."""
    found = modes()
    last = max((place for place, each in enumerate(found) if each is mode), default=len(found))
    above = found[last + 1 :]
    restore_modes([*found[:last], *above])
    return above


def restore_modes(wanted: list[TorchFunctionMode]) -> None:
    """Let the stack be this one: what differs from it is taken off, and what is missing put on."""
    same = 0
    for one, other in zip(modes(), wanted, strict=False):
        if one is not other:
            break
        same += 1
    while mode_depth() > same:
        torch._C._pop_torch_function_stack()
    for mode in wanted[same:]:
        torch._C._push_on_torch_function_stack(mode)


def end_interrupted_calls(error: BaseException) -> None:
    """End what would put modes back later, after Ctrl-C.

    PyTorch takes a mode off the stack while it handles a call, in a generator. Where Ctrl-C keeps
    that from being left, it goes on when the error's traceback is gone, after all blocks.
    """
    handle: Any = torch.overrides._pop_mode_temporarily
    handles = handle.__wrapped__.__code__
    traceback = error.__traceback__
    while traceback is not None:
        frame, traceback = traceback.tb_frame, traceback.tb_next
        if frame.f_code is _LEAVE:
            generator = frame.f_locals["self"].gen
            if generator.gi_code is handles and not generator.gi_running:
                generator.close()


_LEAVE = contextlib._GeneratorContextManager.__exit__.__code__


def unseen() -> AbstractContextManager[Any]:
    """A block whose operations function modes are not shown, which would take its time."""
    return nullcontext() if torch.compiler.is_compiling() else torch._C.DisableTorchFunction()


#: The same where no compiler is at work, without asking.
quiet: Callable[[], AbstractContextManager[Any]] = torch._C.DisableTorchFunction


#: How `multi_head_attention_forward` makes queries, keys and values of one weight.
project_packed: Callable[..., Any] = vars(torch.nn.functional)["_in_projection_packed"]


def without_override(function: Any, **replaced: Any) -> Any:
    """A copy of one of PyTorch's functions that does not ask function modes whether to run.

    Its own operations are shown to them: so a function that is written in Python can be looked
    into.

    Args:
        function: To be copied.
        replaced: What takes the place of functions that it calls, by name.
    """
    quiet = dict.fromkeys(
        ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"),
        lambda *_: False,
    )
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **quiet, **replaced},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


#: What an overload of an operator calls, in C++; no compiler can look at it.
kernel: Callable[[Any], Callable[..., Any]] = operator.attrgetter("_op")


# --- which modules are running ---


def running_module(known: Container[int]) -> int | None:
    """The key of the innermost module whose call this thread is in, of those that are known."""
    # No generator: where one that is not exhausted is closed, Python swallows Ctrl-C.
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CALL:
            key = module_key(frame.f_locals["self"])
            if key in known:
                return key
        frame = frame.f_back
    return None


_CALL = nn.Module._call_impl.__code__


#: A module's own modules, by name.
children: Callable[[nn.Module], dict[str, nn.Module | None]] = operator.attrgetter("_modules")


def module_key(module: nn.Module) -> int:
    """What a module has in common with its replicas on other devices, and with nothing else."""
    return id(module._forward_hooks)


# --- who else is at work ---


#: Whether `torch.func` or `torch.vmap` is at work.
is_transformed: Callable[[], bool] = torch._C._are_functorch_transforms_active


def is_watched() -> bool:
    """Whether a compiler, `torch.func` or `torch.vmap` is at work."""
    return torch.compiler.is_compiling() or is_transformed()


def unwrapped(tensor: Tensor) -> Tensor:
    """The tensor that `torch.func` and `torch.vmap` have wrapped, which has the graph."""
    functorch: Any = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


#: Whether a gradient is one of many that `is_grads_batched` takes at once.
has_batched_gradient: Callable[[Tensor], bool] = torch._C._functorch.is_legacy_batchedtensor

#: A tensor, or what is left of one of `torch.func`'s after its transform has ended.
alive: Callable[[Tensor], Tensor] = torch._C._functorch.unwrap_if_dead


def undressed(function: type[Function]) -> Callable[..., Any]:
    """An autograd function's own `apply`, for tensors that are `alive`, outside of `torch.func`.

    What `torch.autograd.Function.apply` does first, in Python, is of use to nobody else.
    """
    bare: Any = super(Function, function)
    apply: Callable[..., Any] = bare.apply
    return apply


def is_in_checkpoint() -> bool:
    """Whether this runs in a reentrant checkpoint, which hides gates from autograd for now."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    frame: types.FrameType | None = sys._getframe()
    while frame := frame.f_back if frame else None:
        if frame.f_code is CheckpointFunction.forward.__code__:
            return True
    return False


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def is_traced_for_cond() -> bool:
    """Whether Dynamo traces a `torch.cond` that runs as it is, outside of any compiled graph."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    return bool(InstructionTranslator.current_tx().output.root_tx.f_code.co_name == _COND_WRAPPER)


def is_compiled_module(module: torch.nn.Module) -> bool:
    """Whether calling this module runs a compiled graph."""
    compiled_in_place = getattr(module, "_compiled_call_impl", None) is not None
    # Not imported for this, which takes seconds: who has compiled something has imported it.
    compiler = sys.modules.get("torch._dynamo")
    return compiled_in_place or isinstance(module, getattr(compiler, "OptimizedModule", ()))


# --- autograd's graph ---


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
