"""How the inputs of a network are perturbed: from black to white in its own input space."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_pullback.perturbations import Perturbation, gaussian_noise, noise_squares
from captum_pullback.zoo.network import Network, pixel_bounds

__all__ = [
    "GAUSSIAN", "SENSITIVITY_RADIUS", "gaussian", "nearby", "noise_squares_of", "squares",
    "uniform_noise_of",
]  # fmt: skip

#: Of max-sensitivity's neighbors: the greatest change of a pixel, of the pixels' range.
SENSITIVITY_RADIUS = 0.02

# Standard deviation of the Gaussian perturbation, of the pixels' range. At 0.1 no method could be
# told from random noise on the reference networks; at 0.02 they can.
GAUSSIAN = 0.02


def noise_squares_of(network: Network) -> Perturbation:
    """`noise_squares` of pixels from black to white, in the network's input space."""
    black, white = pixel_bounds(network)
    return noise_squares(black.view(-1, 1, 1), white.view(-1, 1, 1))


def uniform_noise_of(network: Network) -> Perturbation:
    """Adds uniform noise within `SENSITIVITY_RADIUS` of the pixels' range."""
    radius = SENSITIVITY_RADIUS / torch.tensor(network.std).view(-1, 1, 1)

    def perturb(inputs: Tensor) -> Tensor:
        return inputs + ((torch.rand(inputs.shape) * 2 - 1) * radius).to(inputs)

    return perturb


def squares(network: Network, inputs: Tensor, count: int) -> Tensor:
    """Copies (count, C, H, W) of one input with a square of noise each, as `fit_temperature`'s."""
    return noise_squares_of(network)(inputs.repeat(count, 1, 1, 1))


def gaussian(network: Network, inputs: Tensor, count: int) -> Tensor:
    """Copies of one input with Gaussian noise of `GAUSSIAN` of the pixels' range."""
    deviation = GAUSSIAN / torch.tensor(network.std).view(-1, 1, 1)
    return gaussian_noise(deviation)(inputs.repeat(count, 1, 1, 1))


def nearby(network: Network, inputs: Tensor, count: int) -> Tensor:
    """Copies of one input with uniform noise within the radius of max-sensitivity."""
    return uniform_noise_of(network)(inputs.repeat(count, 1, 1, 1))
