"""Function modes, and the functions that PyTorch shows to them."""

from __future__ import annotations

import contextlib
import operator
import types
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

#: Where PyTorch keeps the functions that it shows to function modes.
FUNCTION_HOMES: tuple[Any, ...] = (
    torch.nn.functional,
    torch,
    Tensor,
    torch._C._nn,
    torch.special,
    torch.linalg,
)


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
