"""Random perturbations of inputs, for Captum's infidelity and max-sensitivity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

__all__ = ["forked_generators", "gaussian_noise", "noise_squares", "seeded"]

Perturbation = Callable[[Tensor], Tensor]


def forked_generators() -> AbstractContextManager[None]:
    """A block after which torch's generators, which a seed sets on all devices, are as before."""
    ready = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if ready else ()
    return torch.random.fork_rng(devices=devices)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block in which torch's generators begin with this seed; afterwards they are as before."""
    with forked_generators():
        torch.manual_seed(seed)
        yield


def noise_squares(low: Tensor, high: Tensor) -> Perturbation:
    """Fill a random square of each image with uniform noise.

    The squares have 1/2 and 1/4 of the image's side in turn, as the patches of 112 and 56 pixels
    of 224 in arXiv 2507.22832.

    Args:
        low: The darkest value of each channel in the network's input space, shape (C, 1, 1).
        high: The brightest one.

    Returns:
        A function from images (N, C, H, W) to perturbed copies. It draws from torch's CPU
        generator, whatever the device.
    """

    def perturb(inputs: Tensor) -> Tensor:
        inputs = inputs.detach().clone()
        height, width = inputs.shape[-2:]
        for number, example in enumerate(inputs):
            rows, columns = (max(1, side // (2, 4)[number % 2]) for side in (height, width))
            top = int(torch.randint(height - rows + 1, ()))
            left = int(torch.randint(width - columns + 1, ()))
            noise = low + (high - low) * torch.rand(len(example), rows, columns)
            example[:, top : top + rows, left : left + columns] = noise.to(example)
        return inputs

    return perturb


def gaussian_noise(deviation: float | Tensor) -> Perturbation:
    """Add Gaussian noise.

    Args:
        deviation: Its standard deviation, in units of the inputs; a tensor broadcasts against them.

    Returns:
        A function from inputs, of any shape, to perturbed copies. It draws from torch's CPU
        generator, whatever the device.
    """

    def perturb(inputs: Tensor) -> Tensor:
        return inputs + (torch.randn(inputs.shape) * deviation).to(inputs)

    return perturb
