"""The lens: measures against brute force, averaged gates by hand, and records that survive."""

from __future__ import annotations

import copy
import math
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
import torch.nn.functional as F
from torch import Tensor, nn

from captum_pullback import ExcitationPullback, TrainingLens, effective_weights, soften
from captum_pullback.lens.paths import FixedPaths, read_gates
from captum_pullback.lens.similarity import class_similarity, cosines, subclasses
from captum_pullback.lens.stability import (
    auc,
    likeliest_temperature,
    log_likelihood,
    roc,
    settledness,
    step_weights,
)
from captum_pullback.lens.stepfiles import LensError


class Small(nn.Module):
    """Every kind of gate that is recorded: a module's, one used twice, a pool, a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.bn, self.relu, self.pool = nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)
        self.head = nn.Linear(27, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.bn(self.conv1(x))))
        x = self.relu(x + self.conv2(x))
        return self.head(F.leaky_relu(x.flatten(1) - 0.2, 0.1))


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(10, 1, 6, 6, generator=generator), torch.arange(10) % 3


def trained(steps: int, data: tuple[Tensor, Tensor], seed: int = 0) -> list[nn.Module]:
    """The model at each step of a short training."""
    torch.manual_seed(seed)
    model = Small()
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    states = [copy.deepcopy(model)]
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
        states.append(copy.deepcopy(model))
    return states


def recorded(
    models: list[nn.Module], data: tuple[Tensor, Tensor], **options: object
) -> TrainingLens:
    lens = TrainingLens(*data, **options)
    for step, model in enumerate(models):
        assert lens.record(model, 10 * step)
    return lens


# Similarity


def test_similarities_against_brute_force(data: tuple[Tensor, Tensor]) -> None:
    models = trained(3, data)
    lens = recorded(models, data, batch_size=4, max_bytes=3000)  # parts, of examples and classes
    x, y = data
    for rows in ("label", "all"):
        measured = lens.similarity(rows)
        assert measured.steps.tolist() == [0, 10, 20, 30]
        for s, model in enumerate(models):
            weight, _ = effective_weights(model.eval(), x)
            vectors = weight.flatten(1) if rows == "all" else weight[range(10), y].flatten(1)
            sums: dict[tuple[int, int], list[float]] = {}
            for i in range(10):
                for j in range(10):
                    if i != j:
                        pair = (int(y[i]), int(y[j]))
                        cosine = F.cosine_similarity(vectors[i], vectors[j], dim=0)
                        sums.setdefault(pair, []).append(float(cosine))
            for (a, b), values in sums.items():
                assert measured.matrix[s, a, b] == pytest.approx(np.mean(values), abs=1e-5)
            within = np.mean([np.mean(sums[c, c]) for c in range(3)])
            between = np.mean([np.mean(sums[a, b]) for a, b in sums if a != b])
            assert measured.within[s] == pytest.approx(within, abs=1e-5)
            assert measured.between[s] == pytest.approx(between, abs=1e-5)
            assert measured.margin[s] == pytest.approx(within - between, abs=1e-5)
            assert measured.per_class[s, 0] == pytest.approx(np.mean(sums[0, 0]), abs=1e-5)


def test_class_of_one_example_and_weights_of_no_length() -> None:
    gram = np.array([[4.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    similarity = cosines(gram)
    np.testing.assert_allclose(similarity, [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]])
    matrix = class_similarity(similarity, [0, 0, 7])
    np.testing.assert_allclose(matrix, [[0.5, 0.0], [0.0, np.nan]])


def test_subclasses_are_found() -> None:
    generator = np.random.default_rng(0)
    centers = np.array([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]])
    kinds = np.repeat([0, 1, 2], 6)  # two kinds in class 0, one in class 1
    vectors = centers[kinds] + 0.1 * generator.normal(size=(18, 3))
    labels = (kinds == 2).astype(int)
    found = subclasses([np.ones((18, 18)), vectors @ vectors.T], labels)
    assert len(set(found.groups[:6])) == len(set(found.groups[6:12])) == 1
    assert found.groups[0] != found.groups[6]
    assert found.within[1, 0] > 0.99
    assert abs(found.between[1, 0]) < 0.1
    assert found.share[1, 0] > 0.95
    assert found.between[1, 1] > 0.99
    np.testing.assert_allclose(found.between[0], 1)


def test_a_sketch_keeps_inner_products() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3000, 8), nn.ReLU(), nn.Linear(8, 2))
    x, y = torch.randn(6, 3, 1000), torch.tensor([0, 1, 0, 1, 0, 1])
    lens = recorded([model], (x, y), weights="label", kept=1024)
    rows = lens.rows()[0]
    assert rows.shape == (6, 1024)
    weight, _ = effective_weights(model, x, y)
    exact = F.normalize(weight.flatten(1), dim=1)
    np.testing.assert_allclose(rows @ rows.T, (exact @ exact.T).numpy(), atol=5 / math.sqrt(1024))
    with pytest.raises(LensError, match="all"):
        lens.similarity("all")


# Gates


def gates_of(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """By hand, for Small."""
    with torch.no_grad():
        z1 = model.bn(model.conv1(x))
        pooled = model.pool(z1.relu())
        z2 = pooled + model.conv2(pooled)
        z3 = z2.relu().flatten(1) - 0.2
    return {"relu": z1, "relu (2)": z2, "(model)": z3}


def test_gate_measures_against_brute_force(data: tuple[Tensor, Tensor]) -> None:
    models = [model.eval() for model in trained(6, data)]
    lens = recorded(models, data, weights=None, batch_size=4)
    patterns = [{k: z > 0 for k, z in gates_of(model, data[0]).items()} for model in models]
    assert lens.layers == ["relu", "relu (2)", "(model)"]
    agreement, settled = lens.agreement(), lens.settled_share()
    measured = lens.settledness(models[-1])
    for name in lens.layers:
        bits = torch.stack([pattern[name] for pattern in patterns]).flatten(1)
        same = bits == bits[-1]
        np.testing.assert_allclose(agreement[name], same.double().mean(1))
        stays = torch.stack([same[s:].all(0) for s in range(7)])
        np.testing.assert_allclose(settled[name], stays.double().mean(1))
        z = gates_of(models[-1], data[0])[name].flatten()
        is_settled = same[3:].all(0)
        assert measured[name].share == pytest.approx(float(is_settled.double().mean()))
        positive, negative = z.abs()[is_settled], z.abs()[~is_settled]
        wins = (positive[:, None] > negative).double() + 0.5 * (positive[:, None] == negative)
        assert measured[name].auc == pytest.approx(float(wins.mean()), abs=1e-6)
        shown_z, opened = lens.open_share(models[-1])[name]
        np.testing.assert_allclose(shown_z, z, atol=1e-6)
        np.testing.assert_allclose(opened, bits[3:6].double().mean(0))


def test_roc_with_ties_and_without_negatives() -> None:
    across, up = roc([3, 2, 2, 1], [True, True, False, False])
    np.testing.assert_allclose(across, [0, 0, 0.5, 1])
    np.testing.assert_allclose(up, [0, 0.5, 1, 1])
    assert auc([3, 2, 2, 1], [True, True, False, False]) == pytest.approx(7 / 8)
    assert math.isnan(auc([1, 2], [True, True]))
    assert math.isnan(settledness(np.array([1.0, 2.0]), np.array([True, True])).auc)


def test_likeliest_temperature_is_the_one_that_made_the_gates() -> None:
    generator = np.random.default_rng(0)
    z = generator.normal(size=(3, 200_000))
    truth = np.array([0.1, 0.5, 2.0])
    opened = generator.binomial(8, 1 / (1 + np.exp(-z / truth[:, None]))) / 8
    np.testing.assert_allclose(likeliest_temperature(z, opened), truth, rtol=0.02)
    best = float(likeliest_temperature(z[:1], opened[:1])[0])
    most = log_likelihood(z[0], opened[0], best)
    assert most > log_likelihood(z[0], opened[0], 1.02 * best)
    assert most > log_likelihood(z[0], opened[0], best / 1.02)
    assert likeliest_temperature(z, z > 0).max() <= 1.1e-4
    assert np.isinf(likeliest_temperature(z, z < 0)).all()


def test_fitted_temperatures_are_temperatures(data: tuple[Tensor, Tensor]) -> None:
    models = [model.eval() for model in trained(6, data)]
    lens = recorded(models, data, weights=None)
    model = models[-1]
    fitted = lens.fit_temperatures(model)
    assert set(fitted) == {"module:relu", ""}
    every = lens.open_share(model)
    z, opened = (
        np.concatenate([every[name][part] for name in ("relu", "relu (2)")]) for part in (0, 1)
    )
    assert fitted["module:relu"] == pytest.approx(float(likeliest_temperature(z, opened)[0]))
    ExcitationPullback(model, fitted).attribute(data[0], data[1])
    channels = lens.fit_temperatures(model, per_channel=True)
    assert channels["module:relu"].shape == (3, 1, 1)
    assert len(set(channels["module:relu"].flatten().tolist())) == 3
    ExcitationPullback(model, channels).attribute(data[0], data[1])
    with pytest.raises(LensError, match="not the model of the last record"):
        lens.fit_temperatures(trained(0, data, seed=9)[0])


def test_a_module_of_many_widths_has_one_temperature(data: tuple[Tensor, Tensor]) -> None:
    """As one ReLU of a bottleneck: there are no channels that all its calls have."""

    class Widths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.relu = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 5, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.two(self.relu(self.one(x)))).mean((2, 3))

    x, y = torch.randn(6, 1, 8, 8), torch.arange(6) % 5
    lens = TrainingLens(x, y, weights=None)
    for step in range(3):
        torch.manual_seed(step)
        lens.record(model := Widths().eval(), step)
    assert lens.fit_temperatures(model, per_channel=True) == lens.fit_temperatures(model)


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_gate_of_one_unit_has_a_temperature_too(per_channel: bool) -> None:
    """Its input has no dimension but that of the examples."""

    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.relu = nn.Linear(4, 1), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.linear(x)[:, 0])[:, None]

    lens = TrainingLens(torch.randn(6, 4), torch.zeros(6, dtype=torch.int64), weights=None)
    for step in range(3):
        torch.manual_seed(step)
        lens.record(model := Single().eval(), step)
    fitted = lens.fit_temperatures(model, per_channel=per_channel)
    assert isinstance(fitted["module:relu"], float)


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


def test_step_weights_are_shares_of_time() -> None:
    np.testing.assert_allclose(step_weights([0, 1, 2, 4, 10]), [0.05, 0.1, 0.15, 0.4, 0.3])
    np.testing.assert_allclose(step_weights([5]), [1])


# The fixed-path machine


def test_averaged_gates_against_a_network_written_by_hand() -> None:
    torch.manual_seed(0)
    models = []
    for _ in range(3):
        models.append(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU()))
        models[-1].append(nn.Linear(6, 2)).double()
    x, y = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    lens = TrainingLens(x, y)
    for step, model in zip((0, 1, 4), models, strict=True):
        lens.record(model, step)
    first = second = 0.0
    for weight, model in zip((0.125, 0.5, 0.375), models, strict=True):
        z = model[0](x)
        first = first + weight * (z > 0)
        second = second + weight * (model[2](z.relu()) > 0)
    final = models[-1]
    rows = final[4].weight[y]
    expected = ((rows * second) @ final[2].weight * first) @ final[0].weight
    torch.testing.assert_close(lens.machine(final), expected.detach(), rtol=1e-10, atol=0)
    late = lens.alignment(final, [0.5], since=0.9 - 0.8)
    assert late.gradient.shape == (4,)
    aligned = lens.alignment(final, [0.3, 3.0])
    plain, _ = effective_weights(final, x, y)
    soft = ExcitationPullback(final, 0.3).attribute(x, y)
    for mine, other in ((aligned.gradient, plain[:, 0]), (aligned.pullback[0.3], soft)):
        np.testing.assert_allclose(mine, F.cosine_similarity(other, expected, dim=1).detach())
    assert aligned.best == max((0.3, 3.0), key=lambda t: aligned.pullback[t].mean())


def test_paths_of_the_model_itself_give_its_gradient(data: tuple[Tensor, Tensor]) -> None:
    model = trained(2, data)[-1].double().eval()
    x = data[0].double().requires_grad_()
    gates, output = read_gates(model, x)
    assert [gate.name for gate in gates] == ["relu", "pool", "relu (2)", "(model)"]
    given = [
        (gate.choice[None], torch.ones(1)) if gate.open is None else gate.open.double()
        for gate in gates
    ]
    expected = torch.autograd.grad(model(x)[:, 0].sum(), x)[0]
    with FixedPaths(given):
        again = model(x)
        gradient = torch.autograd.grad(again[:, 0].sum(), x)[0]
    torch.testing.assert_close(again.detach(), output)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("gate", [nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.MaxPool2d])
def test_a_pass_along_fixed_paths_gives_the_usual_output_to_the_bit(
    gate: Any, inplace: bool
) -> None:
    """Whatever the gates: a sum of the two would round, and has no value for infinities."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(10, 10, 10, 10, generator=generator) * 3
    x.view(-1)[:4] = torch.tensor([math.inf, -math.inf, 0.0, -0.0])
    module = gate(2) if gate is nn.MaxPool2d else gate(inplace=inplace)
    expected = module(x.clone())
    given: Any = torch.rand(x.shape, generator=generator)
    if gate is nn.MaxPool2d:
        choices = torch.randint(100, (3, 10, 10, 5, 5), generator=generator)
        given = (choices, torch.tensor([0.2, 0.3, 0.5]))
    leaf = x.clone().requires_grad_()
    with FixedPaths([given]):
        output = module(leaf * 1)
    assert torch.equal(output.view(torch.int32), expected.view(torch.int32))
    output.add_(1)  # it may be changed in place, as any other output


def test_averaged_choices_of_a_pool_and_gates_in_place() -> None:
    x = torch.tensor([[[[1.0, 3.0], [2.0, 0.0]]]], requires_grad=True)
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(inplace=True), nn.MaxPool2d(2))
    nn.init.ones_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    choices = torch.tensor([1, 2]).view(2, 1, 1, 1, 1)
    half = torch.tensor([[[[1.0, 0.5], [0.5, 1.0]]]])
    with FixedPaths([half, (choices, torch.tensor([0.25, 0.75]))]):
        output = model(x)
    assert output.item() == 3
    output.backward()
    assert x.grad.tolist() == [[[[0, 0.125], [0.375, 0]]]]


@pytest.mark.parametrize("gate", [nn.ReLU6(), nn.Hardtanh(), nn.LeakyReLU(0.1), nn.PReLU()])
def test_other_gates_are_open_where_they_pass(gate: nn.Module) -> None:
    z = torch.tensor([[-2.0, -0.5, 0.5, 7.0]], requires_grad=True)
    slope = torch.autograd.grad(gate(z).sum(), z)[0]
    gates, _ = read_gates(gate, z.detach())
    assert torch.equal(gates[0].open, slope == 1)
    with FixedPaths([gates[0].open.float()]):
        fixed = torch.autograd.grad(gate(z).sum(), z)[0]
    torch.testing.assert_close(fixed, slope)


# Recording


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

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            passes["forward"] += len(x)
            if x.requires_grad:
                x = x * 1
                x.register_hook(lambda g: passes.update(backward=passes["backward"] + len(x)))
            return body(x)

    x, y = torch.randn(20, 6), torch.arange(20) % 4
    lens = TrainingLens(x, y, weights=weights, batch_size=20)
    lens.record(Counting(), 0)
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


def test_projections(data: tuple[Tensor, Tensor]) -> None:
    pytest.importorskip("sklearn")
    lens = recorded(trained(3, data), data)
    places = lens.projection()
    assert places.shape == (4, 10, 2)
    flat = lens.rows().reshape(40, -1).astype(np.float64)
    _, values, axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    for axis in range(2):
        mine, svd = places[..., axis].ravel(), (flat - flat.mean(0)) @ axes[axis]
        assert abs(mine @ svd) == pytest.approx(values[axis] ** 2, rel=1e-4)
    np.testing.assert_array_equal(lens.projection("tsne"), lens.projection("tsne"))


def test_softening_at_the_machine_is_what_alignment_does(data: tuple[Tensor, Tensor]) -> None:
    models = trained(4, data)
    lens = recorded(models, data)
    model = models[-1].eval()
    machine = lens.machine(model)
    x = data[0].clone().requires_grad_()
    with soften(model, 0.4):
        pullback = torch.autograd.grad(model(x).gather(1, data[1][:, None]).sum(), x)[0]
    expected = F.cosine_similarity(pullback.flatten(1), machine.flatten(1), dim=1)
    measured = lens.alignment(model, [0.4]).pullback[0.4]
    np.testing.assert_allclose(measured, expected, atol=1e-5)


@pytest.mark.parametrize("gate", [nn.GELU(), nn.SiLU(), nn.Hardswish(inplace=True)])
def test_graded_gates_are_open_where_more_than_half_passes(gate: nn.Module) -> None:
    z = torch.tensor([[-4.0, -0.5, 0.5, 7.0]])
    gates, _ = read_gates(gate, z)
    assert torch.equal(gates[0].open, gate(z.clone()) / z > 0.5)
    leaf = z.clone().requires_grad_()
    with FixedPaths([torch.tensor([[0.1, 0.2, 0.3, 0.4]])]):
        output = gate(leaf * 1)
    assert torch.equal(output, gate(z.clone()))
    output.sum().backward()
    torch.testing.assert_close(leaf.grad, torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
