"""The networks by name, their weights, preprocessing and classes."""

import hashlib
import json
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
from captum_pullback.zoo.packing import dequantize, pack, quantize, unpack
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


# The network


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


# int8


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


# Files


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


# Training


class InterruptedHereError(Exception):
    pass


@pytest.fixture
def trainer(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for label in ("n1", "n2", "n3"):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                picture = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(picture).save(folder / f"{index}.png")
    (tmp_path / "data" / "classes.csv").write_text("wnid,name\nn3,cat\nn1,dog\n")
    from benchmarks import train_reference

    monkeypatch.setattr(train_reference, "tqdm", lambda items, *_args, **_kwargs: items)
    data = ["--data", str(tmp_path / "data"), "--epochs", "1", "--polish", "2", "--batch-size", "8"]
    deterministic = torch.are_deterministic_algorithms_enabled()

    def run(out: str, *more: str) -> dict[str, torch.Tensor]:
        folder = tmp_path / out
        arguments = [*data, "--out", str(folder), "--widths", "4", "4", "4", "4", *more]
        train_reference.main(arguments)
        return torch.load(folder / "checkpoint_000009.pt", weights_only=True)

    yield run, train_reference, monkeypatch
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.parametrize("more", [["--batch-norm"], ["--no-batch-norm", "--no-bf16"]])
def test_interrupted_training_ends_as_an_unbroken_one(trainer, more, tmp_path):
    run, module, monkeypatch = trainer
    whole = run("whole", *more)
    steps = sorted(path.name for path in (tmp_path / "whole").glob("checkpoint_*"))
    assert steps == [f"checkpoint_{step:06d}.pt" for step in (0, 1, 2, 3, 4, 6, 8, 9)]

    save = module.save

    def save_until(last):
        def save_or_stop(state, path):
            if state["step"] > last:
                raise InterruptedHereError
            save(state, path)

        return save_or_stop

    for last in (3, 6):  # at the end of the first cycle, and in the middle of the second
        with monkeypatch.context() as patch:
            patch.setattr(module, "save", save_until(last))
            with pytest.raises(InterruptedHereError):
                run("broken", *more)
    again = run("broken", *more)
    assert (again["step"], again["epoch"]) == (whole["step"], whole["epoch"]) == (9, 3)
    for key, value in whole["model"].items():
        assert torch.equal(again["model"][key], value), key
    other = run("other", "--seed", "1", *more)
    assert not torch.equal(other["model"]["fc.weight"], whole["model"]["fc.weight"])


@pytest.mark.parametrize(("widths", "last"), [("4 8 8 8", False), ("8 8 8 8", True)])
def test_few_channels_are_not_trained_channels_last(trainer, widths, last):
    """There oneDNN's weight gradients are wrong on CPUs with AVX2 only, or never come."""
    run, module, monkeypatch = trainer
    seen = set()

    class Watched(ReferenceNet):
        def forward(self, x):
            if self.training:
                for tensor in (x, self.layer3[0].conv1.weight):
                    seen.add(tensor.is_contiguous(memory_format=torch.channels_last))
                    seen.add(not tensor.is_contiguous())
            return super().forward(x)

    monkeypatch.setattr(module, "ReferenceNet", Watched)
    run("out", "--widths", *widths.split())
    assert seen == {last}


def test_export_measures_what_it_wrote(trainer, tmp_path):
    run, module, _ = trainer
    run("out", "--export", str(tmp_path / "net.pt"))
    network = zoo.read_network(tmp_path / "net.pt", "net")
    assert network.classes == ("dog", "n2", "cat")
    inputs = torch.stack(list(module.preprocessed(network, tmp_path / "data" / "val")))
    found = network.model(inputs).argmax(1)
    expected = torch.tensor([0, 0, 1, 1, 2, 2])
    right = (found == expected).float()
    assert network.meta["accuracy"] == pytest.approx(right.mean().item(), abs=1e-4)
    per_class = dict(zip(network.classes, right.view(3, 2).mean(1).tolist(), strict=True))
    assert network.meta["accuracy_per_class"] == per_class
    assert str(tmp_path) not in (tmp_path / "net.json").read_text()


def test_augmented_pictures_are_shifted_and_flipped_crops(trainer):
    _, module, _ = trainer
    ramp = torch.arange(64, dtype=torch.uint8).expand(32, 3, 64, 64).contiguous()
    one, same, other = (
        module.augment(ramp, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    slope = one[:, 0, 30, 31:33].diff(dim=1) * 0.229 * 255  # the ramp's, or its mirror image's
    assert set(slope.round().flatten().tolist()) == {1.0, -1.0}
    middle = (one[:, 0, 30, 31] * 0.229 + 0.485) * 255
    shift = torch.minimum((middle - 31).abs(), (middle - 32).abs()).round()
    assert shift.max() == 8
    assert len(shift.unique()) > 4


def test_packed_weights_are_contiguous_whatever_they_were_trained_in(tiny):
    weights = unpack(pack(tiny.to(memory_format=torch.channels_last))).parameters()
    assert all(weight.is_contiguous() for weight in weights)
