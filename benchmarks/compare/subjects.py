"""What a method is given to explain: a network, its temperature, and copies made for a purpose."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from captum_pullback.perturbations import seeded
from captum_pullback.zoo.networks import Network


@dataclass(frozen=True)
class Subject:
    """A network with what the methods want to know of it.

    Attributes:
        network: In eval mode, on its device.
        temperature: The one that was fitted to it.
        layer: The module that Grad-CAM looks at, by name.
    """

    network: Network
    temperature: float
    layer: str

    @property
    def model(self) -> nn.Module:
        """The network's module."""
        return self.network.model

    def with_model(self, model: nn.Module) -> Subject:
        """The same, of another module."""
        return replace(self, network=replace(self.network, model=model))


def checkpoint_hash(model: nn.Module) -> str:
    """The SHA-256 of a state dict's names, types, shapes and numbers, its first 16 digits."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@torch.no_grad()
def last_feature_map(model: nn.Module, inputs: Tensor) -> str:
    """The module that ends last of those whose output (N, C, H, W) is still a map.

    Raises:
        ValueError: There is none.
    """
    last = [""]
    hooks = []
    for name, module in model.named_modules():

        def note(_: nn.Module, __: object, output: object, name: str = name) -> None:
            is_map = isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1
            if is_map:
                last[0] = name

        hooks.append(module.register_forward_hook(note))
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not last[0]:
        raise ValueError("no module of this network has a map (N, C, H, W) as its output")
    return last[0]


def with_own_relus(model: nn.Module) -> nn.Module:
    """A copy, traced by torch.fx, in which each ReLU is a module of its own, used once.

    DeepLift keeps state in the modules that it meets, so it cannot be used where one ReLU serves
    twice, as in ResNets, and it does not see functions.

    Raises:
        ValueError: torch.fx cannot trace the network.
    """
    try:
        traced = fx.symbolic_trace(copy.deepcopy(model))
    except Exception as error:  # whatever the network's own code raises on a symbolic value
        raise ValueError(f"torch.fx cannot trace it: {error}") from error
    functions = {torch.relu, nn.functional.relu, "relu", "relu_", torch.relu_}
    for number, node in enumerate(list(traced.graph.nodes)):
        is_module = node.op == "call_module" and isinstance(
            traced.get_submodule(node.target), nn.ReLU
        )
        is_call = node.op in ("call_function", "call_method") and node.target in functions
        if is_module or is_call:
            traced.add_submodule(f"own_relu_{number}", nn.ReLU())
            before = node.args[0] if node.args else node.kwargs["input"]
            with traced.graph.inserting_before(node):
                own = traced.graph.call_module(f"own_relu_{number}", (before,))
            node.replace_all_uses_with(own)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced.eval()


def stages(model: nn.Module) -> list[tuple[str, list[str]]]:
    """The parts of a network that are randomised one after the other, from the output back.

    They are the children with parameters, of which a normalisation belongs to the one before it;
    a `Sequential` of bare layers, like VGG's, counts by its own children.

    Returns:
        For each stage its name and the names of its modules.
    """
    parts: list[list[str]] = []
    for name, module in _children(model):
        if not list(module.parameters()):
            continue
        is_norm = isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm)
        if is_norm and parts:
            parts[-1].append(name)
        else:
            parts.append([name])
    return [(part[0], part) for part in reversed(parts)]


def _children(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_children():
        path = f"{prefix}{name}"
        has_leaves = any(list(child.parameters(recurse=False)) for child in module.children())
        if isinstance(module, nn.Sequential) and has_leaves:
            yield from _children(module, f"{path}.")
        else:
            yield path, module


def spread(parts: list[tuple[str, list[str]]], count: int) -> list[tuple[str, list[str]]]:
    """So many stages as evenly as can be, first and last included; each takes in those between."""
    if count >= len(parts):
        return parts
    ends = [round(k * (len(parts) - 1) / max(count - 1, 1)) for k in range(count)]
    begins = [0, *(end + 1 for end in ends[:-1])]
    return [
        (parts[end][0], [name for _, names in parts[begin : end + 1] for name in names])
        for begin, end in zip(begins, ends, strict=True)
    ]


@torch.no_grad()
def randomised(model: nn.Module, modules: list[str], seed: int) -> nn.Module:
    """A copy in which these modules are as if they had never been trained (their own initialisers).

    Raises:
        ValueError: A module with parameters of its own cannot be reset.
    """
    fresh = copy.deepcopy(model)
    with seeded(seed):
        for name in modules:
            for part in fresh.get_submodule(name).modules():
                own = list(part.parameters(recurse=False))
                if not own:
                    continue
                reset: Any = getattr(part.to("cpu"), "reset_parameters", None)
                if reset is None:
                    raise ValueError(f"{type(part).__name__} in {name} has no reset_parameters()")
                reset()  # the CPU's draws, whatever the device
    device = next(model.parameters()).device
    return fresh.to(device).eval()
