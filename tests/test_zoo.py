"""The networks by name, their weights, preprocessing and classes."""

import hashlib
import os
import re
import urllib.error
from pathlib import Path

import matplotlib.cbook
import numpy as np
import pytest
import torch
import torchvision
from captum.attr import Saliency
from PIL import Image
from torch import nn

from captum_pullback import ExcitationPullback, effective_weights
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.networks import Network, ZooError, class_index, load, reference_network
from captum_pullback.zoo.reference import ReferenceNet

CLASSES = (
    "goldfish",
    "koala",
    "jellyfish",
    "king penguin",
    "golden retriever",
    "tabby",
    "lion",
    "ladybug",
    "monarch",
    "African elephant",
    "lesser panda",
    "beacon",
    "military uniform",
    "projectile",
    "school bus",
    "spider web",
    "sports car",
    "suspension bridge",
    "teapot",
    "triumphal arch",
    "lemon",
    "banana",
    "pizza",
    "espresso",
)


@pytest.fixture(scope="module")
def embedded() -> Network:
    return reference_network()


def photograph(name: str) -> Image.Image:
    if name == "grace_hopper":
        with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
            return Image.open(file).convert("RGB")
    data = pytest.importorskip("skimage.data")
    return Image.fromarray(getattr(data, name)())


# The embedded network


def test_embedded_classes_are_in_the_order_of_training(embedded):
    assert embedded.classes == CLASSES
    folders = embedded.meta["folders"]
    assert folders == sorted(folders)
    assert folders[23] == "n07920052"


@pytest.mark.parametrize(
    ("photo", "label"),
    [("coffee", "espresso"), ("rocket", "projectile"), ("grace_hopper", "military uniform")],
)
def test_embedded_names_what_is_on_a_photograph(embedded, photo, label):
    inputs = embedded.preprocess(photograph(photo)).unsqueeze(0)
    assert inputs.shape == (1, 3, 64, 64)
    assert embedded.classes[int(embedded.model(inputs).argmax())] == label


def test_embedded_says_where_it_comes_from(embedded):
    meta = embedded.meta
    assert 0.8 <= meta["accuracy"] <= 1
    per_class = list(meta["accuracy_per_class"].values())
    assert np.mean(per_class) == pytest.approx(meta["accuracy"], abs=1e-3)
    assert set(meta["accuracy_per_class"]) == set(CLASSES)
    assert meta["parameters"] == sum(p.numel() for p in embedded.model.parameters())
    assert f"--seed {meta['seed']}" in meta["command"]
    assert zoo.EMBEDDED.stat().st_size <= 4e6
    assert meta["sha256"] == hashlib.sha256(zoo.EMBEDDED.read_bytes()).hexdigest()


def test_embedded_can_be_differentiated_and_is_in_eval_mode(embedded):
    assert not any(module.training for module in embedded.model.modules())
    assert all(p.requires_grad and not p.is_meta for p in embedded.model.parameters())
    inputs = torch.rand(2, 3, 64, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(embedded.model(inputs)[:, 3].sum(), inputs)
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0


def test_loading_draws_no_random_numbers():
    state = torch.get_rng_state()
    load("embedded")
    assert torch.equal(torch.get_rng_state(), state)


def test_embedded_with_weights_from_a_file(tmp_path):
    torch.manual_seed(3)
    other = load("embedded", weights="random")
    torch.save(other.model.state_dict(), tmp_path / "other.pt")
    state = torch.get_rng_state()
    again = load("embedded", weights=tmp_path / "other.pt")
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(again.model(x), other.model(x))
    assert "accuracy" not in again.meta  # that was the other weights'


# torchvision


def test_torchvision_preprocessing_and_classes():
    network = load("resnet18", weights="random")
    transform = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    picture = photograph("grace_hopper")
    assert torch.equal(network.preprocess(picture), transform(picture))
    gray = network.preprocess(picture.convert("L"))
    assert torch.equal(gray, transform(picture.convert("L").convert("RGB")))
    assert network.input_size == 224
    assert (network.classes[281], network.classes[967]) == ("tabby", "espresso")
    assert network.meta == {"weights": "random"}
    assert not network.model.training


def test_random_weights_follow_the_seed():
    first, second = (
        torch.manual_seed(1) and load("squeezenet1_1", weights="random") for _ in range(2)
    )
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def no_network(*_args, **_kwargs):
    raise urllib.error.URLError("no route to host")


@pytest.mark.parametrize(
    ("weights", "file"),
    [(None, "resnet50-11ad3fa6.pth"), ("IMAGENET1K_V1", "resnet50-0676ba61.pth")],
)
def test_failed_download_says_what_to_do(monkeypatch, tmp_path, weights, file):
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = torch.get_rng_state()
    with pytest.raises(ZooError) as caught:
        load("resnet50", weights=weights)
    message = str(caught.value)
    assert f"https://download.pytorch.org/models/{file}" in message
    assert str(tmp_path / "hub" / "checkpoints" / file) in message
    assert "--weights FILE" in message
    assert "no route to host" in message
    assert torch.equal(torch.get_rng_state(), state)


def test_damaged_cache_is_named(monkeypatch, tmp_path):
    cached = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"<html>not found</html>")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ZooError, match=re.escape(str(cached))):
        load("squeezenet1_1")


def test_cached_weights_are_used(monkeypatch, tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1()
    cached = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    cached.parent.mkdir(parents=True)
    torch.save(model.state_dict(), cached)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    x = torch.rand(1, 3, 64, 64)
    network = load("squeezenet1_1")
    assert torch.equal(network.model(x), model.eval()(x))
    assert network.meta["weights"] == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert network.meta["num_params"] == 1235496


def test_weights_from_a_file(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    state = torch.get_rng_state()
    network = load("resnet18", weights=str(tmp_path / "mine.pt"))
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(network.model(x), model(x))


@pytest.mark.slow
def test_densenet_takes_the_file_that_torchvision_publishes(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.densenet121().eval()
    published = {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12])", r"\1.\2", key): value
        for key, value in model.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    torch.save(published, tmp_path / "densenet.pt")
    loaded = load("densenet121", weights=tmp_path / "densenet.pt").model
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_googlenet_from_a_file_transforms_its_input(tmp_path):
    # torchvision sets this for its own weights only; without it the same file predicts worse.
    assert load("googlenet", weights="random").model.transform_input is True


class Danger:
    def __reduce__(self):
        return os.system, ("false",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Danger(), r"contains a Python object, \w+\.system, .*torch\.save\(model\.state_dict\(\)"),
        ("renamed", r"does not fit: 1 missing \(conv1\.weight\), 1 not in .*\(other\.weight\)"),
        (None, "there is no file"),
    ],
)
def test_weights_that_cannot_be_used(tmp_path, content, message):
    """More of them, as the command line says it, are in ``test_bad_commands``."""
    path = tmp_path / "weights.pt"
    if content == "renamed":
        state = ReferenceNet().state_dict()
        content = {k.replace("conv1.weight", "other.weight") if k[0] == "c" else k: v
                   for k, v in state.items()}  # fmt: skip
    if content is not None:
        torch.save(content, path)
    with pytest.raises(ZooError, match=message) as caught:
        load("embedded", weights=path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", "'resnet50'"),
        ("embeded", "'embedded'"),
        ("maskrcnn_resnet50_fpn", "no network is called"),
        ("", "no network is called"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ZooError, match=message):
        load(name)


# package.module:function


def test_function_that_makes_a_module():
    network = load("tiny:unnamed")
    assert network.classes == ()
    assert not any(module.training for module in network.model.modules())
    assert network.preprocess(Image.new("RGB", (300, 400))).shape == (3, 224, 224)


def test_function_that_makes_a_network(tmp_path):
    network = load("tiny:reused")
    assert (network.classes, network.name, network.input_size) == (("one", "two"), "tiny", 32)
    assert not network.model.training
    state = {"1.weight": torch.ones(5, 768), "1.bias": torch.zeros(5)}
    torch.save(state, tmp_path / "ones.pt")
    filled = load("tiny:linear", weights=tmp_path / "ones.pt")
    assert filled.model(torch.ones(1, 3, 16, 16)).tolist() == [[768.0] * 5]


def test_errors_of_a_function_come_through():
    with pytest.raises(KeyError, match="weights"):
        load("tiny:raises")


def test_twin_without_batch_norm(embedded, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    twin = load("benchmarks.networks:without_batch_norm")
    assert twin.classes == embedded.classes
    assert not any(isinstance(m, nn.BatchNorm2d) for m in twin.model.modules())
    inputs = twin.preprocess(photograph("coffee")).unsqueeze(0)
    assert twin.classes[int(twin.model(inputs).argmax())] == "espresso"


def test_hybrid_is_its_affine_map_with_gates_held(embedded, monkeypatch):
    """f(x) = <W, x> + b, of GELU, LayerNorm, attention and squeeze-and-excitation together."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    hybrid = load("benchmarks.networks:hybrid")
    assert hybrid.classes == embedded.classes
    inputs = hybrid.preprocess(photograph("coffee")).unsqueeze(0)
    assert hybrid.classes[int(hybrid.model(inputs).argmax())] == "espresso"
    model, x = hybrid.model.double(), inputs.double()
    weight, bias = effective_weights(model, x)
    torch.testing.assert_close(
        (weight * x[:, None]).sum((2, 3, 4)) + bias, model(x), rtol=0, atol=1e-10
    )
    hard = ExcitationPullback(model, 0).attribute(x, target=3)
    torch.testing.assert_close(hard, weight[:, 3], rtol=0, atol=1e-12)
    assert not torch.allclose(
        hard, Saliency(model).attribute(x.requires_grad_(), target=3, abs=False), rtol=0.1
    )


# Classes


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (0, 0),
        (23, 23),
        (np.int64(5), 5),
        (torch.tensor(5), 5),
        ("7", 7),
        (" lion ", 6),
        ("LION", 6),
        ("african elephant", 9),
        ("military_uniform", 12),
        ("lady", 7),
        ("retriever", 4),
        ("king", 3),
        ("panda", 10),
    ],
)
def test_class_index(wanted, index):
    assert class_index(CLASSES, wanted) == index


@pytest.mark.parametrize(
    ("classes", "wanted", "index"),
    [
        (["tabby, tabby cat", "tiger cat"], "tabby", 0),
        (["tabby, tabby cat", "tiger cat"], "Tabby Cat", 0),
        (["sea lion", "lion"], "lion", 1),
        (["zero", "7", "two"], "7", 1),
        (["a.c", "abc"], "a.c", 0),
        ([], "5", 5),
        ([], 999, 999),
    ],
)
def test_class_index_prefers_whole_names(classes, wanted, index):
    assert class_index(classes, wanted) == index


@pytest.mark.parametrize(
    ("classes", "wanted", "message"),
    [
        (CLASSES, "gold", r"0 \(goldfish\), 4 \(golden retriever\)"),
        (["catamaran", "tabby cat"], "cat", r"0 \(catamaran\), 1 \(tabby cat\)"),
        (["crane", "crane"], "crane", r"0 \(crane\), 1 \(crane\)"),
        (CLASSES, "expresso", "did you mean 'espresso'"),
        (CLASSES, "submarine", "no class is called 'submarine'"),
        (["cat", "dog"], "submarine", "'submarine'; the classes are 'cat', 'dog'"),
        (CLASSES, "", "no class is called ''"),
        (CLASSES, "24", "class 24 is not in the range 0 to 23"),
        (CLASSES, 24, "class 24 is not in the range 0 to 23"),
        (CLASSES, -1, "class -1 is not in the range 0 to 23"),
        (CLASSES, "-1", "class -1 is not in the range 0 to 23"),
        ([], -1, "class -1"),
        ([], "lion", "no class is called 'lion'"),
    ],
)
def test_class_index_refuses(classes, wanted, message):
    with pytest.raises(ZooError, match=message):
        class_index(classes, wanted)
