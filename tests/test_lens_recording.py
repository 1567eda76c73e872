"""Recording: it leaves the model alone, survives being killed, and costs what it says."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Run
from torch import Tensor, nn
from training_runs import Small, recorded, trained

from captum_pullback import TrainingLens
from captum_pullback.lens.stepfiles import LensError


def test_labels_beyond_the_logits_are_refused(data: tuple[Tensor, Tensor]) -> None:
    lens = TrainingLens(data[0], data[1] + 90)
    with pytest.raises(LensError, match="labels up to 9"):
        lens.record(trained(0, data)[0], 0)
    assert lens.steps == []


def test_a_network_that_works_in_place_leaves_inputs_alone() -> None:
    x, y = torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    kept = x.clone()
    lens = TrainingLens(x, y)
    lens.record(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 3)), 0)
    assert torch.equal(lens.inputs, kept)
    assert torch.equal(x, kept)


def test_recording_leaves_the_model_as_it_was(data: tuple[Tensor, Tensor]) -> None:
    model = Small()
    model.bn.eval()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    lens = TrainingLens(*data)
    assert lens.record(model, 5)
    assert not lens.record(model, 5)
    assert model.training
    assert not model.bn.training
    assert model.conv1.training
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(parameter.grad is None for parameter in model.parameters())
    folder = lens.files.folder
    del lens
    assert not folder.exists()


def test_a_record_belongs_to_its_inputs(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    lens = TrainingLens(*data, tmp_path)
    lens.record(Small(), 0)
    assert TrainingLens(*data, tmp_path).steps == [0]
    with pytest.raises(LensError, match="inputs"):
        TrainingLens(data[0] + 1, data[1], tmp_path)
    with pytest.raises(LensError, match="weights"):
        TrainingLens(*data, tmp_path, weights=None)
    with pytest.raises(LensError, match="nothing is recorded"):
        TrainingLens(*data).similarity()
    without = recorded([Small()], data, gates=False)
    with pytest.raises(LensError, match="gates=True"):
        without.agreement()
    with pytest.raises(ValueError, match="labels"):
        TrainingLens(data[0], data[1][:3])


KILLED = """
import signal, sys
import numpy as np
import torch
from torch import nn
from captum_pullback import TrainingLens

x, y = torch.linspace(-1, 1, 64).view(8, 8), torch.arange(8) % 2
lens = TrainingLens(x, y, sys.argv[1])
write = np.savez

def half(file, **arrays):
    write(file, **arrays)
    file.truncate(200)
    file.flush()
    print("writing", flush=True)
    signal.pause()

for step in range(4):
    torch.manual_seed(step)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    np.savez = half if step == 2 else write
    lens.record(model, step)
"""


def one_of(step: int) -> nn.Module:
    """The model of a step in KILLED."""
    torch.manual_seed(step)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def test_a_killed_recording_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "lens"
    command = [sys.executable, "-c", KILLED, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert sorted(path.name for path in folder.glob("step_*")) == [
        "step_000000000.npz",
        "step_000000001.npz",
    ]
    assert len(list(folder.glob(".*.part"))) == 1
    whole = {path.name: path.stat().st_mtime_ns for path in folder.glob("step_*")}
    x, y = torch.linspace(-1, 1, 64).view(8, 8), torch.arange(8) % 2
    resumed = TrainingLens(x, y, folder)
    assert [resumed.record(one_of(step), step) for step in range(4)] == [False, False, True, True]
    assert not list(folder.glob(".*.part"))
    for name, changed in whole.items():
        assert (folder / name).stat().st_mtime_ns == changed
    unbroken = TrainingLens(x, y)
    for step in range(4):
        unbroken.record(one_of(step), step)
    np.testing.assert_array_equal(resumed.similarity().matrix, unbroken.similarity().matrix)
    for name, values in unbroken.agreement().items():
        np.testing.assert_array_equal(resumed.agreement()[name], values)


@pytest.mark.parametrize("fails", [False, True])
def test_two_lenses_on_one_folder_leave_each_other_s_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """As the ranks of a distributed training: one writes while the other has half written."""
    x, y = torch.linspace(-1, 1, 64).view(8, 8), torch.arange(8) % 2
    mine, other = TrainingLens(x, y, tmp_path), TrainingLens(x, y, tmp_path)
    write = np.savez

    def meanwhile(file: Any, **arrays: Any) -> None:
        monkeypatch.setattr(np, "savez", write)
        file.write(b"half of a file")
        file.flush()
        other.record(one_of(1), 1)
        if fails:
            raise OSError("no space left")
        file.seek(0)
        file.truncate()
        write(file, **arrays)

    monkeypatch.setattr(np, "savez", meanwhile)
    if fails:
        with pytest.raises(OSError, match="no space left"):
            mine.record(one_of(0), 0)
    else:
        mine.record(one_of(0), 0)
    assert mine.steps == ([1] if fails else [0, 1])
    assert not list(tmp_path.glob(".*"))
    for step in mine.steps:
        alone = TrainingLens(x, y)
        alone.record(one_of(step), step)
        with mine.files.read(step) as found, alone.files.read(step) as expected:
            for key in expected:
                np.testing.assert_array_equal(found[key], expected[key])


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_a_model_that_fails_on_its_way_into_eval_mode_is_left_as_it_was(
    error: BaseException,
) -> None:
    class Stubborn(nn.Linear):
        def train(self, mode: bool = True) -> nn.Module:
            if not mode:
                raise error
            return super().train(mode)

    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), Stubborn(8, 2))
    x, y = torch.linspace(-1, 1, 64).view(8, 8), torch.arange(8) % 2
    with pytest.raises(type(error)):
        TrainingLens(x, y).record(model, 0)
    assert [module.training for module in model.modules()] == [True] * 4


@pytest.mark.parametrize("weights", ["all", "label", None])
def test_cost_stays_within_the_share_asked_for(weights: str | None) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4))
    passes = {"forward": 0, "backward": 0}

    def counting(x: Tensor) -> Tensor:
        passes["forward"] += len(x)
        if x.requires_grad:
            x = x * 1
            x.register_hook(lambda g: passes.update(backward=passes["backward"] + len(x)))
        return body(x)

    x, y = torch.randn(20, 6), torch.arange(20) % 4
    lens = TrainingLens(x, y, weights=weights, batch_size=20)
    lens.record(Run(counting), 0)
    assert passes["backward"] == (20 if weights else 0)  # all classes in one
    classes = {"all": 4, "label": 1, None: 0}[weights]
    cost = passes["forward"] + 20 * classes
    every = lens.interval(classes=4, batch_size=8, share=0.05)
    assert cost <= 0.05 * every * 3 * 8
    assert cost > 0.05 * (every - 1) * 3 * 8


def test_lightning_callback_without_lightning(data: tuple[Tensor, Tensor]) -> None:
    lens = TrainingLens(*data)
    callback = lens.callback(2, model=lambda module: module.network)
    module, trainer = SimpleNamespace(network=Small()), SimpleNamespace(global_step=0)
    callback.on_train_start(trainer, module)
    for step in range(1, 6):
        trainer.global_step = step
        callback.on_train_batch_end(trainer, module, None, None, step)
    callback.on_train_end(trainer, module)
    assert lens.steps == [0, 2, 4, 5]
    trainer.global_step, trainer.is_global_zero = 6, False
    callback.on_train_batch_end(trainer, module, None, None, 6)
    assert lens.steps == [0, 2, 4, 5]
    with pytest.raises(ValueError, match="every"):
        lens.callback(0)
