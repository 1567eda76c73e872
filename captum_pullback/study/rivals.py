"""Methods to compare with: those of other libraries, and those of Captum's that need care.

If a method does not work on a network, or its library is not installed, a ValueError says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum import attr
from torch import Tensor, fx, nn
from torch.func import functional_call

from captum_pullback.study.libraries import zennit
from captum_pullback.study.traced import norms_after, with_own_relus

__all__ = [
    "FUSION_SAMPLES", "FUSION_SPREAD", "epsilon_gamma_box", "epsilon_plus_flat", "fusiongrad",
    "grad_cam", "guided_grad_cam", "last_map", "lrp",
]  # fmt: skip

#: How many noisy networks FusionGrad uses, and how many noisy inputs for each.
FUSION_SAMPLES = 10
#: Standard deviation of the factor on its weights.
FUSION_SPREAD = 0.2

Attribute = Callable[..., Any]

# What the composites have no rule for; a part of the name of a module or a function is enough.
_FOREIGN = ("gelu", "silu", "swish", "mish", "layer_norm", "layernorm", "softmax", "attention")
# Whose modules have rules, which a call as a function would escape.
_FUNCTIONS = ("conv1d", "conv2d", "conv3d", "linear", "batch_norm")


def epsilon_plus_flat(model: nn.Module) -> Attribute:
    """LRP by zennit's composite EpsilonPlusFlat, with canonized sums and BatchNorm."""
    return _composed(model, lambda kinds, inputs: (kinds.EpsilonPlusFlat, {}))


def epsilon_gamma_box(model: nn.Module, low: Tensor, high: Tensor) -> Attribute:
    """LRP by zennit's composite EpsilonGammaBox, with canonized sums and BatchNorm.

    Args:
        model: The network.
        low: The lowest value of each channel, (C,), in the network's input space.
        high: The highest.
    """

    def composite(kinds: Any, inputs: Tensor) -> tuple[Any, dict[str, Any]]:
        bounds = (each.to(inputs).view(-1, 1, 1).expand_as(inputs) for each in (low, high))
        return kinds.EpsilonGammaBox, dict(zip(("low", "high"), bounds, strict=True))

    return _composed(model, composite)


def lrp(model: nn.Module) -> Attribute:
    """Captum's LRP, on a copy in which each ReLU is a module of its own.

    Captum has no rule for modules that only reshape, so these become functions. It has none for
    sums of tensors either: both terms would get all of the relevance.
    """
    traced = with_own_relus(model, _Sum)
    if any(isinstance(module, _Sum) for module in traced.modules()):
        raise ValueError("Captum's LRP has no rule for sums of tensors, as in residual networks")
    _without_reshaping(traced)
    explainer = attr.LRP(traced)

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        try:
            found: Tensor = explainer.attribute(inputs, target=target)
        except (TypeError, AssertionError, RuntimeError, AttributeError) as error:
            raise ValueError(f"Captum's LRP has no rule for this network: {error}") from error
        return found.detach()

    return _of_one(attribute)


def grad_cam(model: nn.Module) -> Attribute:
    """Captum's Grad-CAM at the last map, scaled up and divided among the channels."""

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        explainer = attr.LayerGradCam(model, last_map(model, inputs))
        small = explainer.attribute(inputs, target=target, relu_attributions=True)
        large = attr.LayerAttribution.interpolate(small, inputs.shape[2:], "bilinear")
        found: Tensor = large.detach().expand_as(inputs) / inputs.shape[1]
        return found

    return _of_one(attribute)


def guided_grad_cam(model: nn.Module) -> Attribute:
    """Captum's Guided Grad-CAM at the last map."""
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise ValueError("Guided Grad-CAM needs nn.ReLU modules; this network has none")

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        explainer = attr.GuidedGradCam(model, last_map(model, inputs))
        found: Tensor = explainer.attribute(inputs, target=target)
        return found.detach()

    return _of_one(attribute)


def fusiongrad(model: nn.Module, deviation: float, at_once: int) -> Attribute:
    r"""FusionGrad: the mean gradient over noise on weights and inputs.

    .. math::
        \frac1{NM} \sum_{n, m} \nabla f_{w \odot (1 + \epsilon_n)}(x + \xi_m), \qquad
        \epsilon \sim \mathcal N(0, 0.2^2), \quad \xi \sim \mathcal N(0, \sigma^2)

    with N = M = 10. Source: Bykov et al. 2022, arXiv 2106.10185. Noise is drawn from torch's CPU
    generator.

    Args:
        model: The network, which is not changed.
        deviation: The standard deviation of the noise on the inputs.
        at_once: About how many inputs the network is given at once.
    """

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        total = torch.zeros_like(inputs)
        for _ in range(FUSION_SAMPLES):
            weights = {
                name: value.detach() * (1 + FUSION_SPREAD * torch.randn(value.shape)).to(value)
                for name, value in model.named_parameters()
            }
            explainer = attr.NoiseTunnel(
                attr.Saliency(lambda given, held=weights: functional_call(model, held, (given,)))
            )
            total += explainer.attribute(
                inputs,
                nt_type="smoothgrad",
                nt_samples=FUSION_SAMPLES,
                nt_samples_batch_size=max(1, min(FUSION_SAMPLES, at_once // len(inputs))),
                stdevs=deviation,
                target=target,
                abs=False,
            ).detach()
        return total / FUSION_SAMPLES

    return _of_one(attribute)


@torch.no_grad()
def last_map(model: nn.Module, inputs: Tensor) -> nn.Module:
    """The last module to finish whose output (N, C, H, W) is larger than one pixel.

    In a ResNet this is the last group of blocks, with its sums and gates: what the classifier sees.

    Raises:
        ValueError: There is none.
    """
    last: list[nn.Module] = []

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
            last[:] = [module]

    parts = [module for module in model.modules() if module is not model]
    hooks = [module.register_forward_hook(note) for module in parts]
    try:
        model(inputs[:1].detach().clone())
    finally:
        for hook in hooks:
            hook.remove()
    if not last:
        raise ValueError("no module of this network returns a feature map (N, C, H, W)")
    return last[0]


def _composed(
    model: nn.Module, composite: Callable[[Any, Tensor], tuple[Any, dict[str, Any]]]
) -> Attribute:
    """LRP for the target's score, by one of zennit's composites."""
    attribution, canonizers, composites, layer = zennit(
        "attribution", "canonizers", "composites", "layer"
    )

    class Sum(nn.Module):
        """The sum of two tensors, as zennit's module has it."""

        def __init__(self) -> None:
            super().__init__()
            self.sum = layer.Sum()

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            """Of one shape."""
            total: Tensor = self.sum(torch.stack([first, second], -1))
            return total

    traced = with_own_relus(model, Sum)
    foreign = [name for name in _names(traced) if any(part in name for part in _FOREIGN)]
    if foreign:
        raise ValueError(f"LRP's composites are for networks of ReLUs; this one has {foreign[0]}")
    calls = [node for node in traced.graph.nodes if node.op == "call_function"]
    unseen = [name for node in calls if (name := node.target.__name__) in _FUNCTIONS]
    if unseen:
        raise ValueError(
            f"LRP's composites have rules for modules; this network calls {unseen[0]} as a function"
        )
    merges = norms_after(traced)

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        kind, options = composite(composites, inputs)
        merging = [canonizers.NamedMergeBatchNorm(merges)]
        attributor = attribution.Gradient(traced, kind(canonizers=merging, **options))

        def chosen(output: Tensor) -> Tensor:
            classes = torch.as_tensor(target, device=output.device).expand(len(output))
            return output.detach() * nn.functional.one_hot(classes, output.shape[1])

        with torch.enable_grad(), attributor:
            _, relevance = attributor(inputs.detach().clone().requires_grad_(), chosen)
        return relevance.detach()  # type: ignore[no-any-return]

    return _of_one(attribute)


class _Sum(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first + second


def _without_reshaping(traced: fx.GraphModule) -> None:
    for node in list(traced.graph.nodes):
        module = traced.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(module, nn.Flatten):
            with traced.graph.inserting_before(node):
                sizes = (module.start_dim, module.end_dim)
                flat = traced.graph.call_function(torch.flatten, (node.args[0], *sizes))
            node.replace_all_uses_with(flat)
            traced.graph.erase_node(node)
        elif isinstance(module, nn.Identity):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()  # Captum wants a rule for each that is there
    traced.recompile()


def _names(traced: fx.GraphModule) -> list[str]:
    """What runs in a traced network: kinds of modules and names of functions, in lower case."""
    names = []
    for node in traced.graph.nodes:
        if node.op == "call_module":
            names.append(type(traced.get_submodule(node.target)).__name__)
        elif node.op in ("call_function", "call_method"):
            names.append(str(getattr(node.target, "__name__", node.target)))
    return [name.lower() for name in names]


def _of_one(attribute: Callable[[Tensor, Any], Tensor]) -> Attribute:
    """The same function, for a tensor or for a tuple of one tensor."""

    def attributed(inputs: Any, target: Any) -> Any:
        if isinstance(inputs, tuple):
            return (attribute(inputs[0], target),)
        return attribute(inputs, target)

    return attributed
