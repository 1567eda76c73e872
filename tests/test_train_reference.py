"""Training of the reference networks: interrupted, resumed, exported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.reference import ReferenceNet


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
    run, _, _ = trainer
    from benchmarks.export import preprocessed

    run("out", "--export", str(tmp_path / "net.pt"))
    network = zoo.read_network(tmp_path / "net.pt", "net")
    assert network.classes == ("dog", "n2", "cat")
    inputs = torch.stack(list(preprocessed(network, tmp_path / "data" / "val")))
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
