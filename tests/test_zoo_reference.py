"""The embedded network, its architecture, and how its weights are packed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.networks import ZooError, load
from captum_pullback.zoo.packing import dequantize, pack, quantize, unpack
from captum_pullback.zoo.reference import ReferenceNet


@pytest.fixture
def tiny() -> ReferenceNet:
    torch.manual_seed(0)
    model = ReferenceNet(3, (4, 6, 8, 10)).train()
    model(torch.randn(8, 3, 16, 16))  # moves the running statistics off 0 and 1
    return model.eval()


@pytest.fixture
def packed(tiny, tmp_path) -> Path:
    path = tmp_path / "tiny.pt"
    path.write_bytes(pack(tiny))
    meta = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "classes": ["a", "b", "c"],
        "mean": [0.5, 0.25, 0.0],
        "std": [0.5, 1.0, 2.0],
        "input_size": 16,
        "accuracy": 0.5,
    }
    path.with_suffix(".json").write_text(json.dumps(meta))
    return path


def test_reference_net_is_half_a_resnet18():
    model = ReferenceNet()
    whole = torchvision.models.resnet18(num_classes=24)
    assert model.state_dict().keys() == whole.state_dict().keys()
    for key, value in whole.state_dict().items():
        if value.ndim > 1 and key not in ("conv1.weight", "fc.weight"):
            assert model.state_dict()[key].shape[0] * 2 == value.shape[0], key
    gates = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    assert len(gates) == 9  # the stem's, and one for both gates of each block


def test_reference_net_equals_its_formula(tiny):
    x = torch.randn(2, 3, 16, 16)
    y = torch.relu(tiny.bn1(tiny.conv1(x)))
    y = nn.functional.max_pool2d(y, 3, 2, 1)
    for stage in (tiny.layer1, tiny.layer2, tiny.layer3, tiny.layer4):
        for block in stage:
            branch = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(y)))))
            y = torch.relu(branch + block.downsample(y))
    torch.testing.assert_close(tiny(x), tiny.fc(y.mean((2, 3))))


def test_without_batch_norm_residual_branches_begin_at_zero():
    model = ReferenceNet(5, (4, 6, 8, 10), batch_norm=False)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert all(m.bias is not None for m in model.modules() if isinstance(m, nn.Conv2d))
    y = torch.rand(1, 4, 8, 8)
    assert torch.equal(model.layer1(y), y)
    assert torch.equal(model(torch.rand(2, 3, 16, 16)), torch.zeros(2, 5))


@pytest.mark.parametrize("shape", [(7, 5), (8, 3, 3, 3), (4, 4, 1, 1)])
def test_quantising_is_off_by_half_a_step_at_most(shape):
    weight = torch.randn(shape) * torch.logspace(-6, 3, shape[0]).view(-1, *[1] * (len(shape) - 1))
    rounded, scale = quantize(weight)
    assert rounded.dtype == torch.int8
    assert scale.shape == (shape[0],)
    error = weight.double() - rounded.double() * scale.double().view(-1, *[1] * (len(shape) - 1))
    bound = scale.double() / 2 * (1 + 1e-5)
    assert (error.abs().flatten(1).amax(1) <= bound).all()
    assert error.abs().max() > 0  # the bound would hold for nothing otherwise
    assert (rounded.abs().flatten(1).amax(1) == 127).all()
    torch.testing.assert_close(dequantize(rounded, scale).double(), weight.double() - error)


def test_quantising_keeps_channels_of_zeros():
    weight = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    assert torch.equal(dequantize(*quantize(weight))[0], torch.zeros(2))
    assert dequantize(*quantize(weight))[1, 1] == -2


def test_packing_twice_changes_nothing_more(tiny):
    once = unpack(pack(tiny))
    twice = unpack(pack(once))
    for key, value in tiny.state_dict().items():
        if value.ndim <= 1:
            assert torch.equal(once.state_dict()[key], value), key
        torch.testing.assert_close(twice.state_dict()[key], once.state_dict()[key])
    assert once.settings == tiny.settings


def test_packed_network_computes_nearly_the_same(tiny):
    x = torch.randn(4, 3, 16, 16)
    exact, near = tiny(x), unpack(pack(tiny)).eval()(x)
    assert not torch.equal(exact, near)
    assert (exact - near).norm() < 0.05 * exact.norm()


def test_read_network_gives_what_was_written(packed):
    network = zoo.read_network(packed, "tiny")
    assert network.classes == ("a", "b", "c")
    assert network.meta["accuracy"] == 0.5
    picture = Image.fromarray(np.full((20, 40, 3), 255, np.uint8))
    inputs = network.preprocess(picture)
    assert inputs.shape == (3, 16, 16)
    assert inputs[:, 0, 0].tolist() == [1.0, 0.75, 0.5]  # (1 - mean) / std
    torch.testing.assert_close(network.pixels(inputs), torch.ones(3, 16, 16))


@pytest.mark.parametrize("position", [0, 1000, -1])
def test_one_flipped_bit_is_found(packed, position):
    data = bytearray(packed.read_bytes())
    data[position] ^= 1
    packed.write_bytes(data)
    with pytest.raises(ZooError, match=r"damaged.*tiny\.pt has sha256"):
        zoo.read_network(packed, "tiny")


def test_embedded_file_is_checked(monkeypatch, tmp_path):
    for suffix in (".pt", ".json"):
        source = zoo.EMBEDDED.with_suffix(suffix)
        (tmp_path / source.name).write_bytes(source.read_bytes()[: -1 if suffix == ".pt" else None])
    monkeypatch.setattr(zoo, "EMBEDDED", tmp_path / zoo.EMBEDDED.name)
    with pytest.raises(ZooError, match="damaged"):
        load("embedded")


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"sha256": "0"}'])
def test_missing_or_broken_metadata(packed, text):
    packed.with_suffix(".json").unlink()
    if text is not None:
        packed.with_suffix(".json").write_text(text)
    with pytest.raises(ZooError, match="cannot read the weights of 'tiny'"):
        zoo.read_network(packed, "tiny")


def test_packed_weights_are_contiguous_whatever_they_were_trained_in(tiny):
    weights = unpack(pack(tiny.to(memory_format=torch.channels_last))).parameters()
    assert all(weight.is_contiguous() for weight in weights)
