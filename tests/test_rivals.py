"""The rivals in captum_pullback.study, each against its own library, called directly."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from captum import attr
from handmade import Handmade
from snapshot import hooks
from torch import Tensor, nn
from torchvision.models import resnet18

from captum_pullback import PullbackAscent
from captum_pullback.study import rivals
from captum_pullback.study.methods import METHODS, Settings
from captum_pullback.study.traced import with_own_relus
from captum_pullback.zoo.networks import Network, preprocessing

pytestmark = pytest.mark.filterwarnings(
    "ignore:Setting .* hooks on ReLU", "ignore:.*required_grads has been set automatically"
)


def plain(bias: bool = True, batch_norm: bool = True) -> nn.Module:
    """Two convolutions, with BatchNorms that are not the identity, and a linear layer."""
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(6) if batch_norm else nn.Identity() for _ in range(2)]
    for norm in norms if batch_norm else ():
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=bias), norms[0], nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 2, bias=bias), norms[1], nn.ReLU(), nn.Flatten(),
        nn.Linear(24, 4, bias=bias),
    ).eval()  # fmt: skip


class Residual(nn.Module):
    """Without biases; a ReLU by function, one module used twice, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(3, 6, 3, 1, 1, bias=False)
        self.second = nn.Conv2d(6, 6, 3, 1, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Linear(6 * 64, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, 3, 8, 8) to (N, 4)."""
        x = self.relu(self.first(x))
        x = self.relu(self.second(x) + x)
        return self.last(F.relu(x).flatten(1))


def images(count: int = 2, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def network(model: nn.Module) -> Network:
    return Network(model.eval(), (), preprocessing(8), input_size=8)


def made(name: str, model: nn.Module):
    return METHODS[name].make(network(model), Settings(temperature=0.7))


def scores(target: list[int]):
    """For zennit: the target's score, with which relevance begins."""
    return lambda output: output.detach() * F.one_hot(torch.tensor(target), output.shape[1])


class TestZennit:
    @pytest.fixture(autouse=True)
    def zennit(self) -> None:
        pytest.importorskip("zennit", reason="zennit is not installed")

    @pytest.mark.parametrize("name", ["epsilonplusflat", "epsilongammabox"])
    def test_is_zennits_own(self, name: str) -> None:
        from zennit.attribution import Gradient
        from zennit.canonizers import SequentialMergeBatchNorm
        from zennit.composites import EpsilonGammaBox, EpsilonPlusFlat

        model, x, target = plain(), images(), [1, 3]
        mean, std = (
            torch.tensor(v).view(-1, 1, 1) for v in (network(model).mean, network(model).std)
        )
        own = {"canonizers": [SequentialMergeBatchNorm()]}
        composite = (
            EpsilonPlusFlat(**own)
            if name == "epsilonplusflat"
            else EpsilonGammaBox(
                (0 - mean) / std * torch.ones_like(x), (1 - mean) / std * torch.ones_like(x), **own
            )
        )
        with Gradient(plain(), composite) as attributor:
            _, expected = attributor(x.clone(), scores(target))
        found = made(name, model)(x, target=torch.tensor(target))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        assert found.abs().max() > 1e-3
        assert hooks(model) == []
        one = made(name, model)(x, target=1)
        torch.testing.assert_close(one[0], found[0], rtol=1e-4, atol=1e-6)

    def test_a_resnet_is_canonized_as_zennits_canonizer_does(self) -> None:
        """Sums share relevance, one ReLU serves twice, BatchNorm is merged."""
        from zennit.attribution import Gradient
        from zennit.composites import EpsilonPlusFlat
        from zennit.torchvision import ResNetCanonizer

        torch.manual_seed(0)
        model = resnet18(num_classes=5).eval()
        x, target = images(1, 64), [2]
        found = made("epsilonplusflat", model)(x, target=2)
        with Gradient(model, EpsilonPlusFlat(canonizers=[ResNetCanonizer()])) as attributor:
            _, expected = attributor(x.clone(), scores(target))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)

    def test_relevance_is_conserved_where_there_are_no_biases(self) -> None:
        """Without the sum's own module, its two branches would each take all of it."""
        model, x = Residual(), images()
        score = model(x)[:, 2].detach()
        found = made("epsilonplusflat", model)(x, target=2)
        torch.testing.assert_close(found.sum((1, 2, 3)), score, rtol=1e-3, atol=1e-4)

    def test_a_convolution_that_pads_by_itself_is_one(self) -> None:
        """As those of EfficientNet-Lite0: a subclass, which torch.fx would look into."""

        class Padding(nn.Conv2d):
            def forward(self, x: Tensor) -> Tensor:
                return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)

        torch.manual_seed(0)
        itself = Padding(3, 4, 3)
        usual = nn.Conv2d(3, 4, 3, padding=1)
        usual.load_state_dict(itself.state_dict())
        rest = [nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)]
        x = images()
        models = [nn.Sequential(first, *rest) for first in (itself, usual)]
        found, expected = (made("epsilonplusflat", model)(x, target=1) for model in models)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
        assert found.abs().max() > 1e-4

    def test_a_convolution_that_is_called_as_a_function_is_refused(self) -> None:
        class Called(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

            def forward(self, x: Tensor) -> Tensor:
                return torch.relu(F.conv2d(x, self.weight)).mean((2, 3))

        with pytest.raises(ValueError, match="this network calls conv2d as a function"):
            made("epsilonplusflat", Called())

    @pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU])
    def test_other_activations_are_refused(self, activation: type[nn.Module]) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), activation(), nn.Linear(4, 2))
        with pytest.raises(ValueError, match="for networks of ReLUs; this one has "):
            made("epsilonplusflat", model)


def test_without_zennit_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("attribution", "canonizers", "composites", "layer"):
        monkeypatch.setitem(sys.modules, f"zennit.{name}", None)
    for name in ("epsilonplusflat", "epsilongammabox"):
        with pytest.raises(ValueError, match=r"pip install 'captum-pullback\[rivals\]'"):
            made(name, plain())


def test_captums_lrp() -> None:
    """Against a network that is written as Captum wants it."""
    model, x, target = plain(), images(), torch.tensor([1, 3])
    flat = Handmade(
        lambda net, x: net.last(net.layers(x).flatten(1)), layers=plain()[:7], last=plain()[8]
    )
    expected = attr.LRP(flat).attribute(x.clone(), target=target)
    torch.testing.assert_close(made("lrp", model)(x, target=target), expected)
    assert hooks(model) == []


def test_where_captums_lrp_has_no_rule_it_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.GELU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="Captum's LRP has no rule for this network"):
        made("lrp", model)(images(), target=1)
    with pytest.raises(ValueError, match="no rule for sums of tensors"):
        made("lrp", Residual())


def test_grad_cam() -> None:
    model, x, target = plain(), images(), torch.tensor([1, 3])
    small = attr.LayerGradCam(model, model[6]).attribute(x, target, relu_attributions=True)
    expected = F.interpolate(small, (8, 8), mode="bilinear")
    found = made("gradcam", model)(x, target=target)
    assert found.shape == x.shape
    torch.testing.assert_close(found.sum(1, keepdim=True), expected)
    assert (found >= 0).all()


def test_guided_grad_cam() -> None:
    model, x = plain(), images()
    expected = attr.GuidedGradCam(model, model[6]).attribute(x.clone(), target=1)
    torch.testing.assert_close(made("guidedgradcam", model)(x, target=1), expected)
    with pytest.raises(ValueError, match=r"needs nn\.ReLU modules"):
        made("guidedgradcam", nn.Sequential(nn.Conv2d(3, 2, 3), nn.GELU()))


def test_the_last_map_is_what_the_classifier_sees() -> None:
    model = Handmade(
        lambda net, x: net.pixel(net.late(net.early(x)).mean((2, 3), keepdim=True)).flatten(1),
        late=nn.Conv2d(4, 4, 3), early=nn.Conv2d(3, 4, 3), pixel=nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    assert rivals.last_map(model, images()) is model.late
    assert hooks(model) == []
    resnet = resnet18(num_classes=5).eval()
    assert rivals.last_map(resnet, images(1, 64)) is resnet.layer4  # its sum and gate included
    with pytest.raises(ValueError, match="no module of this network returns a feature map"):
        rivals.last_map(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), images())


def test_fusiongrad_of_a_linear_model_is_the_mean_of_its_noisy_weights() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False)), images()
    before = model[1].weight.clone()
    torch.manual_seed(7)
    found = made("fusiongrad", model)(x, target=2)
    torch.manual_seed(7)
    factors = []
    for _ in range(rivals.FUSION_SAMPLES):
        factors.append(1 + 0.2 * torch.randn(before.shape))
        torch.normal(0.0, torch.full((10 * 2, 3, 8, 8), 1.0))  # NoiseTunnel's own draws
    mean = (before * torch.stack(factors).mean(0))[2].view(1, 3, 8, 8)
    torch.testing.assert_close(found, mean.expand_as(x), rtol=1e-5, atol=1e-6)
    assert torch.equal(model[1].weight, before)
    assert model[1].weight.grad is None


def test_fusiongrad_of_noise_on_the_inputs_alone_is_smoothgrad(monkeypatch) -> None:
    monkeypatch.setattr(rivals, "FUSION_SPREAD", 0.0)
    monkeypatch.setattr(rivals, "FUSION_SAMPLES", 1)
    model, x = plain(), images()
    attribute = rivals.fusiongrad(model, 0.0, 64)
    expected = attr.Saliency(model).attribute(x.clone(), target=1, abs=False)
    torch.testing.assert_close(attribute(x, target=1), expected)


def test_ascent() -> None:
    model, x = plain(), images()
    expected = PullbackAscent(model, 0.7, relative=True).attribute(x, target=1)
    assert torch.equal(made("ascent", model)(x, target=1), expected)


def test_own_sums_and_relus_compute_the_same() -> None:
    class Added(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return first + second

    model, x = Residual(), images()
    traced = with_own_relus(model, Added)
    assert torch.equal(traced(x), model(x))
    kinds = [type(module).__name__ for module in traced.modules()]
    assert kinds.count("ReLU") == 3 + 1  # the shared one is no longer used
    assert kinds.count("Added") == 1
    (sums,) = (m for m in traced.modules() if type(m).__name__ == "Added")
    seen: list[object] = []
    sums.register_forward_hook(lambda _, given, __: seen.append(len(given)))
    traced(x)
    assert seen == [2]


@pytest.mark.parametrize("name", ["gradcam", "guidedgradcam", "fusiongrad", "lrp"])
def test_a_tuple_of_one_is_answered_by_one(name: str) -> None:
    model, x = plain(batch_norm=False), images()
    attribute = made(name, model)
    torch.manual_seed(0)
    (one,) = attribute((x,), target=1)
    torch.manual_seed(0)
    assert torch.equal(one, attribute(x, target=1))
