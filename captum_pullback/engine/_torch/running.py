"""Which modules are running, and what else is at work: compilers, transforms, checkpoints."""

from __future__ import annotations

import operator
import sys
import types
from collections.abc import Callable, Container
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils.checkpoint import CheckpointFunction

#: The name under which what `torch.compile` made of a module has the module itself.
COMPILED = "_orig_mod"

#: What runs outside Python.
SCRIPTED = (torch.jit.ScriptModule, torch.jit.ScriptFunction, torch._C.ScriptMethod)

# The function that `torch.cond` gives Dynamo, in place of its operator.
_COND_WRAPPER = "_cond_op_wrapper"


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
