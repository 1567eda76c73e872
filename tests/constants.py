"""What a network adds to what it makes of its input: the other way to find its bias."""

from __future__ import annotations

import torch
from random_weights import BATCH_NORMS
from torch import Tensor, nn

#: Words in the last part of a parameter's name, and tables of vectors, of which some are taken.
_ADDED = ("bias", "token", "pos_embed", "position_embeddings")
_TABLES = ("position_embeddings", "token_type_embeddings", "wpe")


def constants(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Parameters that are added to something, each with what is really added in its place.

    That is the parameter itself, except in BatchNorm, which also takes the mean away. What is added
    to an attention's logits is among them too: nothing comes back there. What is added to its
    weights is not: it is part of a gate.
    """
    shifts = {}
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            scale = module.weight / (module.running_var + module.eps).sqrt()
            shifts[module.bias] = module.bias - module.running_mean * scale
    pairs = []
    for name, parameter in model.named_parameters():
        *path, last = name.split(".")
        if any("talking_head" in part for part in path):
            continue
        if any(word in last for word in _ADDED) or (path[-1:] and path[-1] in _TABLES):
            pairs.append((parameter, shifts.get(parameter, parameter).detach()))
    return pairs


def contribution(output: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """What they add to an output: <its gradient, what is added>, summed over them all."""
    if not pairs:
        return torch.zeros_like(output)
    parameters = [parameter for parameter, _ in pairs]
    gradients = torch.autograd.grad(output, parameters, allow_unused=True, retain_graph=True)
    terms = [
        (gradient * added).sum()
        for gradient, (_, added) in zip(gradients, pairs, strict=True)
        if gradient is not None
    ]
    return torch.stack(terms).sum()
