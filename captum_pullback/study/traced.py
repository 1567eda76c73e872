"""Copies of networks in which every ReLU, and every sum, is a module that is used once."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

__all__ = ["norms_after", "with_own_relus"]

_RELUS = {torch.relu, torch.relu_, nn.functional.relu, nn.functional.relu_, "relu", "relu_"}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_SUMS = {operator.add, operator.iadd, torch.add, "add", "add_"}


class _Tracer(fx.Tracer):
    """Keeps convolutions that pad in their own way as modules, which rules of LRP look for."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)
        return own or super().is_leaf_module(m, module_qualified_name)


def with_own_relus(model: nn.Module, add: Callable[[], nn.Module] | None = None) -> fx.GraphModule:
    """A copy, traced by torch.fx, in which each ReLU is a module of its own, used once.

    Methods that hook modules do not see functions, and those that keep state in the modules that
    they meet cannot be used where one ReLU serves twice, as in ResNets.

    Args:
        model: The network.
        add: Makes modules that take two tensors, which then stand for their sums too.

    Raises:
        ValueError: torch.fx cannot trace the network.
    """
    try:
        tracer = _Tracer()
        graph = tracer.trace(copy.deepcopy(model))
    except Exception as error:  # whatever the network's own code raises on a symbolic value
        raise ValueError(f"torch.fx cannot trace it: {error}") from error
    traced = fx.GraphModule(tracer.root, graph)
    for number, node in enumerate(list(traced.graph.nodes)):
        is_module = node.op == "call_module" and isinstance(
            traced.get_submodule(node.target), nn.ReLU
        )
        is_call = node.op in ("call_function", "call_method")
        if is_module or (is_call and node.target in _RELUS):
            before = node.args[0] if node.args else node.kwargs["input"]
            _replace(traced, node, f"own_relu_{number}", nn.ReLU(), (before,))
        elif add is not None and is_call and node.target in _SUMS:
            nodes = [part for part in node.args if isinstance(part, fx.Node)]
            if len(nodes) == 2:  # neither a number nor None
                _replace(traced, node, f"own_sum_{number}", add(), tuple(nodes))
    traced.recompile()
    evaluated: fx.GraphModule = traced.eval()
    return evaluated


def norms_after(traced: fx.GraphModule) -> list[tuple[list[str], str]]:
    """Each BatchNorm that directly follows a linear module, with that module, by name."""
    found = []
    for node in traced.graph.nodes:
        if node.op != "call_module" or not isinstance(traced.get_submodule(node.target), _NORMS):
            continue
        before = node.args[0]
        is_linear = before.op == "call_module" and isinstance(
            traced.get_submodule(before.target), _LINEAR
        )
        if is_linear and len(before.users) == 1:
            found.append(([str(before.target)], str(node.target)))
    return found


def _replace(
    traced: fx.GraphModule, node: fx.Node, name: str, module: nn.Module, args: tuple[Any, ...]
) -> None:
    traced.add_submodule(name, module)
    with traced.graph.inserting_before(node):
        own = traced.graph.call_module(name, args)
    node.replace_all_uses_with(own)
    traced.graph.erase_node(node)
