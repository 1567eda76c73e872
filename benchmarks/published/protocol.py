"""What arXiv 2507.22832 v6 measured, with what settings, and what it published.

What the paper states is under `STATED`. Where it leaves something open, `READ` says how it is read
here, and why; another reading gives other numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.compare import methods
from captum_pullback import SEMANTIC, ExcitationPullback, PullbackAscent
from captum_pullback.study import rivals
from captum_pullback.study.methods import Attribute, integrated
from captum_pullback.zoo.networks import Network

STATED = (
    "ImageNet's validation set, 1,000 photographs",
    "pixels in [-1, 1]",
    "gates of the normal distribution's cdf: ReLU at 0.6, SiLU at 1.6, GELU at 1.0, max pools at "
    "0.3, attention at 1.0",
    "an ascent of 5 steps of length 20 within 100",
    "infidelity at the best scale, on patches of 112 and of 56 pixels",
    "faithfulness correlation on patches of 56 pixels, set to 0",
    "Focus on mosaics of 2 x 2 photographs, two of them of the class: the share of positive input "
    "times attribution in these two",
)

READ = (
    "the class that is explained is the photograph's own",
    "weights are torchvision's IMAGENET1K_V1, and timm's pvt_v2_b1",
    "infidelity's patches tile the picture and are set to 0 one after the other, and stay, as in "
    "Quantus 0.6: at its best scale no map has more than the mean square of the score's change, "
    "and a gradient's published 83 or 100 needs changes of 9 or more. With one patch at a time it "
    "is measured too",
    "faithfulness correlation is over single patches; the estimate and the monotonicity go in "
    "steps of as many numbers as a patch has, set to 0",
    "max-sensitivity is the greatest of 10 draws of uniform noise within 0.02",
    "random logit is Spearman's correlation of maps summed over channels",
    "derivatives are multiplied by the change that they are asked about; Integrated Gradients, of "
    "50 steps from 0, are contributions already",
    "a mosaic has the network's own size, of photographs at half of it",
)


@dataclass(frozen=True)
class Metric:
    """A metric of the protocol: its title, and whether lower is better, or higher, or 0."""

    title: str
    better: str


METRICS = {
    "infidelity": Metric("infidelity", "lower"),
    "infidelity_one": Metric("infidelity, one patch", "lower"),
    "correlation": Metric("faithfulness correlation", "higher"),
    "estimate": Metric("faithfulness estimate", "higher"),
    "monotonicity": Metric("monotonicity", "higher"),
    "sensitivity": Metric("max-sensitivity", "lower"),
    "random_logit": Metric("random logit", "near 0"),
    "focus": Metric("Focus", "higher"),
}

_ORDER = ("infidelity", "correlation", "estimate", "monotonicity", "sensitivity", "random_logit",
          "focus")  # fmt: skip

_ROWS: dict[str, dict[str, tuple[float, ...]]] = {
    "resnet50": {
        "pullback": (5.99, 0.39, 0.44, 0.42, 0.12, -0.06, 0.75),
        "ascent": (5.38, 0.38, 0.39, 0.42, 0.24, 0.21),
        "gradient": (83.3, 0.24, 0.29, 0.28, 0.95, -0.03, 0.63),
        "ig": (66.8, 0.24, 0.42, 0.35, 0.79, -0.03, 0.62),
        "guided_gradcam": (5.76, 0.44, 0.28, 0.51, 0.24, 0.42, 0.85),
    },
    "vgg11_bn": {
        "pullback": (16.3, 0.61, 0.53, 0.38, 0.21, -0.06),
        "ascent": (5.62, 0.57, 0.38, 0.31, 0.39, 0.14),
        "gradient": (100.0, 0.46, 0.47, 0.32, 0.90, -0.05),
        "ig": (75.8, 0.43, 0.63, 0.38, 0.75, -0.05),
    },
    "pvt_v2_b1": {
        "pullback": (6.26, 0.12, 0.16, 0.16, 1.07, -0.01, 0.62),
        "ascent": (1.63, 0.12, 0.20, 0.22, 0.86, 0.12),
        "gradient": (8.91, 0.11, 0.12, 0.19, 1.03, -0.03, 0.56),
        "ig": (12.6, 0.07, 0.16, 0.17, 1.37, 0.01, 0.56),
    },
}

#: By network, method and metric, as published.
PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    network: {method: dict(zip(_ORDER, values, strict=False)) for method, values in rows.items()}
    for network, rows in _ROWS.items()
}

#: What the zoo calls the published networks, and the weights that are taken by default.
SOURCES: dict[str, tuple[str, str | None]] = {
    "resnet50": ("resnet50", "IMAGENET1K_V1"),
    "vgg11_bn": ("vgg11_bn", "IMAGENET1K_V1"),
    "pvt_v2_b1": ("timm:pvt_v2_b1", None),
}

#: Temperatures of the published gates, by kind; what has no published one is at 1.
TEMPERATURES = {
    "kind:relu": 0.6, "kind:silu": 1.6, "kind:gelu": 1.0, "kind:max_pool": 0.3,
    "kind:attention": 1.0, "": 1.0,
}  # fmt: skip
RULES = {**SEMANTIC, "relu": "normal"}

STEPS = 50  # of Integrated Gradients
BOUNDS = 0.02  # of max-sensitivity's noise
NEIGHBORS = 10  # draws of it
GRIDS = (2, 4)  # patches of 112 and 56 pixels of 224 are halves and quarters of a side
FINE = 4  # the grid of faithfulness correlation


class Scaled(nn.Module):
    """A network that takes pixels in [-1, 1].

    Args:
        network: That is to be asked.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.model = network.model
        self.register_buffer("mean", torch.tensor(network.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(network.std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W), from -1 for black to 1 for white, to logits (N, classes)."""
        logits: Tensor = self.model(((x + 1) / 2 - self.mean) / self.std)
        return logits


@dataclass(frozen=True)
class Method:
    """A method of the protocol.

    Attributes:
        title: For people.
        make: From a network that takes pixels in [-1, 1] to what attributes.
        multiplies_by_inputs: Whether attributions are contributions.
    """

    title: str
    make: Callable[[Network], Attribute]
    multiplies_by_inputs: bool = False


def _softly(kind: Any) -> Callable[[Network], Attribute]:
    return lambda network: kind(network.model, TEMPERATURES, rules=RULES).attribute


METHODS = {
    "pullback": Method("pullback", _softly(ExcitationPullback)),
    "ascent": Method("ascent, 5 steps", _softly(PullbackAscent)),
    "gradient": Method("gradient", methods.find("gradient").make),
    "ig": Method("Integrated Gradients", lambda n: integrated(n, STEPS), True),
    "guided_gradcam": Method("Guided Grad-CAM", lambda n: rivals.guided_grad_cam(n.model)),
}
