"""Drawn networks whose gates lie in odd places: right, refused, or named. Never silently plain.

A network is a list of steps that each change one value of shape (3, 4). The interpreter walks the
same list with the reference's soft gates. Some gates nobody can soften (in a thread, in a
scripted helper): it knows both readings, and where they stay hard the record must name them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pulls import EXCITATION_ONLY
from reference import gradient, max_over, relu, windows
from threads import in_a_thread
from torch import Tensor, nn
from torch.func import vmap

from captum_pullback import ExcitationPullback, soften
from captum_pullback.engine._torch import mode_depth
from captum_pullback.engine.errors import SofteningError
from captum_pullback.engine.record import SofteningRecord

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # PyTorch's own


class Kind(torch.Tensor):
    """A tensor subclass."""


def _constant(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


SQUARE = nn.Parameter(_constant(4, 4, seed=1))
SCALE = nn.Parameter(_constant(4, seed=2))
Gate = Callable[[Tensor], Tensor]


@functools.cache
def _helper() -> Gate:
    @torch.jit.script
    def helper(z: torch.Tensor) -> torch.Tensor:
        return torch.relu(z)

    return helper


def _on(view: Callable[[Tensor], Tensor]) -> Gate:
    """A gate in place on a view of a linear operation's output."""

    def run(v: Tensor) -> Tensor:
        h = v * 1
        view(h).relu_()
        return h

    return run


def _part(view: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Gate], Tensor]:
    def run(v: Tensor, gate: Gate) -> Tensor:
        seen = torch.zeros_like(v)
        view(seen).fill_(1)
        return gate(v) * seen + v * (1 - seen)

    return run


def _beside(aside: Callable[[Tensor], object]) -> Gate:
    def run(v: Tensor) -> Tensor:
        aside(v)
        return v

    return run


def _valued(soft: Tensor, hard: Tensor) -> Tensor:
    """``soft`` with the value of ``hard`` to the bit: hard gates behind it meet the same zeros."""
    return hard.detach() + (soft - soft.detach())


def _relu(z: Tensor, temperature: float) -> Tensor:
    return _valued(relu(z, temperature), z.clamp(min=0))


def _pooled(v: Tensor, temperature: float) -> Tensor:
    axes = windows([4], [2], [2], [0], [1], [2])
    return _valued(max_over(v, axes, temperature), max_over(v, axes, 0)).repeat(1, 2)


# Gates on the way that can be softened: (the step, the interpreter's, of value and soft gate).
SEEN: dict[str, tuple[Gate, Callable[[Tensor, Gate], Tensor]]] = {
    "plain": (F.relu, lambda v, g: g(v)),
    "helper": (lambda v: (lambda z: z.clamp(min=0))(v), lambda v, g: g(v)),
    "vmap": (lambda v: vmap(F.relu)(v), lambda v, g: g(v)),
    "vmap of a module": (lambda v: vmap(nn.ReLU(inplace=True))(v * 1), lambda v, g: g(v)),
    "vmap over columns": (lambda v: vmap(F.relu, in_dims=1, out_dims=1)(v), lambda v, g: g(v)),
    "vmap in vmap": (lambda v: vmap(vmap(F.relu))(v), lambda v, g: g(v)),
    "subclass": (lambda v: F.relu(v.as_subclass(Kind)), lambda v, g: g(v)),
    "subclass in place": (
        lambda v: F.linear(v.as_subclass(Kind), SQUARE).relu_().as_subclass(Tensor),
        lambda v, g: g(v @ SQUARE.T),
    ),
    "subclass, convolution": (
        lambda v: F.relu(
            F.conv1d(v[:, None].as_subclass(Kind), SCALE[None, None, :1]), inplace=True
        )[:, 0].as_subclass(Tensor),
        lambda v, g: g(v * SCALE[0]),
    ),
    "transposed in place": (_on(lambda h: h.mT), _part(lambda h: h.mT)),
    "slice in place": (_on(lambda h: h[:, 1:3]), _part(lambda h: h[:, 1:3])),
    "diagonal in place": (_on(lambda h: h.diagonal()), _part(lambda h: h.diagonal())),
    "every other in place": (_on(lambda h: h[::2].mT), _part(lambda h: h[::2].mT)),
    "branch": (lambda v: v + F.relu(F.linear(v, SQUARE)), lambda v, g: v + g(v @ SQUARE.T)),
}  # fmt: skip
POOL = "pool"
# Gates on the way of which a function mode is not told, and what the record calls them.
UNSEEN: dict[str, tuple[Gate, Callable[[Tensor, Gate], Tensor], str]] = {
    "thread": (in_a_thread(F.relu), lambda v, g: g(v), "relu"),
    "scripted": (lambda v: _helper()(v), lambda v, g: g(v), "relu"),
    "branch in a thread": (lambda v: v + in_a_thread(F.relu)(-v), lambda v, g: v + g(-v), "relu"),
}
# Nonlinearities that stay as they are; each must be named.
HARD: dict[str, tuple[Gate, str]] = {
    "square": (lambda v: 0.3 * v * v, "mul"),
    "deviation": (lambda v: v / 2 - v.std(1, keepdim=True), "std"),
    "fmax": (lambda v: torch.fmax(v, -0.1 * v), "fmax"),
    "masked": (lambda v: v.masked_fill(v < -0.5, 0.2), "masked_fill"),
}
# Gates off the way, or nothing at all: linear in the value.
OFF: dict[str, Gate] = {
    "linear": lambda v: F.linear(v, SQUARE, SCALE),
    "parameter's gate": lambda v: v * (F.relu(SCALE) + 0.2),
    "parameter's gate in vmap": lambda v: v * (vmap(F.relu)(SCALE) + 0.2),
    "position bias": lambda v: v + F.relu(F.linear(SCALE, SQUARE)),
    "parameter's gate in place": lambda v: v * (SCALE * 1).relu_().add(0.2),
    "another head": _beside(lambda v: F.relu(v)),
    "another head in a thread": _beside(in_a_thread(F.relu)),
    "another head's pool": _beside(lambda v: F.max_pool1d(v, 2)),
    "detached": lambda v: v + F.relu(v.detach()),
    "without gradients": lambda v: v - torch.no_grad()(F.relu)(v),
    "straight through": lambda v: v + (F.relu(v) - v).detach(),
}
STEPS = [*SEEN, POOL, *UNSEEN, *HARD, *OFF]


def network(steps: list[str]) -> Gate:
    def forward(v: Tensor) -> Tensor:
        for name in steps:
            if name in SEEN:
                v = SEEN[name][0](v)
            elif name == POOL:
                v = F.max_pool1d(v, 2).repeat(1, 2)
            elif name in UNSEEN:
                v = UNSEEN[name][0](v)
            else:
                v = HARD[name][0](v) if name in HARD else OFF[name](v)
            v = v.as_subclass(Tensor)
        return v.sum(1)

    return forward


def interpreted(steps: list[str], x: Tensor, temperature: float, unseen: float) -> Tensor:
    """The gradient, with the gates of `UNSEEN` at a temperature of their own."""
    leaf = x.clone().requires_grad_()
    v = leaf * 1
    for name in steps:
        if name in SEEN:
            v = SEEN[name][1](v, lambda z: _relu(z, temperature))
        elif name == POOL:
            v = _pooled(v, temperature)
        elif name in UNSEEN:
            v = UNSEEN[name][1](v, lambda z: _relu(z, unseen))
        else:
            v = HARD[name][0](v) if name in HARD else OFF[name](v)
    return gradient(v.sum(), leaf)


def is_close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-8, atol=1e-10, equal_nan=True)


def pulled(steps: list[str], x: Tensor, temperature: float) -> tuple[Tensor, SofteningRecord]:
    forward, leaf = network(steps), x.clone().requires_grad_()
    with soften(nn.Identity(), temperature, **EXCITATION_ONLY) as record:
        return gradient(forward(leaf * 1).sum(), leaf), record


several = st.lists(st.sampled_from(STEPS), min_size=1, max_size=6)
temperatures = st.sampled_from([0.2, 0.7, 3.0])


@given(several, temperatures, st.integers(0, 9))
def test_right_or_refused_or_named(steps: list[str], temperature: float, seed: int) -> None:
    x = _constant(3, 4, seed=seed)
    softened = [name for name in steps if name in SEEN or name == POOL]
    unseen = [name for name in steps if name in UNSEEN]
    hard = [name for name in steps if name in HARD]
    try:
        found, record = pulled(steps, x, temperature)
    except SofteningError:
        assert not softened, "refused, though a gate that can be softened is on the way"
        return
    finally:
        assert mode_depth() == 0
    assert softened or unseen, "a plain gradient, without a word"
    if not (unseen and is_close(found, interpreted(steps, x, temperature, temperature))):
        assert softened, "a plain gradient, without a word"
        assert is_close(found, interpreted(steps, x, temperature, 0))
        for name in unseen:
            assert any(UNSEEN[name][2] in met.operation for met in record.left_hard), record
    for name in hard:
        assert any(HARD[name][1] in met.operation for met in record.left_hard), record
    if not (unseen or hard):
        assert record.left_hard == []


@given(several, temperatures, st.integers(0, 9))
def test_attributions_are_right_or_refused(steps: list[str], temperature: float, seed: int) -> None:
    x = _constant(3, 4, seed=seed)
    softened = [name for name in steps if name in SEEN or name == POOL]
    try:
        found = ExcitationPullback(network(steps), temperature, **EXCITATION_ONLY).attribute(x)
    except SofteningError:
        assert not softened or any(name in UNSEEN for name in steps)
        return
    finally:
        assert mode_depth() == 0
    assert softened
    readings = [interpreted(steps, x, temperature, t) for t in (0, temperature)]
    assert any(is_close(found, reading) for reading in readings)


@given(several, st.integers(0, 9))
def test_the_network_and_its_interpreter_agree(steps: list[str], seed: int) -> None:
    """Outside a block: what the two tests above compare with is the plain gradient at zero."""
    x = _constant(3, 4, seed=seed)
    leaf = x.clone().requires_grad_()
    plain = gradient(network(steps)(leaf * 1).sum(), leaf)
    assert is_close(plain, interpreted(steps, x, 0, 0))
