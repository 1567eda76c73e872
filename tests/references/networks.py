"""Small networks of torchvision and Hugging Face, each with the reference that it should follow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from random_weights import pictures, randomize
from torch import Tensor, nn
from torchvision.models import convnext, efficientnet, swin_transformer
from torchvision.models.vision_transformer import VisionTransformer

from references import language, swin, vision
from references.gates import Network

Case = tuple[nn.Module, Network, Tensor]


class Logits(nn.Module):
    """A language model as a function of embedded tokens, to a tensor."""

    def __init__(self, model: nn.Module, *, last: bool = False) -> None:
        super().__init__()
        self.model = model
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        options: dict[str, Any] = {"use_cache": False} if self.last else {}
        logits = self.model(inputs_embeds=x, **options).logits
        return logits[:, -1] if self.last else logits


def _followed(reference: Callable[..., Tensor], prefix: str = "", **given: Any) -> Network:
    """The reference as a function of a whole state dict, whose names may have a prefix."""

    def network(weights: dict[str, Tensor], x: Tensor, gates: Any) -> Tensor:
        own = {name.removeprefix(prefix): value for name, value in weights.items()}
        return reference(own, x, gates, **given)

    return network


def vit(representation_size: int | None = None) -> Case:
    model = VisionTransformer(
        16, 8, 2, 2, 8, 12, num_classes=3, representation_size=representation_size
    )
    return randomize(model), _followed(vision.vit, n_heads=2), pictures(2, 3, 16, 16)


def convnext_() -> Case:
    sizes = [convnext.CNBlockConfig(4, 6, 2), convnext.CNBlockConfig(6, None, 1)]
    model = convnext.ConvNeXt(sizes, num_classes=3)
    return randomize(model), _followed(vision.convnext), pictures(2, 3, 24, 24)


def efficientnet_() -> Case:
    mb, fused = efficientnet.MBConvConfig, efficientnet.FusedMBConvConfig
    stages = [
        fused(1, 3, 1, 8, 8, 1),
        fused(2, 3, 2, 8, 8, 2),
        mb(1, 3, 1, 8, 8, 2),
        mb(2, 5, 2, 8, 16, 2),
    ]
    model = efficientnet.EfficientNet(stages, dropout=0.2, num_classes=3)
    x = pictures(4, 3, 24, 24)
    reference = _followed(vision.efficientnet, strides=(1, 2, 1, 2))
    return randomize(model, x), reference, x[:2]


def swin_(version: int) -> Case:
    """On 36 pixels: windows of 4 tokens need padding, are shifted, and are one alone at the end."""
    v2: dict[str, Any] = {
        "block": swin_transformer.SwinTransformerBlockV2,
        "downsample_layer": swin_transformer.PatchMergingV2,
    }
    depths, n_heads = [2, 2, 1], [1, 2, 4]
    model = swin_transformer.SwinTransformer(
        [4, 4], 4, depths, n_heads, [4, 4], num_classes=3, **(v2 if version == 2 else {})
    )
    reference = _followed(swin.swin, depths=depths, n_heads=n_heads, window=4, version=version)
    return randomize(model), reference, pictures(2, 3, 36, 36)


def bert(attention: str = "sdpa") -> Case:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
        num_labels=3,
        attn_implementation=attention,
    )
    model = Logits(transformers.BertForSequenceClassification(config))
    reference = _followed(language.bert, "model.", n_heads=2)
    return randomize(model), reference, pictures(2, 5, 8)


def llama(attention: str = "sdpa") -> Case:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=11,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
        attn_implementation=attention,
    )
    model = Logits(transformers.LlamaForCausalLM(config), last=True)
    reference = _followed(language.llama, "model.", n_heads=4, n_key_heads=2)
    return randomize(model), reference, pictures(2, 5, 16)


CASES: dict[str, Callable[[], Case]] = {
    "vit": vit,
    "vit_tanh": partial(vit, 8),
    "convnext": convnext_,
    "efficientnet": efficientnet_,
    "swin": partial(swin_, 1),
    "swin_v2": partial(swin_, 2),
    "bert": bert,
    "bert_eager": partial(bert, "eager"),
    "llama": llama,
    "llama_eager": partial(llama, "eager"),
}

#: How far a network may be from its reference, in float64. Llama's norms and its cosines pass
#: through float32, whatever its parameters are of.
FLOAT32 = {"llama", "llama_eager"}


def tolerance(name: str) -> float:
    return 1e-5 if name in FLOAT32 else 1e-10


def plain_gradient(model: nn.Module, x: Tensor) -> Tensor:
    """Of each output: (N, C, *x)."""
    x = x.detach().requires_grad_()
    rows = [torch.autograd.grad(row.sum(), x, retain_graph=True)[0] for row in model(x).T]
    return torch.stack(rows, 1)
