"""A function mode that meets every operation of a thread, and runs the gates among them softly.

PyTorch shows a `TorchFunctionMode` each operation before it runs, whichever way it is spelled, in
the thread that entered the mode and in the backward passes that it starts. Which module runs, the
stack of Python frames tells: there are no hooks, so that none can be left behind.
"""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.overrides import TorchFunctionMode

from captum_pullback.engine import graph
from captum_pullback.engine._torch import (
    autocasts,
    enter_mode,
    is_in_checkpoint,
    is_watched,
    leave_mode,
    modes,
    notes,
    running_module,
    unwrapped,
    without_override,
)
from captum_pullback.engine.backward import Call, ForwardModeError, SofteningError, run
from captum_pullback.engine.choices import CHOICES, COMPARISONS, Masks
from captum_pullback.engine.lean import DETACHED, LEAN
from captum_pullback.engine.names import (
    NONLINEAR,
    PRODUCTS,
    TRAINING,
    Operation,
    Product,
    is_training,
    nonlinear_of,
    product_of,
    read_call,
    split_call,
    trains,
)
from captum_pullback.engine.pooling import values_of
from captum_pullback.engine.products import LOGITS, carries, find_factors, held_product, passing
from captum_pullback.engine.record import Entry, SofteningRecord, carries_something
from captum_pullback.engine.softness import Resolver
from captum_pullback.engine.spread import Spread, Temperature
from captum_pullback.engine.traced import find_traced_factors, mark_traced

__all__ = ["NAMES_ARE_LOST", "LeaveLeanError", "SofteningError", "SofteningMode", "innermost"]

NAMES_ARE_LOST = (
    "temperatures and rules per module need the modules' names, which a compiled graph has lost: "
    "use the original module, or one temperature for all"
)


class LeaveLeanError(RuntimeError):
    """The network takes gradients of its own in its forward pass, which lean operations lack."""


# The modes of the running context, so that tasks that take turns in one thread keep their own.
_active: contextvars.ContextVar[tuple[SofteningMode, ...]] = contextvars.ContextVar(
    "captum_pullback.modes", default=()
)


class SofteningMode(TorchFunctionMode):
    """Runs the gates of one thread softly.

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

    def __enter__(self) -> SofteningMode:
        _active.set((*_active.get(), self))
        enter_mode(self)
        return self

    def __exit__(self, *_: Any) -> None:
        active = _active.get()
        last = len(active) - 1 - active[::-1].index(self) if self in active else len(active)
        try:
            above = leave_mode(self)
            # Other tasks of this thread take turns with this one: what they enter is their own.
            theirs = [isinstance(m, SofteningMode) and m not in active for m in above]
            self.left_nested = all(theirs) and last >= len(active) - 1
        finally:
            _active.set(active[:last] + active[last + 1 :])

    def fork(self) -> SofteningMode:
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

    def require_gates(self, *, allow_idle: bool = False) -> None:
        """Raise if no gate was met, which would make every gradient a plain one."""
        if self.record.gates or self.record.was_traced or self.may_be_plain:
            return
        if allow_idle and self.record.gates_without_gradient:
            return
        raise SofteningError(self._nothing("ran inside soften()"))

    def _nothing(self, where: str) -> str:
        left = sorted({met.operation for met in self.record.left_hard} | self.record.kept)
        off = sorted({met.operation for met in self.record.off_the_way})
        return (
            f"nothing was softened: no gate that carries a gradient {where}, so this would be a "
            "plain gradient. "
            + (f"Gates that ran off the way to it: {', '.join(off)}. " if off else "")
            + (f"Nonlinearities without a rule ran: {', '.join(left)}. " if left else "")
            + "Run the forward pass inside the block, on inputs that require gradients, with a "
            "network whose gates are not inside scripted or traced code; or give rules for them."
        )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            output = self._dispatch(func, args, kwargs)
            mark_traced(func, args, kwargs, output)
            return output
        if func not in _KNOWN and func not in self.functions:
            return func(*args, **kwargs)
        if self not in _active.get():
            return func(*args, **kwargs)  # another task's turn in this thread
        return self._dispatch(func, args, kwargs)

    def _dispatch(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run an operation by what it is."""
        if func in _GRADIENTS:
            return self._run_gradient(func, args, kwargs)
        if not torch.compiler.is_compiling():
            if func in COMPARISONS:
                return self._compare(func, args, kwargs)
            if func in CHOICES:
                return self._choose(func, args, kwargs)
        operation = nonlinear_of(func)
        if operation is not None:
            return self._run_nonlinear(func, operation, args, kwargs)
        if func in self.functions:
            operation = Operation(getattr(func, "__name__", str(func)), func)
            return self._run_nonlinear(func, operation, args, kwargs)
        product = product_of(func)
        if product is not None:
            output = self._run_product(func, product, args, kwargs)
            if output is not NotImplemented:
                return output
            if self.lean and func not in LEAN and any(map(_is_parameter, args)):
                # Autograd keeps the other factor for a parameter's gradient.
                return func(*map(_detached, args), **kwargs)
        elif is_training(func) and trains(func, args, kwargs):
            output = func(*args, **kwargs)
            self._note_left(TRAINING[func].name, output, args)
            return output
        if self.lean and (func in LEAN or func in DETACHED):
            return self._run_lean(func, args, kwargs)
        return func(*args, **kwargs)

    # --- gates ---

    def _run_nonlinear(
        self,
        func: Callable[..., Any],
        operation: Operation,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        x, rest, named = split_call(args, kwargs)
        if not isinstance(x, Tensor):
            return func(*args, **kwargs)
        kind, given, keywords, inplace = read_call(operation, rest, named)
        module = self.module()
        rule, temperature = self.resolver(module, kind)
        held = None
        if rule is not None and not x.is_complex():  # of complex numbers no gate is known
            if rule.inside or func is _ATTENTION:
                return self._run_inside(func, args, kwargs)
            if self.lean:
                given = tuple(map(_detached, given))
                keywords = {key: _detached(value) for key, value in keywords.items()}
            held = rule.read(*given, **keywords)
        if held is None or rule is None:
            output = func(*args, **kwargs)
            self._note_left(operation.name, output, (x, *given, *keywords.values()))
            self._keep_logits(kind, output, x, given, keywords)
            return output
        if self.see is not None:
            self.see(module, operation.name, x.detach())
        if not (torch.is_grad_enabled() and (carries(x) or any(map(carries, held.others)))):
            self._note_idle(x)
            return func(*args, **kwargs)

        # A view of a pool of two dimensions, which may not be written to as it comes.
        finish = _cloned if "pool1d" in operation.name and is_watched() else _as_it_is

        def operation_(z: Tensor, *others: Any) -> Any:
            if not others:
                return finish(func(z, *rest, **named))
            news = {id(old): new for old, new in zip(held.others, others, strict=True)}
            given = (news.get(id(part), part) for part in rest)
            return func(z, *given, **{key: news.get(id(part), part) for key, part in named.items()})

        force = temperature if held.softens else None
        is_number = not isinstance(force, (Tensor, Spread))
        if held.hard and is_number and force == 0:
            return self._run_hard(func, operation.name, (x, *rest), named)
        if x.is_nested or x.layout != torch.strided:
            layout = "nested" if x.is_nested else str(x.layout)
            dense = "to_padded_tensor(0.0)" if x.is_nested else "to_dense()"
            raise SofteningError(
                f"{operation.name} got a {layout} tensor, which gates cannot be held of: give it a "
                f"dense one, x.{dense}, or keep its derivative by the rule {kind!r}: None"
            )
        if torch.compiler.is_compiling():
            return self._run_traced(operation.name, operation_, held, x, force, rule.group, inplace)
        if self.keep_copies and not inplace:
            x = x.clone()
        if isinstance(force, Tensor):
            force = force.to(x.device)
            if rule.group != "pool":
                self._check_shape(force, x, f"input of its {operation.name}")
        as_it_is = held.keeps_forward(force)
        entry = self.record.entry(
            module,
            operation.name,
            None if as_it_is else force,
            "held" if as_it_is else "softened",
        )
        call = Call(
            operation_, held, force, self.batch, self.once and inplace, entry,
            record=self.record, keeps_all=not self.lean,
        )  # fmt: skip
        output = run(call, x, inplace=inplace)
        if isinstance(force, Tensor) and rule.group == "pool":
            self._check_shape(force, values_of(output), f"output of its {operation.name}")
        return output

    def _run_hard(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A hard gate, whose derivative is its gate."""
        if torch.compiler.is_compiling():
            self.record.count_traced(name, 0.0)
            return func(*args, **kwargs)
        entry = self.record.entry(self.module(), name, 0.0, "softened")
        if self.lean and func in LEAN:
            output = self._run_lean(func, args, kwargs)
        elif innermost() is not None:
            # A softening around this one must not make it soft after all.
            with torch._C.DisableTorchFunction():
                output = func(*args, **kwargs)
        else:
            output = func(*args, **kwargs)
        self._count_backward(output, entry, args)
        return output

    def _run_traced(
        self,
        name: str,
        call: Callable[[Tensor], Any],
        held: Any,
        x: Tensor,
        temperature: Temperature | None,
        group: str,
        inplace: bool,
    ) -> Any:
        if self.resolver.needs_names:
            raise SofteningError(NAMES_ARE_LOST)
        self.record.count_traced(name, temperature if held.softens else "held")
        if held.softens and group in self.tensors:
            common, tensor = self.tensors[group]
            if temperature == common:
                temperature = tensor
        return run(Call(call, held, temperature, self.batch), x, inplace=inplace)

    def _run_inside(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run an operation that is written in Python, so that its own operations are met."""
        with self._entered():
            return _INSIDE[func](*args, **kwargs)

    @contextmanager
    def _entered(self) -> Iterator[None]:
        """A block in which this mode, in whose turn others are met first, is met again."""
        enter_mode(self)
        try:
            yield
        finally:
            leave_mode(self)

    # --- products ---

    def _run_product(
        self,
        func: Callable[..., Any],
        product: Product,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A product of what depends on the inputs; NotImplemented for any other."""
        if len(args) > 1 and product.factors == (0, 1) and _is_constant(args[1]):
            return NotImplemented
        if not torch.is_grad_enabled():
            return NotImplemented
        given = list(args)
        names = [name for name in ("other", "mat2", "tensor2", "weight", "vec2") if name in kwargs]
        if len(given) == 1 and names:
            kwargs = dict(kwargs)
            given.append(kwargs.pop(names[0]))
        if product.operands and len(given) == 2 and isinstance(given[1], (list, tuple)):
            given = [given[0], *given[1]]
        if torch.compiler.is_compiling():
            return self._run_traced_product(func, product, given, kwargs)
        if sum(map(carries, given)) < 2:
            return NotImplemented
        factors = find_factors(product, given)
        if factors is None:
            return NotImplemented
        path = self.module()
        is_attention = any(
            node is not None and graph.operation(node) == "Softmax"
            for node in factors.gates.values()
        )
        kind = "attention" if factors.held and is_attention else "product"
        rule, temperature = self.resolver(path, kind)
        if rule is None:
            output = func(*given, **kwargs)
            self._note_left(product.name, output, given)
            return output
        nodes = [factors.gates[place] for place in factors.held]
        softens = kind == "attention" and any(n is not None and LOGITS in notes(n) for n in nodes)
        entry = self.record.entry(
            path, product.name, temperature if softens else None, "softened" if softens else "held"
        )
        target = given[0] if product.inplace else None
        if target is not None and (not factors.held or 0 in factors.held):
            given[0] = target.clone()  # of which the other factors' gradients are made
        if not factors.held:
            share = 1 / len(factors.places)
            for place in factors.places:
                given[place] = passing(given[place], share, self.record)
            if target is None:
                output = func(*given, **kwargs)
            else:
                output = target.copy_(_OUT_OF_PLACE[func](*given, **kwargs))
            graph.mark_linear(output, given)
        elif target is not None and 0 in factors.held:
            output = target.copy_(
                held_product(
                    _OUT_OF_PLACE[func], given, kwargs, factors, temperature,
                    batch=self.batch, record=self.record, lean=self.lean,
                )
            )  # fmt: skip
        else:
            output = held_product(
                func, given, kwargs, factors, temperature,
                batch=self.batch, record=self.record, lean=self.lean,
            )  # fmt: skip
        self._count_backward(output, entry, given)
        return output

    def _run_traced_product(
        self,
        func: Callable[..., Any],
        product: Product,
        given: list[Any],
        kwargs: dict[str, Any],
    ) -> Any:
        factors = find_traced_factors(product, given)
        if factors is None:
            return NotImplemented
        is_attention = "softmax" in factors.gates.values()
        rule, temperature = self.resolver(
            "", "attention" if factors.held and is_attention else "product"
        )
        if rule is None:
            self.record.count_traced(product.name, None)
            return func(*given, **kwargs)
        if factors.held and is_attention and temperature != 1:
            # Not raised: Dynamo would take an error for a reason to run this part as it is.
            self.record.refuse_traced(
                "attention that is written out has the temperature 1 in a compiled graph: use "
                "the original module for another one"
            )
            return func(*given, **kwargs)
        self.record.count_traced(product.name, "held")
        target = given[0] if product.inplace else None
        for place in factors.held:
            given[place] = given[place].detach()
        if not factors.held:
            share = 1 / len(factors.places)
            for place in factors.places:
                given[place] = passing(given[place], share, self.record)
        if target is not None and (0 in factors.held or not factors.held):
            return target.copy_(_OUT_OF_PLACE[func](*given, **kwargs))
        return func(*given, **kwargs)

    def _keep_logits(
        self, kind: str, output: Any, x: Tensor, rest: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        """Keep a softmax's logits with its node, if attention has a temperature."""
        if kind != "softmax" or torch.compiler.is_compiling():
            return
        rule, temperature = self.resolver(self.module(), "attention")
        node = unwrapped(output).grad_fn
        if rule is None or node is None or temperature == 1:
            return
        dim = named["dim"] if "dim" in named else rest[0] if rest else -1
        notes(node)[LOGITS] = (x.detach(), dim)

    # --- choices by a mask ---

    def _compare(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        output = func(*args, **kwargs)
        if not torch.compiler.is_compiling():
            given = (*args, *kwargs.values())
            if any(map(carries, given)) or self.masks.any(given):
                self.masks.add(output)
        return output

    def _choose(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A choice, which is linear by a mask that does not depend on the inputs."""
        output = func(*args, **kwargs)
        name, place = CHOICES[func]
        mask = args[place] if len(args) > place else kwargs.get("mask", kwargs.get("condition"))
        if torch.compiler.is_compiling() or mask in self.masks:
            self._note_left(name, output, (*args, *kwargs.values()))
        else:
            graph.mark_linear(output, (*args, *kwargs.values()))
        return output

    # --- what is linear ---

    def _run_lean(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        x = args[0] if args else None
        if (
            type(x) is Tensor
            and x.requires_grad
            and torch.is_grad_enabled()
            and not autocasts(x)
            and not is_watched()
            and all(map(_is_fixed, args[1:]))
            and all(map(_is_fixed, kwargs.values()))
        ):
            if func in DETACHED:
                rest = tuple(map(_detached, args[1:]))
                return func(x, *rest, **{key: _detached(part) for key, part in kwargs.items()})
            held = LEAN[func](*args, **kwargs)
            if held is not None:
                rest = args[1:]
                return run(Call(lambda z: func(z, *rest, **kwargs), held), x)
        return func(*args, **kwargs)

    # --- gradients ---

    def _run_gradient(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        record = self.record
        if self.takes_gradient:  # of a part, by a checkpoint or a higher-order operation
            return self._run_backward(func, args, kwargs)
        if self.is_running:
            if self.lean:
                raise LeaveLeanError
            record.own_gradients += 1
            try:
                return self._run_backward(func, args, kwargs)
            finally:
                record.own_gradients -= 1
        if record.refused:
            raise SofteningError(record.refused)
        outputs, inputs = _ends(func, args, kwargs)
        if self.keep_graph and func is torch.autograd.grad:
            kwargs = {**kwargs, "retain_graph": True}
        check = not self.differentiates_gradients and any(
            not isinstance(part, nn.Parameter) for part in inputs or outputs
        )
        if check and not record.will_run_again:
            self._look(outputs, inputs)
        record.ran = False
        self.takes_gradient = True
        try:
            result = self._run_backward(func, args, kwargs)
        finally:
            self.takes_gradient = False
        record.will_run_again, record.has_gradient = False, True
        # A gradient of this gradient goes another way, on which nothing is met.
        self.differentiates_gradients |= _creates_graph(func, args, kwargs)
        if check and not (record.ran or record.was_traced):
            self._refuse_plain(outputs, inputs, result)
        return result

    def _run_backward(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Take a gradient. Checkpointing runs forward passes in backward passes: hold there."""
        with self._entered():
            return _GRADIENTS[func](*args, **kwargs)

    def _refuse_plain(
        self, outputs: list[Tensor], inputs: list[Tensor] | None, result: Any
    ) -> None:
        """Raise for a gradient on whose way nothing was softened, unless it is right."""
        if self.may_be_plain:
            return
        if result is not None and not any(map(carries_something, _tensors(result))):
            return  # of what is cut off; as it is
        if inputs is not None and not any(
            graph.way_between(outputs, part).reached for part in inputs
        ):
            return  # there is no gradient at all
        if self.tolerates_linear and not self.record.will_run_again:
            nodes = graph.nonlinear_between(outputs, inputs, also_seen=True)
            if next(nodes, None) is None:
                return  # of what is linear the gradient is the pullback
        raise SofteningError(self._nothing("lies on the way to what is attributed to"))

    def _look(self, outputs: list[Tensor], inputs: list[Tensor] | None) -> None:
        """See what lies between outputs and inputs, before the gradient is taken."""
        for output in outputs[:1]:  # parts of one
            call = None if self.holds_output else graph.output_gate(output)
            if call is not None:
                call.derivative = True  # the network's output is no gate
        if not self.lean:
            for node, name in graph.nonlinear_between(outputs, inputs):
                if name == "compiled_function" and self.record.was_traced:
                    continue
                self.record.note_unseen(name, node._sequence_nr())
        elif inputs is not None and len(inputs) > 1 and not self.record.was_traced:
            for number, part in enumerate(inputs):
                ways = graph.way_between(outputs, part)
                if ways.reached and not ways.gates:
                    raise SofteningError(
                        f"nothing was softened on the way to part {number} of inputs: no gate "
                        "lies between it and the output, so its share would be a plain gradient. "
                        "Pass it in additional_forward_args, or attribute to it with "
                        "captum.attr.Saliency"
                    )

    # --- the record ---

    def _note_left(self, name: str, output: Any, inputs: Any) -> None:
        if torch.compiler.is_compiling():
            self.record.count_traced(name, None)
            return
        first = values_of(output)
        if not (isinstance(first, Tensor) and carries(first)):
            return
        entry = self.record.entry(self.module(), name, None, "derivative kept")
        if not self.lean:
            self._count_backward(output, entry, inputs)

    def _note_idle(self, x: Tensor) -> None:
        _refuse_forward_mode(x)
        self.record.gates_without_gradient = True
        self.record.will_run_again |= is_in_checkpoint()

    def _count_backward(self, output: Any, entry: Entry, inputs: Any) -> None:
        """Let the record know when the backward pass has come to what was computed."""
        first = values_of(output)
        node = unwrapped(first).grad_fn if isinstance(first, Tensor) else None
        if node is None or torch.compiler.is_compiling():
            return
        if not self.lean:
            graph.mark_seen(first, inputs)
        graph.mark_gate(node, entry.done)
        call = _Counted()

        def note(grads: Any) -> None:
            grad = next((grad for grad in grads if grad is not None), None)
            if grad is not None:
                entry.note(call, entry.temperature, grad)

        node.register_prehook(note)

    def _check_shape(self, temperature: Tensor, tensor: Tensor, what: str) -> None:
        try:
            shape = torch.broadcast_shapes(temperature.shape, tensor.shape)  # type: ignore[no-untyped-call]
            fits = shape == tensor.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"the temperature of shape {tuple(temperature.shape)} for {self.module()!r} does "
                f"not broadcast against the {what}, {tuple(tensor.shape)}"
            )


class _Counted:
    """A call of which nothing needs to be known but whether it has been counted."""

    counted = False


def _refuse_forward_mode(x: Any) -> None:
    """Raise for a derivative that is taken forward, with the pass itself."""
    if not isinstance(x, Tensor) or torch.compiler.is_compiling():
        return
    if unpack_dual(x).tangent is not None:  # type: ignore[no-untyped-call]
        raise ForwardModeError


def _as_it_is(output: Any) -> Any:
    return output


def _cloned(output: Any) -> Any:
    return (output[0].clone(), *output[1:]) if isinstance(output, tuple) else output.clone()


def _is_constant(factor: Any) -> bool:
    return type(factor) is nn.Parameter or not isinstance(factor, (Tensor, list, tuple))


def _is_parameter(argument: Any) -> bool:
    return type(argument) is nn.Parameter


def _detached(argument: Any) -> Any:
    """A parameter without its gradient; anything else as it is."""
    return argument.detach() if isinstance(argument, nn.Parameter) else argument


def _is_fixed(argument: Any) -> bool:
    """Whether no gradient with respect to inputs can pass through this argument."""
    if not isinstance(argument, Tensor) or not argument.requires_grad:
        return True
    # What isinstance asks of parameters takes longer.
    return type(argument) is nn.Parameter or isinstance(argument, nn.Parameter)


def _ends(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Tensor], list[Tensor] | None]:
    """What a gradient is taken of, and with respect to what; None for all leaves."""
    outputs = args[0] if args else kwargs.get("outputs", kwargs.get("tensors"))
    if func is torch.autograd.grad:
        inputs = args[1] if len(args) > 1 else kwargs["inputs"]
    else:
        place = 4 if func is Tensor.backward else 5
        inputs = args[place] if len(args) > place else kwargs.get("inputs")
    given = None if inputs is None else _tensors(inputs)
    return _tensors(outputs), given


def _creates_graph(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    place = 4 if func is torch.autograd.grad else 3
    return bool(args[place] if len(args) > place else kwargs.get("create_graph"))


def _tensors(given: Any) -> list[Tensor]:
    parts = [given] if isinstance(given, Tensor) else list(given or ())
    return [part for part in parts if isinstance(part, Tensor)]


def innermost() -> SofteningMode | None:
    """The softening that this thread is in, if it is in any."""
    found = [mode for mode in modes() if isinstance(mode, SofteningMode)]
    return found[-1] if found else None


_GRADIENTS: dict[Any, Any] = {
    function: without_override(function)
    for function in (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
}

_ATTENTION = F.multi_head_attention_forward
# Operations that are written in Python, and looked into.
_INSIDE: dict[Any, Any] = {
    function: without_override(function) for function in (_ATTENTION, F.local_response_norm)
}

# What works in place, and the same where it does not.
_OUT_OF_PLACE: dict[Any, Any] = {
    **{
        getattr(Tensor, f"{name}_"): getattr(torch, name)
        for name in ("mul", "multiply", "div", "divide", "true_divide", "addcmul", "addcdiv",
                     "addmm", "addbmm", "baddbmm", "addmv", "addr")
    },
    Tensor.__imul__: torch.mul,
    Tensor.__itruediv__: torch.div,
}  # fmt: skip

# A dict, since Dynamo in torch 2.8 does not look into sets of functions.
_KNOWN = dict.fromkeys(
    (*NONLINEAR, *PRODUCTS, *TRAINING, *LEAN, *DETACHED, *COMPARISONS, *CHOICES, *_GRADIENTS)
)
