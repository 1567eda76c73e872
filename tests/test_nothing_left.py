"""After a softening, however it ended, everything is as it was before."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from snapshot import unchanged
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_pullback import (
    ExcitationPullback,
    LayerExcitationPullback,
    NeuronExcitationPullback,
    Spread,
    soften,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.one(x) - 0.1))
        return self.head(self.drop(x.flatten(1))).relu()


@pytest.fixture
def net() -> Net:
    return Net().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 1, 6, 6)


@contextlib.contextmanager
def nothing_left(net: nn.Module) -> Iterator[None]:
    names = set(vars(net))
    with unchanged(net):
        yield
    assert set(vars(pickle.loads(pickle.dumps(copy.deepcopy(net))))) == names


def attribute(net: Net, x: Tensor) -> None:
    ExcitationPullback(net).attribute(x, 0)


def gradient_in_a_block(net: Net, x: Tensor) -> None:
    leaf = x.clone().requires_grad_()
    with soften(net, 0.3), soften(net, {"": 0.1, "pool": 0.5}):
        torch.autograd.grad(net(leaf).sum(), leaf)


BY_NAME = {"": 0.3, "one.2": torch.ones(2, 1, 1)}
SWEEP = [0, 0.3, Spread(1.0)]
USES: dict[str, Callable[[Net, Tensor], object]] = {
    "attribute": attribute,
    "by name": lambda net, x: ExcitationPullback(net, BY_NAME).attribute(x, 0),
    "temperatures": lambda net, x: ExcitationPullback(net).attribute_temperatures(x, SWEEP, 0),
    "neuron": lambda net, x: NeuronExcitationPullback(net, net.pool).attribute(x, (0, 1, 1)),
    "layer": lambda net, x: LayerExcitationPullback(net, net.one).attribute(x, 0),
    "block": gradient_in_a_block,
}
every_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


@every_use
def test_nothing_is_left(net: Net, x: Tensor, use: Any) -> None:
    with nothing_left(net):
        use(net, x)


class Interrupting(TorchFunctionMode):
    """Raises at the n-th operation that it sees."""

    def __init__(self, number: int, error: type[BaseException]) -> None:
        super().__init__()
        self.left, self.error = number, error

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # PyTorch's C++ shows some setters too (of the grad mode, say), and takes no error there.
        if not getattr(func, "__name__", "_").startswith("_"):
            self.left -= 1
            if self.left == 0:
                raise self.error("injected")
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@every_use
def test_nothing_is_left_by_an_error_at_any_operation(
    net: Net, x: Tensor, use: Any, error: type[BaseException]
) -> None:
    number = 0
    while True:
        number += 1
        operations = Interrupting(number, error)
        with nothing_left(net), contextlib.suppress(error), operations:
            use(net, x)
        if operations.left > 0:
            break
    assert number > 10  # operations that were tried


def fail_value(*_: Any) -> None:
    raise ValueError


def fail_keyboard(*_: Any) -> None:
    raise KeyboardInterrupt


FAILING = {ValueError: fail_value, KeyboardInterrupt: fail_keyboard}


@pytest.mark.parametrize("error", FAILING)
def test_nothing_is_left_by_an_error_in_any_module(
    net: Net, x: Tensor, error: type[BaseException]
) -> None:
    for module in net.modules():
        for register in (module.register_forward_pre_hook, module.register_forward_hook):
            handle = register(FAILING[error])
            with nothing_left(net), pytest.raises(error):
                attribute(net, x)
            handle.remove()
            with nothing_left(net):
                attribute(net, x)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("forward_pre", ValueError),
        ("forward_pre", KeyboardInterrupt),
        ("forward", ValueError),
        ("forward", KeyboardInterrupt),
    ],
)
def test_names_are_right_after_an_error_that_the_block_survives(
    net: Net, x: Tensor, error: type[BaseException], kind: str
) -> None:
    handle = getattr(net.one[2], f"register_{kind}_hook")(FAILING[error])
    with soften(net) as record:
        with contextlib.suppress(error):
            net(x)
        handle.remove()
        F.relu(x.requires_grad_())
    assert record.softened[-1].module == ""


def test_an_error_in_the_block_is_not_hidden_by_the_complaint_about_gates(net: Net) -> None:
    with nothing_left(net), pytest.raises(ZeroDivisionError), soften(net):
        raise ZeroDivisionError


def test_a_block_left_by_return_or_by_a_generator(net: Net, x: Tensor) -> None:
    def generate() -> Iterator[Tensor]:
        with soften(net):
            yield net(x.clone().requires_grad_())
            yield net(x)

    with nothing_left(net):
        generator = generate()
        next(generator)
        generator.close()


def test_modes_and_training_flags_stay(net: Net, x: Tensor) -> None:
    net.train()
    before = net.one[1].running_mean.clone()
    with soften(net):
        assert net.training
        net(x.requires_grad_())
    assert net.training
    assert not torch.equal(net.one[1].running_mean, before)  # as outside


def test_the_random_state_is_used_as_outside(net: Net, x: Tensor) -> None:
    net.drop.train()
    torch.manual_seed(4)
    outside = net(x)
    after = torch.get_rng_state()
    torch.manual_seed(4)
    with soften(net):
        inside = net(x.clone().requires_grad_())
    assert torch.equal(inside, outside)
    assert torch.equal(torch.get_rng_state(), after)


def test_a_model_copied_or_pickled_in_the_block_is_plain(net: Net, x: Tensor) -> None:
    x.requires_grad_()
    plain = torch.autograd.grad(net(x).sum(), x)[0]
    with soften(net, {"": 0.3, "pool": 1.0}):
        net(x)
        copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    for model in copies:
        assert torch.equal(torch.autograd.grad(model(x).sum(), x)[0], plain)


def alive() -> tuple[int, int]:
    gc.collect()
    objects = gc.get_objects()
    return len(objects), sum(issubclass(type(thing), Tensor) for thing in objects)


@pytest.mark.parametrize("name", ["attribute", "by name", "temperatures", "layer"])
def test_memory_is_flat_over_a_thousand_calls(net: Net, x: Tensor, name: str) -> None:
    use = USES[name]
    for _ in range(5):
        use(net, x)
    objects, tensors = alive()
    for _ in range(1000 if use is attribute else 50):
        use(net, x)
    more_objects, more_tensors = alive()
    assert more_tensors <= tensors  # fewer where an earlier test's garbage went meanwhile
    assert more_objects - objects < 50


def test_memory_is_flat_over_calls_that_fail(net: Net, x: Tensor) -> None:
    def fail() -> None:
        with contextlib.suppress(IndexError):
            ExcitationPullback(net).attribute(x, 99)

    for _ in range(5):
        fail()
    objects, tensors = alive()
    for _ in range(100):
        fail()
    more_objects, more_tensors = alive()
    assert more_tensors <= tensors  # fewer where an earlier test's garbage went meanwhile
    assert more_objects - objects < 50


def test_a_forward_pass_leaves_no_cycle_of_tensors(net: Net, x: Tensor) -> None:
    attribute(net, x)
    gc.collect()
    gc.disable()
    try:
        before = _tensors()
        for _ in range(5):
            attribute(net, x)
        assert _tensors() == before
    finally:
        gc.enable()


def _tensors() -> int:
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
