"""What a softening knows, and what it notes in its record."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_pullback.engine import graph
from captum_pullback.engine._torch import enter_mode, leave_mode, modes, running_module, unwrapped
from captum_pullback.engine.errors import SofteningError
from captum_pullback.engine.graph import Masks
from captum_pullback.engine.products import carries
from captum_pullback.engine.record import Entry, SofteningRecord
from captum_pullback.engine.rules.pooling import values_of
from captum_pullback.engine.softness import Resolver

__all__ = ["State", "count_backward", "detached", "innermost", "note_left"]


class State(TorchFunctionMode):
    """What a softening knows, for as long as it lasts.

    Attributes:
        record: What was done.
        lean: Whether no gradient with respect to parameters is going to be asked for.
        keep_copies: Whether gates keep copies of their inputs, which the network changes.
        keep_graph: Whether several gradients are taken of one forward pass.
        batch: The number of examples, where it is known.
        see: Shown the input of each gate before it runs.
        names: Names of modules, by `module_key`, where the record or the rules need them.
        may_be_plain: Whether a gradient may meet nothing that is softened or held.
        holds_output: Whether a gate that is the network's output is held, too.
        running: How deep in the network's own forward pass this is.
        takes_gradient: Whether a gradient is being taken that is not the network's own.
        thread: The thread that entered the block.
        gates: What is held of gates that were met, by their calls' other arguments; None where
            that also depends on the module, or is to be seen.
    """

    def __init__(self, resolver: Resolver) -> None:
        super().__init__()
        self.resolver = resolver
        self.record = SofteningRecord()
        self.lean = False
        self.keep_copies = False
        self.keep_graph = False
        self.once = False
        self.batch: int | None = None
        self.see: Callable[[str, str, Tensor], None] | None = None
        # No modules themselves: Dynamo would take them for parts of the mode.
        self.names: dict[int, str] = {}
        self.running = 0
        self.takes_gradient = False
        self.thread = 0
        self.gates: dict[Any, Any] | None = None
        self.left_nested = True
        self.differentiates_gradients = False
        self.tolerates_linear = False
        self.masks = Masks()
        self.may_be_plain = False
        self.holds_output = False
        self.functions = resolver.rules.functions
        # For compiled graphs, which have no names, and which take a new temperature without a
        # new trace if it is a tensor.
        self.tensors: dict[str, tuple[float, Tensor]] = {}
        if not resolver.needs_names:
            for group, given in (("gate", resolver.temperatures), ("pool", resolver.pools)):
                common = given.common
                if isinstance(common, float):
                    self.tensors[group] = common, torch.tensor(common, dtype=torch.float64)

    def fork(self) -> State:
        """The same softening for another thread that runs a share of this forward pass."""
        return copy.copy(self)

    def module(self) -> str:
        """The name of the module that is running; "" for the model itself, and what is none."""
        if torch.compiler.is_compiling() or not self.names:
            return ""
        key = running_module(self.names)
        return "" if key is None else self.names[key]

    @property
    def is_running(self) -> bool:
        """Whether the network is in its forward pass."""
        return self.running > 0 or running_module(self.names) is not None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """A block in which this mode, in whose turn others are met first, is met again."""
        enter_mode(self)
        try:
            yield
        finally:
            leave_mode(self)

    def require_gates(self, *, allow_idle: bool = False) -> None:
        """Raise if no gate ran, since every gradient would then be a plain one."""
        if self.record.gates or self.record.was_traced or self.may_be_plain:
            return
        if allow_idle and self.record.gates_without_gradient:
            return
        raise SofteningError(self.nothing("ran inside soften()"))

    def turn(self, resolver: Resolver) -> bool:
        """Let the graph that was recorded have other temperatures in its backward passes.

        Returns:
            Whether it is the graph that would be recorded at these; if not, nothing is changed.
        """
        calls = self.record.calls
        if calls is None or self.record.was_traced or not self.resolver.records_as(resolver):
            return False
        for call, module, kind in calls:
            call.temperature = resolver(module, kind).temperature
        self.resolver = resolver
        # For what is run anew in a backward pass, by a checkpoint.
        self.gates = None if self.gates is None else {}
        return True

    def nothing(self, where: str) -> str:
        """What an error says where no gate was softened or held."""
        left = sorted({met.operation for met in self.record.left_hard} | self.record.kept)
        off = sorted({met.operation for met in self.record.off_the_way})
        return (
            f"nothing was softened: no gate that carries a gradient {where}, so this would be a "
            "plain gradient. "
            + (f"Gates that ran off this path: {', '.join(off)}. " if off else "")
            + (f"Nonlinearities without a rule ran: {', '.join(left)}. " if left else "")
            + "Run the forward pass inside the block, on inputs that require gradients, with a "
            "network whose gates are not inside scripted or traced code; or give rules for them."
        )


class _Counted:
    """A call of which nothing needs to be known but whether it has been counted."""

    counted = False


def note_left(state: State, name: str, output: Any, inputs: Any) -> None:
    """Note an operation that is not linear, and whose derivative is kept."""
    if torch.compiler.is_compiling():
        state.record.count_traced(name, None)
        return
    first = values_of(output)
    if not (isinstance(first, Tensor) and carries(first)):
        return
    entry = state.record.entry(state.module(), name, None, "derivative kept")
    if not state.lean:
        count_backward(state, output, entry, inputs)


def count_backward(state: State, output: Any, entry: Entry, inputs: Any) -> None:
    """Let the record know when the backward pass has come to what was computed."""
    first = values_of(output)
    node = unwrapped(first).grad_fn if isinstance(first, Tensor) else None
    if node is None or torch.compiler.is_compiling():
        return
    if not state.lean:
        graph.mark_seen(first, inputs)
    graph.mark_gate(node, entry.done)
    call = _Counted()

    def note(grads: Any) -> None:
        grad = next((grad for grad in grads if grad is not None), None)
        if grad is not None:
            entry.note(call, entry.temperature, grad)

    node.register_prehook(note)


def detached(argument: Any) -> Any:
    """A parameter without its gradient; anything else as it is."""
    # What isinstance asks of parameters takes longer.
    kind = type(argument)
    if kind is nn.Parameter or (kind is not type(None) and isinstance(argument, nn.Parameter)):
        return argument.detach()
    return argument


def innermost() -> State | None:
    """The softening that this thread is in, if it is in any."""
    found = [mode for mode in modes() if isinstance(mode, State)]
    return found[-1] if found else None
