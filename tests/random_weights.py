"""Parameters with which every part of a network has a say in its output.

Fresh networks have norms of weight 1 and bias 0, layer scales of 1e-6 and position biases of 0.02:
a mistake in how they are treated would not be seen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def randomize(
    model: nn.Module, example: Tensor | None = None, *, spread: float = 1.0, seed: int = 0
) -> nn.Module:
    """Give a model random parameters, in place, and float64, and put it into eval mode.

    Args:
        model: The network.
        example: A batch whose statistics BatchNorm is to have; needed where there is any.
        spread: How far the gates' inputs are to reach, about, where there are norms.
        seed: Of the random numbers.
    """
    model.eval().double().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        last = name.rsplit(".", 1)[-1]
        if "logit_scale" in name:
            continue  # Its size has a meaning of its own
        if p.squeeze().dim() <= 1:
            if "bias" in last or "token" in last:
                p.normal_(0, 0.3, generator=generator)
            else:
                p.uniform_(0.5 * spread, 1.5 * spread, generator=generator)
        elif any(word in last for word in ("pos", "token", "table", "biases")):
            p.normal_(0, 0.5, generator=generator)
        else:
            p.normal_(0, (1.5 / p[0].numel()) ** 0.5, generator=generator)
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    if norms:
        assert example is not None, "BatchNorm needs a batch to take its statistics from"
        with torch.no_grad():
            model(example)
    return model.eval().requires_grad_(True)


def pictures(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)
