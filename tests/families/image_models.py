"""Families of timm's, in the smallest sizes that they can be told to have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from families.family import Family, of_pictures

MODELS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "vit_tiny": (
        "vit_tiny_patch16_224",
        32,
        {"img_size": 32, "depth": 2, "embed_dim": 16, "num_heads": 2},
    ),
    "swinv2": (
        "swinv2_tiny_window8_256",
        32,
        {
            "img_size": 32,
            "window_size": 4,
            "depths": (2, 2),
            "embed_dim": 8,
            "num_heads": (2, 4),
        },
    ),
    "convnextv2": ("convnextv2_atto", 32, {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 20)}),
    "pvt_v2": (
        "pvt_v2_b0",
        32,
        {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 16, 16), "num_heads": (1, 2, 2, 2)},
    ),
    "pvt_v2_linear": (
        "pvt_v2_b2_li",
        32,
        {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 16, 16), "num_heads": (1, 2, 2, 2)},
    ),
    "efficientformer": (
        "efficientformer_l1",
        224,  # its attention is made for this size alone
        {"depths": (1, 1, 1, 2), "embed_dims": (8, 12, 16, 24)},
    ),
    "efficientformer_v2": (
        "efficientformerv2_s0",
        64,
        {"img_size": 64, "depths": (1, 1, 2, 2), "embed_dims": (8, 16, 16, 16)},
    ),
    "maxvit_rmlp": (
        "maxvit_rmlp_pico_rw_256",
        64,
        {"img_size": 64, "depths": (1, 1), "embed_dim": (32, 32), "stem_width": (8, 16)},
    ),
    "maxxvit": (
        "maxxvit_rmlp_nano_rw_256",
        64,
        {"img_size": 64, "depths": (1, 1), "embed_dim": (32, 32), "stem_width": (8, 16)},
    ),
    "coatnet": (
        "coatnet_nano_rw_224",
        32,
        {
            "img_size": 32,
            "depths": (1, 1, 1, 1),
            "embed_dim": (8, 32, 32, 32),
            "stem_width": (4, 8),
        },
    ),
    "mobilenetv4": ("mobilenetv4_conv_small_035", 32, {}),
    "mobilenetv4_hybrid": ("mobilenetv4_hybrid_medium_075", 64, {}),
    "hiera": ("hiera_tiny_224", 64, {"img_size": (64, 64), "embed_dim": 8, "stages": (1, 1, 1, 1)}),
}


def _timm(name: str, size: int, given: dict[str, Any]) -> Family:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, pretrained=False, num_classes=3, **given)
    return of_pictures(model, size)


def _written_out() -> Family:
    """Attention as softmax(q @ k) @ v."""
    family = _timm(*MODELS["vit_tiny"])
    for module in family.model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return family


def _mixer(gated: bool) -> Family:
    layers = pytest.importorskip("timm.layers")
    mixer = pytest.importorskip("timm.models.mlp_mixer")
    given = {"mlp_ratio": (0.5, 4.0)}
    if gated:
        given = {
            "mlp_ratio": 4,
            "block_layer": mixer.SpatialGatingBlock,
            "mlp_layer": layers.GatedMlp,
        }
    model = mixer.MlpMixer(3, img_size=16, patch_size=4, num_blocks=2, embed_dim=12, **given)
    return of_pictures(model, 16)


FAMILIES: dict[str, Callable[[], Family]] = {
    **{f"timm_{name}": partial(_timm, *model) for name, model in MODELS.items()},
    "timm_vit_tiny_written_out": _written_out,
    "timm_mixer": partial(_mixer, False),
    "timm_gmlp": partial(_mixer, True),
}
