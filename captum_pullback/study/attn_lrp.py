"""AttnLRP, by the rules of its authors' library lxt: relevance through attention, norms and gates.

lxt finds a network's operations with a tracer that transformers 5 no longer has. Its rules need
torch alone, so here each call gets its rule while a copy of the network runs. A call that has none,
and changes what depends on the inputs, is refused: its gradient is no relevance.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_pullback.affine.calls import tensors_in
from captum_pullback.study.libraries import installed, zennit
from captum_pullback.study.traced import norms_after, with_own_relus

__all__ = ["CONV_GAMMA", "LINEAR_GAMMA", "attn_lrp"]

#: How much more positive weights count in convolutions and in linear layers.
CONV_GAMMA, LINEAR_GAMMA = 0.25, 0.05

#: Elementwise, of one tensor: all relevance of the output is the input's.
_IDENTITY = {
    "celu", "dropout", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish",
    "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "tanh",
}  # fmt: skip
#: Linear in all that depends on the inputs, with or without a bias: the epsilon rule.
_LINEAR = {
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "add", "avg_pool1d", "avg_pool2d", "conv1d",
    "conv2d", "conv3d", "mean", "sub", "sum",
}  # fmt: skip
#: What moves values, or picks some: relevance goes back the same way, as gradients do.
_MOVES = {
    "__get__", "__getitem__", "adaptive_max_pool2d", "cat", "chunk", "clone", "concat",
    "contiguous", "detach", "expand", "flatten", "flip", "max_pool1d", "max_pool2d", "movedim",
    "narrow", "pad", "permute", "repeat", "reshape", "roll", "select", "split", "squeeze",
    "stack", "swapaxes", "t", "transpose", "unbind", "unflatten", "unsqueeze", "view", "view_as",
}  # fmt: skip
#: Stabilizes the epsilon rule where lxt's own functions do not; lxt's default.
_EPSILON = 1e-8


def attn_lrp(
    model: nn.Module, conv_gamma: float = CONV_GAMMA, linear_gamma: float = LINEAR_GAMMA
) -> Callable[[Tensor, Any], Tensor]:
    r"""AttnLRP: relevance that begins as the target's score and is shared at each operation.

    The rules, with R the relevance of outputs z of inputs x:

    - modules that are convolutions, with BatchNorm merged into them, or linear layers: gamma, which
      for vision transformers is less noisy than epsilon;
    - other linear operations, sums and means among them: epsilon,
      :math:`x_i \sum_j w_{ji} R_j / (z_j + \epsilon)`;
    - GELU, sigmoid and the like: identity; LayerNorm: epsilon, with its deviation held;
    - softmax: :math:`x_i (R_i - z_i \sum_j R_j)`;
    - products of two activations, and each term of their matrix products: half for each.

    Source: Achtibat et al. 2024, arXiv 2402.05602, propositions 3.1 to 3.4.

    Args:
        model: The network, which is not changed: a copy is run.
        conv_gamma: How much more positive weights count in convolutions; 0 for epsilon.
        linear_gamma: The same in linear layers.

    Returns:
        From inputs and a class, or one for each, to their relevance.

    Raises:
        ValueError: A library is not installed; or, when called, an operation has no rule.
    """
    functional, rules = (
        installed(f"lxt.explicit.{name}", "lxt", "--no-deps lxt")
        for name in ("functional", "rules")
    )
    own = copy.deepcopy(model).eval().requires_grad_(False)
    gammas = _gammas(own, conv_gamma, linear_gamma)

    def attribute(inputs: Tensor, target: Any) -> Tensor:
        mode = _Rules(functional, rules)
        leaf = inputs.detach().clone().requires_grad_()
        with torch.enable_grad(), gammas.context(own) if gammas else nullcontext():
            with mode:
                output = own(leaf)
            classes = torch.as_tensor(target, device=output.device).expand(len(output))
            score = output.gather(1, classes[:, None])
            (relevance,) = torch.autograd.grad(score, leaf, score.detach())
        if mode.in_place:
            _check(own, inputs, output)
        if gammas and len(set(mode.layers)) < len(mode.layers):
            raise ValueError("a layer runs twice: zennit's gamma rule remembers one call only")
        return relevance.detach()

    def attributed(inputs: Any, target: Any) -> Any:
        if isinstance(inputs, tuple):
            return (attribute(inputs[0], target),)
        return attribute(inputs, target)

    return attributed


class _Rules(TorchFunctionMode):
    """While it is active, calls go by lxt's rules.

    Attributes:
        in_place: Whether a call that works in place was met. It gives a new tensor instead, which
            is the same unless the network uses the old one again.
        layers: The weights of linear layers and convolutions, once for each call.
    """

    def __init__(self, functional: Any, rules: Any) -> None:
        super().__init__()
        self.in_place = False
        self.layers: list[int] = []
        self._functional, self._rules = functional, rules
        self._own: dict[str, Callable[..., Any]] = {
            "batch_norm": self._batch_norm,
            "bmm": self._matmul,
            "layer_norm": self._layer_norm,
            "linear": functional.linear_epsilon,
            "matmul": self._matmul,
            "mul": functional.mul2,
            "multi_head_attention_forward": self._attention,
            "scaled_dot_product_attention": self._dot_product,
            "softmax": self._softmax,
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs a call, by its rule if it has one."""
        kwargs = dict(kwargs or {})
        name = func.__name__
        if not any(map(_carries, tensors_in((args, kwargs)))):
            return func(*args, **kwargs)
        if name.endswith("_") and not name.endswith("__"):  # x += y is add_
            name, self.in_place = name[:-1], True
            func = getattr(torch, name, func)
        if kwargs.get("inplace"):
            kwargs["inplace"], self.in_place = False, True
        if name == "linear" or name.startswith("conv"):
            self.layers.append(id(args[1]))
        if name in self._own:
            return self._own[name](*args, **kwargs)
        if name in _IDENTITY and _carries(args[0]):
            return self._rules.identity(lambda x: func(x.clone(), *args[1:], **kwargs), args[0])
        if name == "add" and len(args) == 2 and all(map(_carries, args)) and not kwargs:
            return self._functional.add2(*args)
        if name in _LINEAR:
            return self._linear(func, *args, **kwargs)
        result = func(*args, **kwargs)
        if name in _MOVES or not any(map(_carries, tensors_in(result))):
            return result
        raise ValueError(f"AttnLRP has no rule for {name}")

    def _linear(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The epsilon rule for all arguments that depend on the inputs."""
        places = [place for place, arg in enumerate(args) if _carries(arg)]

        def run(*tensors: Tensor) -> Any:
            every = list(args)
            for place, tensor in zip(places, tensors, strict=True):
                every[place] = tensor
            return func(*every, **kwargs)

        carried = (args[place] for place in places)
        result: Tensor = self._rules.epsilon_lrp(run, _EPSILON, *carried)
        return result

    def _batch_norm(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if kwargs.get("training", len(args) > 4 and args[4]):
            raise ValueError("AttnLRP has no rule for BatchNorm without running statistics")
        return self._linear(nn.functional.batch_norm, input, *args, **kwargs)

    def _layer_norm(
        self,
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        if len(normalized_shape) != 1:
            raise ValueError("lxt has a rule for LayerNorm over the last dimension only")
        result: Tensor = self._functional.layer_norm(input, weight, bias, eps)
        return result

    def _matmul(self, one: Tensor, other: Tensor) -> Tensor:
        if not (_carries(one) and _carries(other)):
            return self._linear(torch.matmul, one, other)
        result: Tensor = self._functional.matmul(one, other)
        return result

    def _softmax(
        self,
        input: Tensor,
        dim: int | None = None,
        _stacklevel: int = 3,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        if dim not in (-1, input.dim() - 1):
            raise ValueError("lxt has a rule for the softmax over the last dimension only")
        result: Tensor = self._functional.softmax(input, -1, dtype)
        return result

    def _dot_product(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if attn_mask is not None or dropout_p or is_causal or enable_gqa:
            raise ValueError("AttnLRP has no rule for masks, dropout and shared heads here")
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        logits = self._functional.mul2(self._matmul(query, key.mT), scale)
        return self._matmul(self._softmax(logits, -1), value)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        embed_dim: int,
        num_heads: int,
        in_proj_weight: Tensor | None,
        in_proj_bias: Tensor | None,
        bias_k: Tensor | None,
        bias_v: Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: Tensor,
        out_proj_bias: Tensor | None,
        need_weights: bool = True,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """What `nn.MultiheadAttention` calls, with tokens (L, N, E)."""
        masks = (bias_k, bias_v, options.get("key_padding_mask"), options.get("attn_mask"))
        if in_proj_weight is None or add_zero_attn or any(each is not None for each in masks):
            raise ValueError("AttnLRP has no rule for this nn.MultiheadAttention's options")
        weights = in_proj_weight.chunk(3)
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        heads = [
            self._functional.linear_epsilon(x, weight, bias)
            .unflatten(-1, (num_heads, -1))
            .permute(1, 2, 0, 3)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        ]
        mixed = self._dot_product(*heads).permute(2, 0, 1, 3).flatten(2)
        # The weights are for people: no network computes with their mean over heads.
        return self._functional.linear_epsilon(mixed, out_proj_weight, out_proj_bias), None


def _gammas(own: nn.Module, conv_gamma: float, linear_gamma: float) -> Any:
    """The composite of zennit's gamma rules, or None where all are 0."""
    if not (conv_gamma or linear_gamma):
        return None
    kinds, composites, canonizers, types = zennit("rules", "composites", "canonizers", "types")
    chosen = [(types.Convolution, conv_gamma), (nn.Linear, linear_gamma)]
    has_norms = any(isinstance(module, types.BatchNorm) for module in own.modules())
    merges = norms_after(with_own_relus(own)) if has_norms else []
    return composites.LayerMapComposite(
        [(kind, kinds.Gamma(gamma)) for kind, gamma in chosen if gamma],
        canonizers=[canonizers.NamedMergeBatchNorm(merges)],
    )


def _carries(value: Any) -> bool:
    """Whether it depends on the inputs, as nothing else in the copy wants a gradient."""
    return isinstance(value, Tensor) and value.requires_grad


@torch.no_grad()
def _check(own: nn.Module, inputs: Tensor, output: Tensor) -> None:
    expected = own(inputs.clone())
    if not torch.allclose(output, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        raise ValueError(
            "the network uses again what it changed in place: AttnLRP cannot follow it"
        )
