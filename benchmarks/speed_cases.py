"""What `benchmarks.speed` measures: networks, methods, and suites of cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torchvision
from captum.attr import GuidedBackprop, InputXGradient, IntegratedGradients, Saliency
from torch import Tensor, nn

from benchmarks.speed_many import MANY, TARGETS, TEMPERATURES, WEIGHTS
from captum_pullback import PUBLISHED_TEMPERATURE, ExcitationPullback
from captum_pullback.zoo import reference_network

SALIENCY = "Saliency"
SOFT, HARD_POOL = "pullback", "pullback, hard pooling"
FIXED = "pullback, T = 0.3"
GUIDED, BY_INPUT, INTEGRATED = "GuidedBackprop", "InputXGradient", "IntegratedGradients, 50 steps"
EAGER = "Saliency, not compiled"

_PULLBACKS: dict[str, dict[str, Any]] = {
    SOFT: {},
    HARD_POOL: {"pool_temperature": 0},
    FIXED: {"temperature": PUBLISHED_TEMPERATURE},
}
PAIR = (SALIENCY, SOFT)
THREE = (SALIENCY, SOFT, HARD_POOL)
SIX = (*THREE, FIXED, GUIDED, BY_INPUT)
EMBEDDED = "embedded"
PERCEPTRON = "perceptron, 30 layers of 16 units"


@dataclass(frozen=True)
class Case:
    """One comparison: methods that take turns on one network and one batch."""

    network: str
    batch: int = 4
    resolution: int = 224
    dtype: str = "float32"
    mode: str = "eager"
    layout: str = "contiguous"
    methods: tuple[str, ...] = THREE
    rounds: int = 9

    def network_and_inputs(self, device: str, seed: int) -> tuple[nn.Module, Tensor]:
        """The network with random weights (time does not depend on them), and a random batch."""
        torch.manual_seed(seed)
        if self.network == PERCEPTRON:
            layers = [part for _ in range(30) for part in (nn.Linear(16, 16), nn.ReLU())]
            deep = nn.Sequential(*layers, nn.Linear(16, 10)).eval()
            dtype = getattr(torch, self.dtype)
            return deep.to(device, dtype), torch.randn(self.batch, 16).to(device, dtype)
        if self.network == EMBEDDED:
            model = reference_network().model
        else:
            name, _, classes = self.network.partition(", ")  # "resnet18, 10 classes"
            given = {"num_classes": int(classes.split()[0])} if classes else {}
            model = getattr(torchvision.models, name)(weights=None, **given).eval()
        dtype = getattr(torch, self.dtype)
        model = model.to(device, dtype)
        x = torch.randn(self.batch, 3, self.resolution, self.resolution).to(device, dtype)
        if self.layout == "channels-last":
            model.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
        return model, x

    def calls(self, model: nn.Module, x: Tensor) -> dict[str, Callable[[], Any]]:
        """For each method, a call of it."""
        ran = torch.compile(model) if self.mode == "compiled" else model
        return {name: _call(name, ran, model, x) for name in self.methods}


def _call(name: str, ran: Any, eager: nn.Module, x: Tensor) -> Callable[[], Any]:
    if name in (SALIENCY, EAGER):
        saliency = Saliency(ran if name == SALIENCY else eager)
        return lambda: saliency.attribute(x, target=0, abs=False)
    if name in _PULLBACKS:
        pullback = ExcitationPullback(ran, **_PULLBACKS[name])
        return lambda: pullback.attribute(x, target=0)
    if name == INTEGRATED:
        integrated = IntegratedGradients(ran)
        return lambda: integrated.attribute(x, target=0, n_steps=50, internal_batch_size=len(x))
    if name in MANY:
        return lambda: MANY[name](ran, x)
    method = {GUIDED: GuidedBackprop, BY_INPUT: InputXGradient}[name](ran)
    return lambda: method.attribute(x, target=0)


_LARGE = ("resnet50", "vgg11_bn", "densenet121")
_MODERN = ("vit_b_16", "swin_t", "convnext_tiny", "efficientnet_b0")
_SMALL = (
    Case("resnet18"),
    Case("mobilenet_v2"),
    Case(EMBEDDED, resolution=64),
)

#: name -> cases whose time is measured
SUITES: dict[str, list[Case]] = {
    "large": [Case(name, methods=SIX, rounds=15) for name in _LARGE],
    "modern": [Case(name, methods=PAIR) for name in _MODERN],
    # What `benchmarks.cost_page` has a limit for on every kind of CPU: some four minutes on two
    # cores.
    "goals": [
        Case(name, batch=batch, methods=PAIR, rounds=7) for name in _LARGE for batch in (4, 8)
    ]
    + [replace(case, batch=1, methods=PAIR, rounds=25) for case in _SMALL]
    + [Case(name, methods=PAIR, rounds=7) for name in _MODERN[:3]],
    "small": [replace(case, methods=SIX, rounds=15) for case in _SMALL],
    "integrated": [Case(name, methods=(SALIENCY, SOFT, INTEGRATED), rounds=2) for name in _LARGE]
    + [replace(case, methods=(SALIENCY, SOFT, INTEGRATED), rounds=3) for case in _SMALL],
    "batch": [
        replace(case, batch=batch, methods=THREE, rounds=15 if batch < 8 else 7)
        for case in _SMALL
        for batch in (1, 2, 8, 16, 32)
    ]
    + [Case("densenet121", batch=1, rounds=15), Case(PERCEPTRON, batch=1, rounds=25, methods=PAIR)],
    "depth": [Case(f"resnet{depth}") for depth in (34, 101)],
    "resolution": [Case("resnet18", resolution=size) for size in (64, 112, 160, 320, 448)],
    "variants": [
        Case("resnet50", layout="channels-last"),
        Case("vgg11_bn", layout="channels-last", rounds=7),
        Case("densenet121", layout="channels-last"),
        Case("resnet18", dtype="bfloat16"),
        Case("mobilenet_v2", dtype="bfloat16"),
    ],
    # Each beside as many single calls.
    "many": [
        Case(network, batch, resolution, methods=pair, rounds=rounds)
        for pair, rounds in ((TARGETS, 9), (TEMPERATURES, 9), (WEIGHTS, 3))
        for network, batch, resolution in (
            (EMBEDDED, 1, 64),
            (EMBEDDED, 16, 64),
            ("resnet18, 10 classes", 1, 64),
            ("resnet18, 100 classes", 1, 64),
            ("resnet18, 10 classes", 4, 224),
        )
    ],
    "compiled": [
        Case(name, batch=batch, mode="compiled", methods=(*PAIR, EAGER))
        for name in ("resnet18", "mobilenet_v2", "vit_b_16")
        for batch in (1, 4)
    ],
}

MEMORY = [Case(name) for name in _LARGE] + list(_SMALL)
MEMORY += [Case(name, methods=PAIR) for name in _MODERN]
KERNELS = [replace(case, methods=PAIR) for case in MEMORY]
