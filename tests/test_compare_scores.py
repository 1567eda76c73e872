"""What benchmarks.compare measures: metrics by hand, methods on networks with known answers."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from captum import attr
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from PIL import Image
from scipy.stats import spearmanr
from snapshot import hooks
from torch import Tensor, nn

from benchmarks.compare import cost
from benchmarks.compare.methods import METHODS, attribution, find
from benchmarks.compare.scoring import Case, Plan, Scorer
from benchmarks.provenance import checkpoint_hash
from captum_pullback import ExcitationPullback
from captum_pullback.study import metrics, traced
from captum_pullback.study.metrics.disturbances import SENSITIVITY_RADIUS
from captum_pullback.zoo.networks import Network, preprocessing

SIDE = 16


class Reused(nn.Module):
    """A residual block with one ReLU for both gates, and a function besides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4 * SIDE * SIDE, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv1(x))
        y = self.relu(self.conv2(y) + y)
        return self.fc(torch.relu(y - 0.1).flatten(1))


def explained(model: nn.Module) -> Network:
    return Network(model.eval(), (), preprocessing(SIDE), input_size=SIDE)


@pytest.fixture
def linear() -> Network:
    return explained(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 5)))


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, 3, SIDE, SIDE)


@pytest.mark.parametrize("disturb", [metrics.squares, metrics.gaussian])
@pytest.mark.parametrize("method", ["gradient", "ig"])
def test_linear_models_gradient_has_no_infidelity(linear, image, disturb, method) -> None:
    chosen = find(method)
    weight = linear.model[1].weight[2].detach().view(1, 3, SIDE, SIDE)
    start = torch.zeros_like(image)
    exact = weight * image if chosen.multiplies_by_inputs else weight
    answers = metrics.Answers.ask(linear.model, image, disturb(linear, image, 7), at_once=3)
    scale = float(answers.scores[:, 2].var())
    for normalize in (False, True):
        found = answers.infidelity(exact, 2, chosen.multiplies_by_inputs, start, normalize)
        assert found == pytest.approx(0, abs=1e-6 * scale)
    # At twice the size the raw one is what the score changed, squared; the best scale mends it.
    change = float((answers.score[0, 2] - answers.scores[:, 2]).square().mean())
    twice = answers.infidelity(2 * exact, 2, chosen.multiplies_by_inputs, start, False)
    assert twice == pytest.approx(change, rel=1e-4)
    other = not chosen.multiplies_by_inputs  # scored in the wrong form it is not faithful
    assert answers.infidelity(exact, 2, other, start, False) > 1e-3 * change


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("multiplies", [False, True])
def test_infidelity_is_captums(image, normalize, multiplies) -> None:
    given = explained(Reused())
    torch.manual_seed(3)
    perturbed = metrics.squares(given, image, 6)
    answers = metrics.Answers.ask(given.model, image, perturbed, at_once=6)
    maps = torch.randn_like(image)
    decorate = infidelity_perturb_func_decorator(multiplies)
    torch.manual_seed(3)  # Captum draws the same squares
    own = infidelity(
        given.model,
        decorate(lambda inputs: metrics.squares(given, inputs[:1], len(inputs))),
        image,
        maps,
        target=1,
        n_perturb_samples=6,
        normalize=normalize,
    )
    start = torch.zeros_like(image)
    found = answers.infidelity(maps, 1, multiplies, start, normalize)
    assert found == pytest.approx(float(own), rel=1e-5)


def test_max_sensitivity_by_hand_and_captums(image) -> None:
    near = metrics.nearby(explained(Reused()), image, 4)
    std = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    assert float(((near - image) * std).abs().max()) <= SENSITIVITY_RADIUS * 1.0001
    assert float(((near - image) * std).abs().max()) > 0.99 * SENSITIVITY_RADIUS

    def identity(given, target):
        return given[0] if isinstance(given, tuple) else given

    by_hand = max(float((part - image[0]).norm() / image.norm()) for part in near)
    found = metrics.max_sensitivity(identity, image, image, near, 0)
    assert found == pytest.approx(by_hand, rel=1e-5)
    model = Reused()
    own = attribution(explained(model), find("gradient"))
    plain = attr.Saliency(model)

    def gradient(given, target):
        leaf = given[0].clone().requires_grad_()  # Captum warns of leaves that are none
        return (plain.attribute(leaf, target, abs=False),)

    captum = sensitivity_max(
        lambda given, target: gradient(given if isinstance(given, tuple) else (given,), target),
        image,
        lambda _: near,
        n_perturb_samples=4,
        target=0,
    )
    assert metrics.max_sensitivity(own, image, own(image, 0), near, 0) == float(captum)


def test_box_share_and_pointing_game_by_hand() -> None:
    maps = torch.tensor([[[3.0, -9.0], [1.0, 2.0]], [[1.0, 1.0], [0.0, 0.0]]])  # sums 4 -8 1 2
    left = torch.tensor([[True, False], [True, False]])
    assert metrics.box_share(maps, left) == 5 / 7
    assert metrics.pointing_game(maps, left) == 1
    assert metrics.pointing_game(maps, ~left) == 0
    assert math.isnan(metrics.box_share(-maps.abs(), left))


def test_similarity_is_spearmans() -> None:
    one = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    assert metrics.similarity(one, one.exp(), absolute=False) == pytest.approx(1)
    assert metrics.similarity(one, -one, absolute=False) == pytest.approx(-1)
    assert metrics.similarity(one, -one, absolute=True) == pytest.approx(1)
    # Ranks 1 2 3 4 and 2 1 4 3: 1 - 6 * 4 / (4 * 15).
    other = torch.tensor([[[2.0, 1.0, 4.0, 3.0]]])
    assert metrics.similarity(one, other, absolute=False) == pytest.approx(0.6)
    assert math.isnan(metrics.similarity(one, torch.zeros_like(one), absolute=True))


def test_similarity_is_scipys_to_the_last_digit() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        one, other = torch.randn(2, 3, 9, 9, generator=generator).round(decimals=1)  # with ties
        sums = [values.double().sum(0).flatten().numpy() for values in (one, other)]
        expected = float(spearmanr(*sums).statistic)
        assert metrics.similarity(one, other, absolute=False) == expected


def test_methods_of_a_linear_network_are_its_weights(linear, image) -> None:
    weight = linear.model[1].weight[3].detach().view(1, 3, SIDE, SIDE)
    for name in ("gradient", "inputxgradient", "ig", "smoothgrad"):
        found = attribution(linear, find(name))(image, 3)
        wanted = weight * image if METHODS[name].multiplies_by_inputs else weight
        assert torch.allclose(found, wanted, atol=1e-5), name


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_on_a_network_that_reuses_its_relu(name, image) -> None:
    if name in ("epsilonplusflat", "attn_lrp"):
        pytest.importorskip("zennit", reason="zennit is not installed")
    if name == "attn_lrp":
        pytest.importorskip("lxt", reason="lxt is not installed")
    given = explained(Reused())
    before = {key: value.clone() for key, value in given.model.state_dict().items()}
    method = find(name)
    attribute = attribution(given, method)
    pair = torch.cat([image, 2 * image])
    found = attribute(pair, torch.tensor([1, 4]))
    assert found.shape == pair.shape
    assert found.is_contiguous()
    assert not found.requires_grad
    if not method.draws:
        assert torch.allclose(found[:1], attribute(image, 1), rtol=1e-4, atol=1e-6)
    if name in ("ig", "deeplift"):  # which should sum to the score's rise
        with torch.no_grad():
            rise = given.model(image) - given.model(torch.zeros_like(image))
        assert float(found[0].sum()) == pytest.approx(float(rise[0, 1]), abs=0.02)
    assert all(torch.equal(value, before[key]) for key, value in given.model.state_dict().items())
    assert hooks(given.model) == []


def test_forms_are_those_that_captum_declares() -> None:
    model = Reused()
    kinds = {
        "gradient": attr.Saliency,
        "inputxgradient": attr.InputXGradient,
        "ig": attr.IntegratedGradients,
        "deeplift": attr.DeepLift,
        "guidedbackprop": attr.GuidedBackprop,
    }
    for name, kind in kinds.items():
        assert METHODS[name].multiplies_by_inputs == kind(model).multiplies_by_inputs, name


def test_pullbacks_are_what_a_user_gets_who_says_nothing(image) -> None:
    given = explained(Reused())
    default, published = ExcitationPullback(given.model), ExcitationPullback(given.model, 0.3)
    plain = default.attribute(image, target=1)
    for name, wanted in (
        ("pullback", plain),
        ("pullback_published", published.attribute(image, target=1)),
        ("pullback_times_input", image * plain),
    ):
        assert torch.allclose(attribution(given, find(name))(image, 1), wanted, atol=1e-6), name
    torch.manual_seed(5)
    found = attribution(given, find("smooth_pullback"))(image, 1)
    torch.manual_seed(5)
    deviation = 0.15 / ((0.229 + 0.224 + 0.225) / 3)
    noise = torch.normal(0, torch.full((10, 3, SIDE, SIDE), deviation))
    wanted = default.attribute(image + noise, target=1).mean(0, keepdim=True)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_deep_lift_is_refused_where_it_would_be_input_times_gradient() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 5), nn.GELU())
    with pytest.raises(ValueError, match="DeepLift needs ReLUs"):
        attribution(explained(model), find("deeplift"))


def test_scores_of_a_linear_network(linear, image) -> None:
    """Its gradient is faithful, its input times gradient too; noise is neither."""
    names = ["gradient", "inputxgradient", "noise"]
    wanted = ["infidelity", "faithfulness_correlation", "mosaic_share", "random_logit"]
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[:8, :8] = True
    case = Case("a", image, 2, None, (image, inside), repeated=True)
    scores = Scorer(linear, Plan(names, wanted, 0, 8, 2)).scores(case)
    found = {(score.method, score.metric): score.value for score in scores}
    assert len(found) == len(names) * len(wanted)
    for name in ("gradient", "inputxgradient"):
        assert found[name, "infidelity"] == pytest.approx(0, abs=1e-6)
        assert found[name, "faithfulness_correlation"] == pytest.approx(1, abs=1e-6)
    assert found["noise", "infidelity"] > 1e-3
    assert found["noise", "faithfulness_correlation"] < 0.9
    assert found["noise", "random_logit"] == pytest.approx(1)
    weight = linear.model[1].weight[2].detach().view(3, SIDE, SIDE)
    positive = weight.sum(0).clamp(min=0)
    share = float(positive[:8, :8].sum() / positive.sum())
    assert found["gradient", "mosaic_share"] == pytest.approx(share, rel=1e-5)


def test_edges_of_a_step() -> None:
    step = torch.zeros(1, 3, SIDE, SIDE)
    step[..., SIDE // 2 :] = 2.0
    found = attribution(explained(Reused()), find("edges"))(step, 0)[0, 0]
    brightness = 2.0 * (0.229 + 0.224 + 0.225) / 3
    wanted = torch.zeros(SIDE, SIDE)
    wanted[:, SIDE // 2 - 1 : SIDE // 2 + 1] = brightness / 2
    assert torch.allclose(found, wanted, atol=1e-6)


def test_own_relus_change_nothing_forward(image) -> None:
    model = torchvision.models.resnet18(weights=None, num_classes=5).eval()
    split = traced.with_own_relus(model)
    big = torch.randn(1, 3, 64, 64)
    assert torch.equal(split(big), model(big))
    calls = [node.target for node in split.graph.nodes if "own_relu" in str(node.target)]
    assert len(calls) == len(set(calls)) == 17


def test_a_module_that_is_only_called_relu_stays(image) -> None:
    class Leaky(Reused):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.LeakyReLU(0.5)

    model = Leaky()
    assert torch.equal(traced.with_own_relus(model)(image), model(image))


def test_stages_from_the_output_back() -> None:
    names = [name for name, _ in metrics.stages(torchvision.models.resnet18(weights=None))]
    assert names == ["fc", "layer4", "layer3", "layer2", "layer1", "conv1"]
    vgg = metrics.stages(torchvision.models.vgg11_bn(weights=None, init_weights=False))
    assert vgg[0] == ("classifier.6", ["classifier.6"])
    assert vgg[-1] == ("features.0", ["features.0", "features.1"])
    parts = [(str(k), [str(k)]) for k in range(6)]
    spread = metrics.spread(parts, 3)
    assert [name for name, _ in spread] == ["0", "2", "5"]
    assert [module for _, modules in spread for module in modules] == list("012345")


def test_randomised_is_a_copy() -> None:
    model = Reused().eval()
    before = checkpoint_hash(model)
    fresh = metrics.randomized(model, ["fc"], 7)
    assert checkpoint_hash(model) == before
    assert torch.equal(fresh.conv1.weight, model.conv1.weight)
    assert not torch.equal(fresh.fc.weight, model.fc.weight)
    torch.manual_seed(7)
    assert torch.equal(fresh.fc.weight, nn.Linear(4 * SIDE * SIDE, 5).weight)
    assert checkpoint_hash(fresh) != before
    assert checkpoint_hash(metrics.randomized(model, [], 7)) == before


def test_times_are_ratios_of_neighbors(monkeypatch) -> None:
    """On a machine that becomes twice as slow after each call, and a method of three gradients."""
    clock = iter([1, 3, 1, 2, 6, 2, 4, 12, 4, 8, 24, 8, 16, 48, 16])
    monkeypatch.setattr(cost, "seconds", lambda call, device: next(clock) / 1000)
    ratio, took = cost.time_ratio(None, None, torch.device("cpu"))
    assert (ratio, took) == (3, pytest.approx(0.012))


def test_peak_memory_by_hand() -> None:
    def call() -> Tensor:
        one = torch.zeros(1000)
        two = torch.zeros(2000)
        del one
        return torch.zeros(500) + two[0]

    assert cost.peak_memory(call, torch.device("cpu")) in range(12_000, 12_600)


def test_mask_goes_through_the_preprocessing() -> None:
    from benchmarks.compare.data import inside

    network = Network(nn.Identity(), (), preprocessing(10, 20), input_size=10)
    picture = Image.new("RGB", (80, 40))  # resized to 40 x 20, the middle 10 x 10 kept
    mask = inside(network, picture, [(30, 0, 39, 39), (48, 28, 49, 29)])
    wanted = torch.zeros(10, 10, dtype=torch.bool)
    wanted[:, 0:5] = True  # columns 30 to 39 become 15 to 19; the crop begins at 15
    wanted[9, 9] = True
    assert torch.equal(mask, wanted)
