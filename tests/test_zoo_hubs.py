"""Networks of timm and transformers by name, from files alone."""

import pytest
import torch
from PIL import Image

from captum_pullback.zoo import load
from captum_pullback.zoo.errors import ZooError


@pytest.fixture
def no_hub(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_timm_with_a_file_of_weights(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", pretrained=False).eval()
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    network = load("timm:resnet10t", weights=tmp_path / "mine.pt")
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(network.model(x), model(x))
    assert network.classes[281].startswith("tabby")
    settings = timm.data.resolve_data_config(model.pretrained_cfg, model=model)
    assert network.mean == pytest.approx(settings["mean"], abs=1e-5)
    assert network.std == pytest.approx(settings["std"], abs=1e-5)
    assert network.input_size == settings["input_size"][-1]


def test_timm_says_what_it_cannot_load(no_hub):
    pytest.importorskip("timm")
    with pytest.raises(ZooError, match=r"no model 'resnet81' \(did you mean 'resnet18'"):
        load("timm:resnet81")
    with pytest.raises(ZooError, match=r"could not be loaded: .*--weights FILE") as caught:
        load("timm:resnet18.a1_in1k")
    assert "\n" not in str(caught.value)


def test_a_folder_of_hugging_faces(no_hub, tmp_path):
    hugging = pytest.importorskip("transformers")
    config = hugging.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        image_size=32, patch_size=16, id2label={0: "cat", 1: "dog"},
    )  # fmt: skip
    model = hugging.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    with pytest.raises(ZooError, match="could not be loaded"):  # it has no preprocessing yet
        load(f"hf:{tmp_path}")
    size = {"height": 32, "width": 32}
    hugging.ViTImageProcessor(size=size, image_std=[0.25] * 3).save_pretrained(tmp_path)
    network = load(f"hf:{tmp_path}")
    assert (network.classes, network.input_size) == (("cat", "dog"), 32)
    assert network.mean == pytest.approx([0.5] * 3, abs=1e-5)
    assert network.std == pytest.approx([0.25] * 3, abs=1e-5)
    x = network.preprocess(Image.new("L", (50, 40), 255))[None]
    torch.testing.assert_close(x, torch.full((1, 3, 32, 32), 2.0))
    assert torch.equal(network.model(x), model(pixel_values=x).logits)
