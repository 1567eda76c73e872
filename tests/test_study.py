"""What commands, app and benchmarks share: rows of scores, methods, files of weights, errors."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from PIL import Image
from tiny import Run
from torch import Tensor, nn

from captum_pullback.app import work
from captum_pullback.app.question import Loaded, Photo
from captum_pullback.study import loading, methods
from captum_pullback.study.errors import ScoreError, UsageError, reason
from captum_pullback.study.predictions import Prediction, predicted, squashes
from captum_pullback.study.text import percent
from captum_pullback.zoo import statefiles
from captum_pullback.zoo.errors import ZooError
from captum_pullback.zoo.networks import Network, preprocessing

STUDY = Path(methods.__file__).parent


def network(*last: nn.Module, outputs: int = 3) -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, outputs), *last
    )
    return Network(model.eval(), (), preprocessing(8), input_size=8, name="tiny")


def test_nothing_here_knows_of_commands_or_of_argparse() -> None:
    for path in STUDY.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", [])]
            names = [getattr(node, "module", None) or "", *names] if names else []
            for name in names:
                assert not name.startswith(("argparse", "captum_pullback.commands")), path
                assert not name.startswith("captum_pullback.app"), path


# Rows of scores


def test_logits_go_through_a_softmax() -> None:
    row = predicted(torch.tensor([0.0, math.log(3.0)]))
    assert row.kind == "logits"
    assert row.probabilities.tolist() == pytest.approx([0.25, 0.75])
    assert row.text(1) == "75.0 %"
    assert row.top(5) == [1, 0]


def test_probabilities_stay_as_they_are() -> None:
    given = torch.tensor([0.1, 0.7, 0.2])
    row = predicted(given)
    assert row.kind == "probabilities"
    assert torch.equal(row.probabilities, given)
    assert row.text(1) == "70.0 %"
    half = torch.randn(1000).softmax(0).half()
    assert predicted(half).kind == "probabilities"


def test_logarithms_of_probabilities_give_these() -> None:
    given = torch.tensor([0.1, 0.7, 0.2])
    assert predicted(given.log()).probabilities.tolist() == pytest.approx(given.tolist())


def test_labels_are_each_their_own_probability() -> None:
    given = torch.tensor([0.9, 0.8, 0.1])
    row = predicted(given, lambda: True)
    assert row.kind == "labels"
    assert [row.text(i) for i in range(3)] == ["90.0 %", "80.0 %", "10.0 %"]
    # The same numbers may be logits.
    assert predicted(given, lambda: False).kind == "logits"


def test_one_output_has_a_score_and_no_probability() -> None:
    row = predicted(torch.tensor([2.5]))
    assert row.kind == "one"
    assert row.probabilities.isnan().all()
    assert row.text(0) == "score 2.5"
    assert percent(row.probabilities[0]) == "\N{EN DASH}"
    # Be it between 0 and 1: a sigmoid's 0.6 and a logit of 0.6 look the same.
    assert predicted(torch.tensor([1.0])).text(0) == "score 1"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(ScoreError, match="1 of its 3 scores are NaN or infinite"):
        predicted(torch.tensor([0.0, bad, 1.0]))


def squeezed(x: Tensor) -> Tensor:
    """Shapes and types after the sigmoid."""
    return x.sigmoid()[:, None].double().squeeze(1).transpose(0, 1).T.float()


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ([], False),
        ([nn.Sigmoid()], True),
        ([nn.Hardsigmoid()], True),
        ([Run(squeezed)], True),
        ([nn.Softmax(1)], True),
        ([nn.Sigmoid(), nn.Linear(3, 3)], False),
        ([nn.Tanh()], False),
    ],
)
def test_whether_a_network_ends_in_a_sigmoid(last: list[nn.Module], expected: bool) -> None:
    assert squashes(network(*last).model, torch.randn(1, 3, 8, 8)) is expected


def small(x: Tensor) -> Tensor:
    """Logits that lie between 0 and 1."""
    return x / (10 * x.abs().max()) + 0.5


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        ([], "logits"), ([nn.Softmax(1)], "probabilities"), ([nn.Sigmoid()], "labels"),
        ([Run(small)], "logits"), ([nn.Linear(3, 1)], "one"),
    ],
)  # fmt: skip
def test_what_the_app_and_the_commands_are_told(last: list[nn.Module], kind: str) -> None:
    net = network(*last)
    photo = Photo("grace_hopper")
    seen = loading.see(net, "grace_hopper")
    assert seen.prediction.kind == kind
    with torch.no_grad():
        raw = net.model(seen.inputs[None])[0]
    torch.testing.assert_close(seen.prediction.scores, raw)
    expected = {
        "logits": raw.softmax(0), "probabilities": raw, "labels": raw,
        "one": torch.full((1,), torch.nan),
    }[kind]  # fmt: skip
    shown = work.look(Loaded(net, "tiny"), photo)
    for found in (seen.prediction.probabilities, shown.probabilities):
        torch.testing.assert_close(found, expected, equal_nan=True)
    assert shown.prediction.kind == kind
    torch.testing.assert_close(shown.logits, raw)


def test_the_app_is_told_of_scores_that_are_not_finite() -> None:
    net = network()
    net.model[3].bias.data[1] = torch.nan
    with pytest.raises(UsageError, match="tiny fails on grace_hopper: 1 of its 3 scores"):
        work.look(Loaded(net, "tiny"), Photo("grace_hopper"))


def test_a_row_is_a_value() -> None:
    row = torch.tensor([1.0, 2.0])
    assert Prediction(row).kind == "logits"


# Photographs


def test_patterns_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.jpg", "c.png", "x[1].jpg"):
        Path(name).write_bytes(b"")
    assert loading.photographs(["*.jpg"]) == ["a.jpg", "b.jpg", "x[1].jpg"]
    assert loading.photographs(["c.png", "?.jpg"]) == ["c.png", "a.jpg", "b.jpg"]
    assert loading.photographs(["x[1].jpg"]) == ["x[1].jpg"], "a file of that very name"
    assert loading.photographs(["*.gif", "coffee"]) == ["*.gif", "coffee"]


# Methods


def test_the_registry_is_the_benchmark_s_too() -> None:
    compare = pytest.importorskip("benchmarks.compare.methods")
    explained = network()
    inputs = torch.randn(2, 3, 8, 8)
    target = torch.tensor([0, 2])

    def benchmarked(name: str) -> Tensor:
        torch.manual_seed(3)
        return compare.attribution(explained, compare.find(name))(inputs, target)

    by_hand = IntegratedGradients(explained.model).attribute(
        inputs, target=target, n_steps=methods.INTEGRATION_STEPS
    )
    torch.testing.assert_close(benchmarked("ig"), by_hand, rtol=1e-4, atol=1e-6)
    shared = methods.METHODS["ig"].make(explained, methods.Settings())
    torch.testing.assert_close(benchmarked("ig"), shared(inputs, target=target), rtol=0, atol=0)
    torch.manual_seed(3)
    by_hand = NoiseTunnel(Saliency(explained.model)).attribute(
        inputs, nt_type="smoothgrad", nt_samples=50, nt_samples_batch_size=50, target=target,
        stdevs=methods.noise_deviation(explained), abs=False,
    )  # fmt: skip
    torch.testing.assert_close(benchmarked("smoothgrad"), by_hand, rtol=1e-5, atol=1e-7)
    for name in ("gradient", "inputxgradient", "ig", "guidedbackprop", "smoothgrad"):
        own = methods.METHODS[{"gradient": "saliency"}.get(name, name)]
        row = compare.METHODS[name]
        found = (row.title, row.multiplies_by_inputs, row.draws)
        assert found == (own.title, own.multiplies_by_inputs, own.draws)


def test_settings_say_how_many_steps_and_samples() -> None:
    net, seen = network(), []
    net.model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    for name, settings, expected in (
        ("ig", methods.Settings(steps=7), 7),
        ("smoothgrad", methods.Settings(samples=4), 4),
        ("ig", methods.Settings(), 50),
        ("smoothgrad", methods.Settings(), 25),
    ):
        seen.clear()
        inputs = torch.randn(1, 3, 8, 8).requires_grad_()
        methods.METHODS[name].make(net, settings)(inputs, target=1)
        assert sum(seen) == expected


# Files of weights


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {"model": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda state: {"epoch": 3, "model_state_dict": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{k}": v for k, v in state.items()},
        lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
        lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
        lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}
                       | {"loss.weight": torch.ones(2)}},
    ],
)  # fmt: skip
def test_weights_as_people_save_them(tmp_path: Path, wrap: object) -> None:
    torch.manual_seed(1)
    source, model = perceptron(), perceptron()
    torch.save(wrap(source.state_dict()), tmp_path / "weights.pt")  # type: ignore[operator]
    statefiles.fill(model, tmp_path / "weights.pt")
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_weights_of_the_bare_network_for_a_wrapped_one(tmp_path: Path) -> None:
    source, model = perceptron(), nn.DataParallel(perceptron())
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    statefiles.fill(model, tmp_path / "weights.pt")
    assert torch.equal(model.module[0].weight, source[0].weight)


def test_safetensors(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    source, model = perceptron(), perceptron()
    path = tmp_path / "weights.safetensors"
    save_file({f"module.{k}": v for k, v in source.state_dict().items()}, path)
    statefiles.fill(model, path)
    assert torch.equal(model[2].bias, source[2].bias)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ZooError, match=r"is not a readable \.safetensors file"):
        statefiles.fill(model, path)


def test_older_batch_norm_still_fits(tmp_path: Path) -> None:
    """Files from before torch counted batches lack that number, and torch takes them."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = {k: v + 1 for k, v in model.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "weights.pt")
    statefiles.fill(model, tmp_path / "weights.pt")
    assert torch.equal(model[1].running_mean, torch.ones(2))


# Errors


def test_reasons_are_one_line_that_says_enough() -> None:
    assert reason(KeyError("layer")) == "KeyError: 'layer'"
    assert reason(NotImplementedError()) == "NotImplementedError"
    assert reason(RuntimeError("shapes do\nnot match")) == "shapes do not match"
    assert reason(ValueError("bad value")) == "ValueError: bad value"
    assert len(reason(RuntimeError("many words " * 1000))) < 600


def test_an_error_names_the_network_and_the_photograph() -> None:
    net = network()
    broken = Network(nn.Sequential(net.model, nn.Linear(7, 2)), (), net.preprocess, input_size=8)
    with pytest.raises(
        UsageError, match=r"^mine:net fails on a\.jpg: (addmm: )?mat1 and mat2 shapes"
    ):
        loading.look(broken, Image.new("RGB", (8, 8)), "cpu", "mine:net", "a.jpg")
