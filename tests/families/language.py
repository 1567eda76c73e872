"""Families of Hugging Face's, by embedded tokens, with attention written out and fused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from random_weights import pictures, randomize
from references.networks import CASES, Logits, tolerance
from torch import Tensor, nn

from families.family import Family


class PixelLogits(nn.Module):
    """A vision model as a function to a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(pixel_values=x).logits


def _bert(attention: str) -> Family:
    name = "bert_eager" if attention == "eager" else "bert"
    model, _, x = CASES[name]()
    return Family(model, x)


def _llama(attention: str) -> Family:
    name = "llama_eager" if attention == "eager" else "llama"
    model, _, x = CASES[name]()
    return Family(model, x, tolerance(name))


def _distilbert(attention: str) -> Family:
    transformers = pytest.importorskip("transformers")
    config = transformers.DistilBertConfig(
        vocab_size=11,
        dim=8,
        n_layers=2,
        n_heads=2,
        hidden_dim=12,
        max_position_embeddings=16,
        num_labels=3,
        attn_implementation=attention,
    )
    model = Logits(transformers.DistilBertForSequenceClassification(config))
    return Family(randomize(model), pictures(2, 5, 8))


def _gpt2(attention: str) -> Family:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=11,
        n_embd=8,
        n_layer=2,
        n_head=2,
        n_positions=16,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation=attention,
    )
    model = Logits(transformers.GPT2LMHeadModel(config), last=True)
    return Family(randomize(model), pictures(2, 5, 8))


def _vit(attention: str) -> Family:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        num_labels=3,
        attn_implementation=attention,
    )
    model = PixelLogits(transformers.ViTForImageClassification(config))
    return Family(randomize(model), pictures(2, 3, 16, 16))


MODELS: dict[str, Callable[[str], Family]] = {
    "bert": _bert,
    "distilbert": _distilbert,
    "gpt2": _gpt2,
    "llama": _llama,
    "vit": _vit,
}

FAMILIES: dict[str, Callable[[], Family]] = {
    f"hf_{name}_{attention}": partial(make, attention)
    for name, make in MODELS.items()
    for attention in ("eager", "sdpa")
}
