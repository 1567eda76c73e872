"""The averaged-gate machine, against networks written by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_runs import recorded, trained

from captum_pullback import ExcitationPullback, TrainingLens, effective_weights, soften
from captum_pullback.lens.paths import FixedPaths, read_gates


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
