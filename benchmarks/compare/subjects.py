"""What a method is given to explain: a network, its temperature, and copies made for a purpose."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

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
