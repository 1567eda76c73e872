"""Networks of timm and of Hugging Face's transformers, from the user's cache or the hub."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from captum_pullback.zoo.classes import close
from captum_pullback.zoo.errors import ZooError
from captum_pullback.zoo.network import Network, Preprocess, with_weights

__all__ = ["Logits", "from_hugging_face", "from_timm"]


class Logits(nn.Module):
    """The logits of an image classifier of transformers, as a tensor.

    Args:
        model: Takes ``pixel_values`` and gives an object with ``logits``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` to ``(N, classes)``."""
        logits: Tensor = self.model(pixel_values=x).logits
        return logits


def from_timm(name: str, weights: str | Path | None) -> Network:
    """Load one of timm's classifiers, with its own preprocessing and class names.

    Args:
        name: ``"timm:resnet18.a1_in1k"``, whatever ``timm.create_model`` takes after the colon.
        weights: None for timm's, from the cache or the hub; a file; or ``"random"``.

    Raises:
        ZooError: Timm is not installed, there is no such model, the hub cannot be reached, or the
            file does not fit.
    """
    timm, wanted = _installed("timm", "timm", name), name.partition(":")[2]
    with _loading(name, weights):
        if ":" not in wanted and not timm.is_model(wanted):
            known = timm.list_models()
            raise ZooError(f"timm has no model {wanted!r}{close(wanted.partition('.')[0], known)}")
        model = timm.create_model(wanted, pretrained=weights is None)
    if not getattr(model, "num_classes", 0):
        raise ZooError(f"{name!r} is not a classifier: timm says that it has no classes")
    settings = timm.data.resolve_data_config(model.pretrained_cfg, model=model)
    prepare = Preprocess(timm.data.create_transform(**settings, is_training=False))
    subset = timm.data.infer_imagenet_subset(model)
    classes = timm.data.ImageNetInfo(subset).label_descriptions() if subset else ()
    return _network(name, model, tuple(classes), prepare, weights)


def from_hugging_face(name: str, weights: str | Path | None) -> Network:
    """Load an image classifier of transformers, with its own preprocessing and class names.

    Args:
        name: ``"hf:google/vit-base-patch16-224"``; or ``"hf:FOLDER"``, with what
            ``save_pretrained`` of the model and of its image processor wrote.
        weights: None for its own, from the cache, the hub or the folder; a file; or ``"random"``.

    Raises:
        ZooError: Transformers is not installed, the hub cannot be reached, there is no such image
            classifier, or the file does not fit.
    """
    hugging, wanted = _installed("transformers", "hf", name), name.partition(":")[2]
    classifiers, own = hugging.AutoModelForImageClassification, {"trust_remote_code": False}
    with _loading(name, weights):
        processor = hugging.AutoImageProcessor.from_pretrained(wanted, **own)
        if weights is None:
            model, found = classifiers.from_pretrained(wanted, output_loading_info=True, **own)
            missing = [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]
            if missing:
                raise ZooError(
                    f"{name!r} is not a trained classifier: its weights lack {len(missing)} "
                    f"tensors ({', '.join(map(str, sorted(missing)[:3]))})"
                )
        else:
            config = hugging.AutoConfig.from_pretrained(wanted, **own)
            model = classifiers.from_config(config, **own)
    labels = model.config.id2label
    classes = tuple(str(labels[number]) for number in sorted(labels))
    if classes == tuple(f"LABEL_{number}" for number in range(len(classes))):
        classes = ()  # the names that transformers gives to unnamed classes

    def prepare(image: Image.Image) -> Tensor:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    return _network(name, Logits(model), classes, Preprocess(prepare), weights)


def _network(
    name: str,
    model: nn.Module,
    classes: tuple[str, ...],
    prepare: Callable[[Image.Image], Tensor],
    weights: str | Path | None,
) -> Network:
    # Mean and deviation come from two plain pictures, whatever a processor calls its options.
    black, white = (prepare(Image.new("RGB", (256, 256), (v,) * 3)) for v in (0, 255))
    middle = black.shape[-1] // 2
    low, high = (picture[:, middle, middle].double() for picture in (black, white))
    mean, std = (
        tuple(round(v, 6) for v in values.tolist())
        for values in (-low / (high - low), 1 / (high - low))
    )
    size = black.shape[-1]
    network = Network(model, classes, prepare, mean, std, size, name, {"weights": name})
    return network if weights is None else with_weights(network, weights)


def _installed(package: str, extra: str, name: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise ZooError(
            f"{name!r} needs an extra, and {package} is not installed: "
            f"pip install 'captum-pullback[{extra}]'"
        ) from error


@contextmanager
def _loading(name: str, weights: str | Path | None) -> Iterator[None]:
    """Report errors in one line, and hide the hub's log of retries."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)
    try:
        with torch.random.fork_rng(devices=[], enabled=weights != "random"):
            yield
    except ZooError:
        raise
    except Exception as error:  # of the hub, the disk, the configuration or the checksum
        said = " ".join(str(error).split())[:300]
        raise ZooError(
            f"{name!r} could not be loaded: {said}. Offline, give a copy of its files: "
            "--weights FILE for timm's models, hf:FOLDER for Hugging Face's"
        ) from error
    finally:
        hub.setLevel(level)
