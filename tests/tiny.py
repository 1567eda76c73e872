"""Small networks for commands, ``--model tiny:NAME``, and some with which something is wrong."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from captum_pullback.zoo.networks import Network, preprocessing

CLASSES = ("tench, Tinca tinca", "goldfish", "tabby, tabby cat", "espresso", "tiger cat")

# No functions, which are refused.
number = 3
instance = nn.ReLU()


class Run(nn.Module):
    """A function as a module."""

    def __init__(self, run: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> object:
        return self.run(x)


def named(model: nn.Module) -> Network:
    return Network(model, CLASSES, preprocessing(16), input_size=16)


def network(*last: nn.Module) -> Network:
    """Takes 16 pixels, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return named(
            nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(392, 5),
                *last,
            )
        )  # fmt: skip


def rules() -> Network:
    """A network with a cap, which its inputs meet, and a GELU."""
    found = network(nn.GELU(), nn.Linear(5, 5))
    found.model[1] = nn.ReLU6()
    with torch.no_grad():
        found.model[0].weight.mul_(9)
    return found


def gelu() -> Network:
    """No ReLU anywhere."""
    found = network()
    found.model[1] = nn.GELU()
    return found


def linear() -> Network:
    return named(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


class Reused(nn.Module):
    """Two convolutions, whose ReLU is one module used twice, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 8, 3, 2, 1)
        self.fc = nn.Linear(8 * 8 * 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, 3, 32, 32) to (N, 2), slowly where a test is to get hold of it meanwhile."""
        time.sleep(float(os.environ.get("TINY_SLEEP", "0")))
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(self.relu(self.conv2(x)).flatten(1))


def reused() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(
            Reused().eval(), ("one", "two"), preprocessing(32), input_size=32, name="tiny"
        )


def unnamed() -> nn.Module:
    return network().model


def one() -> Network:
    """One output, which has a name."""
    return replace(network(nn.Linear(5, 1)), classes=CLASSES[:1])


def one_unnamed() -> Network:
    return replace(one(), classes=())


def soft() -> Network:
    return network(nn.Softmax(1))


def labels() -> Network:
    return network(nn.Sigmoid())


def _slowly(x: Tensor) -> Tensor:
    time.sleep(0.05 * len(x))
    return x


def slow() -> Network:
    """A network that takes its time, for progress and cancelling; one class has a long name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), Run(_slowly), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)
        )
    return Network(model, ("one", "two", "three" * 30), preprocessing(16), input_size=16)


# What is wrong with an output, or happens on the way to it.


class _Interrupt(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 4:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # some shells take it away
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        return x


def _key_error(x: Tensor) -> Tensor:
    return {}["a key"]


def _only_without_gradients(x: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        raise IndexError("only with gradients")
    return x


def interrupting() -> Network:
    return network(_Interrupt())


def key() -> Network:
    return network(Run(_key_error))


def gradients() -> Network:
    return network(Run(_only_without_gradients))


def nan_in_gradients() -> Network:
    return network(Run(lambda x: x * float("nan") if torch.is_grad_enabled() else x))


def pair() -> Network:
    return network(Run(lambda x: (x, x)))


def nothing() -> Network:
    return network(Run(lambda x: None))


def dictionary() -> Network:
    return network(Run(lambda x: {"logits": x}))


def flat() -> Network:
    return network(Run(lambda x: x[0]))


def deep() -> Network:
    return network(Run(lambda x: x[..., None]))


def empty() -> Network:
    return network(Run(lambda x: x[:, :0]))


def nan() -> Network:
    return network(Run(lambda x: x * float("nan")))


def infinite() -> Network:
    return network(Run(lambda x: x / 0))


def leaves() -> Network:
    return network(Run(lambda x: sys.exit("bye")))


def black_is_nan() -> Network:
    whole = network()
    run = Run(lambda x: whole.model(x) / (x.std((2, 3)).max() > 0.1))
    return replace(whole, model=nn.Sequential(run))


def perceptron_pair() -> nn.Module:
    return nn.Sequential(perceptron(), Run(lambda x: (x, x)))


# What is wrong with a network before it runs.


def wrong_size() -> Network:
    return replace(network(), preprocess=preprocessing(8), input_size=8)


def wrong_preprocess() -> Network:
    return replace(network(), preprocess=lambda image: image.no_such_method())


def scripted() -> Network:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return named(torch.jit.script(network().model))


def raises() -> Network:
    raise KeyError("weights")


def asserts() -> Network:
    raise AssertionError


def exits() -> Network:
    sys.exit("usage: tiny")


def needs(argument: object) -> Network:
    return network()


def returns_none() -> None:
    return None


def returns_number() -> int:
    return 5


def returns_class() -> type[nn.Module]:
    return nn.ReLU
