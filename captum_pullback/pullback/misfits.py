"""Errors of targets, units and layers that do not fit the network: what came, and what to do.

Captum raises them after the forward pass, in its own words; here each cause gets its advice. What
Captum said stays, as the error's cause, and so does the type of the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["selector_misfit", "target_misfit"]

_NEVER_RAN = "hook did not obtain"  # so begins what Captum says
_UNBATCHED = "pass inputs.unsqueeze(0)"


def target_misfit(
    error: Exception, output: Any, inputs: tuple[Tensor, ...], layer: nn.Module | None = None
) -> Exception:
    """The error of a target that does not fit the output.

    Args:
        error: Captum's.
        output: What the network returned.
        inputs: What it was given.
        layer: The layer that was attributed to, if any.

    Returns:
        An error of the same type; of an AttributeError, a TypeError.
    """
    kind = TypeError if isinstance(error, AttributeError) else type(error)
    if layer is not None and _NEVER_RAN in str(error):
        return kind(_never_ran(layer))
    if not isinstance(output, Tensor):
        return kind(_no_tensor(output))
    if not output.dim():
        return kind(
            "the output is one number for the whole batch, of shape (): return one for each "
            "example, summed over all dimensions but the first, as in .flatten(1).sum(1), and "
            "give target=None"
        )
    came = f"the output has shape {tuple(output.shape)}, the inputs {tuple(inputs[0].shape)}"
    return kind(f"the target does not fit the output: {error} ({came}; {_advice(output, inputs)})")


def selector_misfit(
    error: Exception, output: Any, inputs: tuple[Tensor, ...], layer: nn.Module | None = None
) -> Exception:
    """The error of a unit that does not fit the layer's output; arguments as for a target."""
    if layer is not None and _NEVER_RAN in str(error):
        return type(error)(_never_ran(layer))
    said = str(error)
    if "only for scalar outputs" in said:
        said = "it selects more than one number for each example"
    return type(error)(
        f"the neuron_selector does not fit the layer's output: {said} (give an int where the "
        "output has shape (N, units), a tuple with an index for each dimension after the first "
        "where it has more, or a callable that gives one number for each example; inputs without "
        f"a batch dimension need one: {_UNBATCHED})"
    )


def _advice(output: Tensor, inputs: tuple[Tensor, ...]) -> str:
    """Which targets an output of one dimension or more may take."""
    rows, examples = len(output), len(inputs[0]) if inputs[0].dim() else 1
    if output.dim() == 1:
        scores = f"if these are the scores of one example, it has no batch dimension: {_UNBATCHED}"
        alone = "one number for each example takes target=None; "
        return (alone if rows == examples else "") + scores
    many = f"one for each of the {rows} examples"
    if output.dim() == 2:
        advice = (
            f"give an index below {output.shape[1]}, or a list or tensor with {many}; "
            "target=None only for an output of one number for each example"
        )
    else:
        first = ", ".join("0" for _ in output.shape[1:])
        most = " and ".join(str(size) for size in output.shape[1:])
        advice = (
            f"give a tuple with an index for each dimension after the first, such as ({first}), "
            f"the indices below {most}; or a list of such tuples, {many}"
        )
    if rows != examples:
        advice += (
            f". These are {rows} rows for {examples} in the inputs: if the inputs have no batch "
            f"dimension, {_UNBATCHED}"
        )
    return advice


def _no_tensor(output: Any) -> str:
    """What is wrong with an output that is no tensor, and how to take one out of it."""
    came = f"forward_func returned a {type(output).__name__}, and must return a tensor"
    parts: list[str]
    if isinstance(output, Mapping):
        parts = [f"[{key!r}]" for key, value in output.items() if isinstance(value, Tensor)]
    elif hasattr(output, "_fields"):
        parts = [f".{name}" for name in output._fields if _is_tensor(output, name)]
    elif isinstance(output, tuple | list):
        parts = [f"[{place}]" for place, part in enumerate(output) if isinstance(part, Tensor)]
    else:
        parts = [f".{name}" for name in getattr(output, "__dict__", {}) if _is_tensor(output, name)]
    if not parts:
        return f"{came} that depends on its inputs: not None, a number, or an array"
    which = "its tensor is" if len(parts) == 1 else "choose one of its tensors,"
    return (
        f"{came}: {which} {', '.join(parts[:8])}{', ...' * (len(parts) > 8)}; wrap it, as "
        f"in lambda *args: model(*args){parts[0]}"
    )


def _is_tensor(output: Any, name: str) -> bool:
    return isinstance(getattr(output, name, None), Tensor)


def _never_ran(layer: nn.Module) -> str:
    kind = type(layer).__name__
    if type(layer).forward is nn.Module.forward:  # ModuleList, ModuleDict
        children = [name for name, _ in layer.named_children()]
        such = f", such as layer[{_key(layer, children[-1])}]" if children else ""
        return f"a {kind} only holds modules, and is never called itself: use one of these{such}"
    return (
        f"the layer ({kind}) was not called in this forward pass: give a module whose output the "
        "network uses, and one that it calls itself (not its .forward, and not only its weights)"
    )


def _key(layer: nn.Module, name: str) -> str:
    return name if isinstance(layer, nn.ModuleList) else repr(name)
