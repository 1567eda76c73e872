"""What a method is given to explain: a network, its temperature, and copies made for a purpose."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

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
