"""What must hold of every network, on each family that people explain."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from constants import constants, contribution
from families import FAMILIES
from families.family import Family
from pulling import pulled
from reference import relative_error
from references.gates import apply
from snapshot import unchanged
from torch import Tensor, nn

from captum_pullback import EXCITATION, SEMANTIC, ExcitationPullback, effective_weights, soften

#: Networks of nothing but ReLUs, max pools, BatchNorm and what is linear.
PIECEWISE_LINEAR = {
    "alexnet",
    "densenet",
    "googlenet",
    "inception_v3",
    "mnasnet",
    "regnet_x",
    "resnet",
    "resnext",
    "shufflenet_v2",
    "squeezenet",
    "timm_mobilenetv4",
    "vgg",
    "vgg_bn",
}

#: Networks that add numbers which are no parameters of theirs: GoogLeNet to its input, GPT-2 the 1
#: in x (1 + tanh(...)), its GELU.
WITH_OTHER_CONSTANTS = {"googlenet", "hf_gpt2_eager", "hf_gpt2_sdpa"}

#: Of the operations whose derivative is kept: those that only pick entries.
PICKING = {"amax", "max"}

#: Their default reading of a cap may be the derivative; all three are tested by themselves.
WITH_CAPS = {"mobilenet_v2"}

Named = tuple[str, Family]


@pytest.fixture(scope="module", params=FAMILIES)
def named(request: pytest.FixtureRequest) -> Named:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other packages, while they are imported
        return request.param, FAMILIES[request.param]()


@pytest.mark.parametrize("temperature", [0, 0.5])
def test_the_forward_pass_is_bit_identical(named: Named, temperature: float) -> None:
    _, (model, x, _) = named
    x = x.clone().requires_grad_()
    outside = model(x)
    with torch.no_grad():
        without_graph = model(x)
    with soften(model, temperature=temperature, rules=SEMANTIC):
        inside = model(x)
        with torch.no_grad():
            inside_without_graph = model(x)
    assert torch.equal(inside, outside)
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        # Without gradients its fused kernel steps aside for any function mode.
        assert relative_error(inside_without_graph, without_graph) < 1e-13
    else:
        assert torch.equal(inside_without_graph, without_graph)


def test_the_network_is_one_affine_map(named: Named) -> None:
    _, (model, x, precision) = named
    weight, bias = effective_weights(model, x, rules=SEMANTIC)
    output = model(x).detach()
    assert weight.shape == (*output.shape, *x.shape[1:])
    assert relative_error(apply(weight, x) + bias, output) < precision
    assert relative_error(pulled(model, x), weight[:, 1]) < 1e-10


def test_the_input_and_all_that_is_added_make_the_output(named: Named) -> None:
    """The same identity by plain autograd, with the bias found at the parameters."""
    name, (model, x, precision) = named
    if name in WITH_OTHER_CONSTANTS:
        pytest.skip("adds constants that are no parameters")
    rules = {**SEMANTIC, "relu6": "held"}  # a cap that is not held adds a constant of its own
    leaf = x.clone().requires_grad_()
    with soften(model, temperature=0, rules=rules):
        output = model(leaf)[0, 1]
        weight = torch.autograd.grad(output, leaf, retain_graph=True)[0]
        bias = contribution(output, constants(model))
    assert not weight[1].any()
    terms = (weight * x).abs().sum() + bias.abs()  # so much may cancel
    assert (output - (weight * x).sum() - bias).abs() < precision * terms
    _, found = effective_weights(model, x, target=1, rules=rules)
    assert (found[0] - bias).abs() < precision * terms


def test_a_line_without_arguments_does_it(named: Named) -> None:
    """The default explains every network, and `soften` by the same default is the same."""
    _, (model, x, _) = named
    found = ExcitationPullback(model).attribute(x, target=1)
    leaf = x.clone().requires_grad_()
    with soften(model):
        expected = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0]
    assert relative_error(found, expected) < 1e-12
    plain = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0]
    assert relative_error(found, plain) > 1e-3


def test_held_gates_are_the_gradient_where_it_is_right_and_not_elsewhere(named: Named) -> None:
    name, (model, x, _) = named
    leaf = x.clone().requires_grad_()
    plain = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0]
    held = ExcitationPullback(model, 0, rules=SEMANTIC).attribute(x, target=1)
    if name in PIECEWISE_LINEAR:
        assert torch.equal(held, plain)
        assert torch.equal(ExcitationPullback(model, 0, rules=EXCITATION).attribute(x, 1), plain)
    elif name not in WITH_CAPS:
        assert relative_error(held, plain) > 1e-3


def test_the_composites_agree_where_all_gates_are_of_relus_and_pools(named: Named) -> None:
    name, (model, x, _) = named
    if name not in PIECEWISE_LINEAR:
        pytest.skip("has other gates")
    pool = {"max_pool": EXCITATION["max_pool"]}
    semantic = pulled(model, x, temperature=0.5, rules={**SEMANTIC, **pool})
    assert torch.equal(semantic, pulled(model, x, temperature=0.5, rules=EXCITATION))


@pytest.mark.parametrize("temperature", [0, 0.5])
def test_a_batch_is_its_examples_one_by_one(named: Named, temperature: float) -> None:
    _, (model, x, precision) = named
    leaf = x.clone().requires_grad_()
    gradients = [
        torch.autograd.grad(sum(model(part)[:, 0].sum() for part in parts), leaf)[0]
        for parts in ([leaf], leaf.split(1))
    ]
    if relative_error(*gradients) > 1e-6:
        # torch 2.14: BatchNorm in eval mode, one example, a gradient with a transposed layout
        pytest.skip("PyTorch's own gradient of one example is wrong")
    pullback = ExcitationPullback(model, temperature, rules=SEMANTIC)
    together = pullback.attribute(x, target=[0, 2])
    alone = [pullback.attribute(one, target=t) for one, t in zip(x.split(1), (0, 2), strict=True)]
    assert relative_error(torch.cat(alone), together) < precision


def test_nothing_is_left(named: Named) -> None:
    _, (model, x, _) = named
    model(x)  # Whatever a network keeps from its first call is its own affair
    with unchanged(model):
        ExcitationPullback(model).attribute(x, target=0)
        pulled(model, x)
        with soften(model, rules=SEMANTIC):
            model(x.clone().requires_grad_())


def test_gradients_afterwards_are_plain(named: Named) -> None:
    """Also of a network that keeps tensors of its own, made inside the softening."""
    _, (model, x, _) = named

    def plain() -> tuple[Tensor | None, ...]:
        leaf = x.clone().requires_grad_()
        output = model(leaf)[:, 1].sum()
        return torch.autograd.grad(output, [leaf, *model.parameters()], allow_unused=True)

    model.eval()
    before = plain()
    model.eval()
    pulled(model, x, temperature=0.5)
    assert all(map(same, plain(), before))


def same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)


def test_nothing_is_left_by_a_module_that_fails(named: Named) -> None:
    _, (model, x, _) = named
    model(x)
    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    handle = layers[-1].register_forward_hook(fail)
    with unchanged(model), pytest.raises(ZeroDivisionError):
        ExcitationPullback(model).attribute(x, target=0)
    handle.remove()
    assert torch.equal(pulled(model, x), pulled(model, x))


def test_autocast_changes_no_more_than_it_does_outside(named: Named) -> None:
    name, (model, x, _) = named
    model = copy.deepcopy(model.eval()).float()  # eval clears what a network keeps
    x = x.float().requires_grad_()

    def plain() -> Tensor:
        return torch.autograd.grad(model(x)[:, 1].sum(), x)[0]

    with torch.autocast("cpu", torch.bfloat16):
        outside = model(x)
        with soften(model, temperature=0, rules=SEMANTIC):
            inside = model(x)
        held, gradient = pulled(model, x), plain()
    assert torch.equal(inside, outside)
    assert held.dtype == torch.float32
    if name in PIECEWISE_LINEAR:
        assert torch.equal(held, gradient)
    # Many layers of random weights in bfloat16 are another network to the plain gradient too.
    assert likeness(held, pulled(model, x)) > min(likeness(gradient, plain()), 0.99) - 0.05


def likeness(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.flatten(), b.flatten(), 0))


def test_the_record_names_every_nonlinearity(named: Named) -> None:
    _, (model, x, _) = named
    x = x.clone().requires_grad_()
    with soften(model, temperature=0, rules=SEMANTIC) as record:
        torch.autograd.grad(model(x)[:, 1].sum(), x)
    kept = {met.operation for met in record.left_hard if met.done == "derivative kept"}
    assert kept <= PICKING
    assert record.softened == []


@pytest.mark.parametrize("name", ["convnext", "swin", "hf_bert_eager", "timm_convnextv2"])
def test_the_record_names_what_no_rule_was_given_for(name: str) -> None:
    model, x, _ = FAMILIES[name]()
    x = x.clone().requires_grad_()
    with soften(model, temperature=0, rules={**SEMANTIC, "gelu": None}) as record:
        torch.autograd.grad(model(x)[:, 1].sum(), x)
    modules = dict(model.named_modules())
    kept = [met for met in record.left_hard if met.done == "derivative kept"]
    assert {met.operation for met in kept} == {"gelu"}
    assert sum(met.calls for met in kept) == sum(
        "GELU" in type(module).__name__ for module in modules.values()
    )
