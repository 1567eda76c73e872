"""What `benchmarks.speed` measures: networks, methods, and suites of cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torchvision
from captum.attr import GuidedBackprop, InputXGradient, IntegratedGradients, Saliency
from torch import Tensor, nn

from captum_pullback import PUBLISHED_TEMPERATURE, ExcitationPullback, effective_weights
from captum_pullback.zoo import reference_network

SALIENCY = "Saliency"
SOFT, HARD_POOL = "pullback", "pullback, hard pooling"
FIXED = "pullback, T = 0.3"
#: Not a call, but the difference of two, in units of Saliency's time: what the default costs more.
BEYOND = "pullback, beyond T = 0.3"
GUIDED, BY_INPUT, INTEGRATED = "GuidedBackprop", "InputXGradient", "IntegratedGradients, 50 steps"
EAGER = "Saliency, not compiled"

#: What tells one measurement from another: columns of the results.
KEY = (
    "kind", "network", "method", "batch", "resolution", "dtype", "mode", "layout", "device",
    "threads", "instructions",
)  # fmt: skip

_PULLBACKS: dict[str, dict[str, Any]] = {
    SOFT: {},
    HARD_POOL: {"pool_temperature": 0},
    FIXED: {"temperature": PUBLISHED_TEMPERATURE},
}
#: What `fit_temperature` begins with.
SWEEP = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
CLASSES = (0, 1, 2, 3, 4)

TARGETS = ("5 targets, one by one", "5 targets")
TEMPERATURES = ("7 temperatures, one by one", "7 temperatures")
WEIGHTS = ("effective weights, class by class", "effective weights")

PAIR = (SALIENCY, SOFT)
THREE = (SALIENCY, SOFT, HARD_POOL)
SIX = (*THREE, FIXED, GUIDED, BY_INPUT)
LARGE = ("resnet50", "vgg11_bn", "densenet121")
MODERN = ("vit_b_16", "swin_t", "convnext_tiny")
EMBEDDED = "embedded"
LARGE_BATCHES = "large batches"
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
        model: nn.Module
        shape: tuple[int, ...] = (3, self.resolution, self.resolution)
        if self.network == PERCEPTRON:
            layers = [part for _ in range(30) for part in (nn.Linear(16, 16), nn.ReLU())]
            model, shape = nn.Sequential(*layers, nn.Linear(16, 10)).eval(), (16,)
        elif self.network == EMBEDDED:
            model = reference_network().model
        else:
            name, _, classes = self.network.partition(", ")  # "resnet18, 10 classes"
            given = {"num_classes": int(classes.split()[0])} if classes else {}
            model = getattr(torchvision.models, name)(weights=None, **given).eval()
        dtype = getattr(torch, self.dtype)
        model, x = model.to(device, dtype), torch.randn(self.batch, *shape).to(device, dtype)
        if self.layout == "channels-last":
            model.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
        return model, x

    def calls(self, model: nn.Module, x: Tensor) -> dict[str, Callable[[], Any]]:
        """For each method, a call of it."""
        ran = torch.compile(model) if self.mode == "compiled" else model
        return {name: _call(name, ran, model, x) for name in self.methods if name != BEYOND}


def _each_target(model: Any, x: Tensor) -> Tensor:
    pullback = ExcitationPullback(model)
    return torch.stack([pullback.attribute(x, target) for target in CLASSES])


def _each_temperature(model: Any, x: Tensor) -> Tensor:
    found = [ExcitationPullback(model, temperature).attribute(x, 0) for temperature in SWEEP]
    return torch.stack(found)


def _each_weight(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        classes = model(x).shape[1]
    return torch.cat([effective_weights(model, x, index)[0] for index in range(classes)], 1)


#: Of many at once, each beside as many single calls: what it gives for a network and a batch.
MANY: dict[str, Callable[[Any, Tensor], Tensor]] = {
    TARGETS[0]: _each_target,
    TARGETS[1]: lambda model, x: ExcitationPullback(model).attribute_targets(x, CLASSES),
    TEMPERATURES[0]: _each_temperature,
    TEMPERATURES[1]: lambda model, x: ExcitationPullback(model).attribute_temperatures(x, SWEEP, 0),
    WEIGHTS[0]: _each_weight,
    WEIGHTS[1]: lambda model, x: effective_weights(model, x)[0],
}


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


_SMALL = (Case("resnet18"), Case("mobilenet_v2"), Case(EMBEDDED, resolution=64))

#: name -> cases whose time is measured
SUITES: dict[str, list[Case]] = {
    "large": [Case(name, methods=SIX, rounds=15) for name in LARGE],
    "modern": [Case(name, methods=PAIR) for name in (*MODERN, "efficientnet_b0")],
    # What `benchmarks.cost_page` has a limit for on every kind of CPU: some four minutes on two
    # cores.
    "goals": [Case(name, batch=batch, methods=PAIR, rounds=7) for name in LARGE for batch in (4, 8)]
    + [replace(case, batch=1, methods=PAIR, rounds=25) for case in _SMALL]
    + [Case(name, methods=PAIR, rounds=7) for name in MODERN],
    "small": [replace(case, methods=SIX, rounds=15) for case in _SMALL],
    "integrated": [Case(name, methods=(SALIENCY, SOFT, INTEGRATED), rounds=2) for name in LARGE]
    + [replace(case, methods=(SALIENCY, SOFT, INTEGRATED), rounds=3) for case in _SMALL],
    "batch": [
        replace(case, batch=batch, methods=THREE, rounds=15 if batch < 8 else 7)
        for case in _SMALL
        for batch in (1, 2, 8, 16, 32)
    ]
    + [Case("densenet121", batch=1, rounds=15), Case(PERCEPTRON, batch=1, rounds=25, methods=PAIR)],
    # What a GPU is given: small batches leave it waiting for Python. On a CPU they take long.
    LARGE_BATCHES: [
        Case(name, 64, methods=(SALIENCY, SOFT, FIXED) if name in LARGE else PAIR, rounds=15)
        for name in (*LARGE, *MODERN, "resnet18", "mobilenet_v2")
    ]
    + [
        Case(name, 64, dtype="bfloat16", methods=PAIR, rounds=15)
        for name in ("resnet50", "vit_b_16")
    ],
    # Many rounds, since a difference of two is small beside the noise of one.
    "default": [
        Case(name, batch, methods=(SALIENCY, SOFT, FIXED, BEYOND), rounds=rounds)
        for name, batch, rounds in (("resnet50", 4, 101), ("resnet50", 8, 61), ("resnet18", 4, 61))
    ],
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

MEMORY = [Case(name) for name in LARGE] + list(_SMALL)
MEMORY += [Case(name, methods=PAIR) for name in (*MODERN, "efficientnet_b0")]
KERNELS = [replace(case, methods=PAIR) for case in MEMORY]
