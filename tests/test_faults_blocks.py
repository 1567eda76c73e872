"""Blocks that interleave, are left out of order or by Ctrl-C: each takes itself away, no other."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pulls import sigma
from reference import gradient
from snapshot import hooks
from threads import at_once
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import captum_pullback
from captum_pullback import ExcitationPullback, soften
from captum_pullback.engine._torch import mode_depth, modes, restore_modes
from captum_pullback.engine.errors import SofteningError

Z = torch.tensor([-1.5, -0.2, 0.0, 0.4, 2.0], dtype=torch.float64)


def slope() -> Tensor:
    """The slope of ReLU at Z, whichever softening holds."""
    z = Z.clone().requires_grad_()
    return gradient(F.relu(z).sum(), z)


HARD = (Z > 0).double()


@pytest.fixture(autouse=True)
def _no_mode_is_left() -> Iterator[None]:
    _drain()
    yield
    assert _drain() == 0


def _drain() -> int:
    """How many modes are left, taking them away, so that the next test starts from none."""
    gc.collect()  # generators that a failed test left
    left = mode_depth()
    restore_modes([])
    return left


# --- tasks of asyncio -----------------------------------------------------------------------------


def test_tasks_keep_their_own_temperatures() -> None:
    found: dict[float, list[Tensor]] = {}

    async def work(temperature: float, naps: int) -> None:
        with soften(nn.Identity(), temperature):
            for _ in range(naps):  # tasks end in another order than they began
                await asyncio.sleep(0)
                found.setdefault(temperature, []).append(slope())

    async def main() -> None:
        await asyncio.gather(work(0.5, 4), work(2.0, 7), work(1.0, 2), work(0.25, 5))

    asyncio.run(main())
    assert sum(map(len, found.values())) == 18
    for temperature, slopes in found.items():
        for each in slopes:
            torch.testing.assert_close(each, sigma(Z, temperature))


def test_a_task_without_a_block_is_plain_beside_one_with() -> None:
    plain: list[Tensor] = []

    async def soft() -> None:
        with soften(nn.Identity(), 0.5):
            for _ in range(3):
                await asyncio.sleep(0)
                torch.testing.assert_close(slope(), sigma(Z, 0.5))

    async def hard() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
            plain.append(slope())

    async def main() -> None:
        await asyncio.gather(soft(), hard())

    asyncio.run(main())
    assert len(plain) == 5
    assert all(torch.equal(each, HARD) for each in plain)


def test_a_task_that_is_cancelled_takes_its_own_block_away() -> None:
    async def waits() -> None:
        with soften(nn.Identity(), 2.0):
            slope()
            await asyncio.Event().wait()

    async def main() -> None:
        other = asyncio.create_task(waits())
        await asyncio.sleep(0)
        with soften(nn.Identity(), 0.5):
            other.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await other
            torch.testing.assert_close(slope(), sigma(Z, 0.5))
        assert torch.equal(slope(), HARD)

    asyncio.run(main())


def test_records_of_tasks_are_their_own() -> None:
    async def work(temperature: float, calls: int) -> list[tuple[str | None, int]]:
        with soften(nn.Identity(), temperature) as record:
            for _ in range(calls):
                slope()
                await asyncio.sleep(0)
        return [(met.temperature, met.calls) for met in record.softened]

    async def main() -> list[list[tuple[str | None, int]]]:
        return await asyncio.gather(work(0.5, 2), work(2.0, 5), work(1.0, 3))

    assert asyncio.run(main()) == [[("0.5", 2)], [("2", 5)], [("1", 3)]]


# --- generators and blocks that are left in another order -----------------------------------------


def slopes(temperature: float, count: int) -> Iterator[Tensor]:
    with soften(nn.Identity(), temperature):
        for _ in range(count):
            yield slope()


def finish(generator: Iterator[Tensor], how: str) -> None:
    if how == "close":
        generator.close()  # type: ignore[attr-defined]
    else:
        list(generator)


@pytest.mark.parametrize("how", ["close", "exhaust"])
def test_generators_that_end_in_the_order_they_began(how: str) -> None:
    one, other = slopes(0.5, 1), slopes(2.0, 9)
    torch.testing.assert_close(next(one), sigma(Z, 0.5))
    torch.testing.assert_close(next(other), sigma(Z, 2.0))
    with pytest.raises(SofteningError, match="nested"):
        finish(one, how)
    assert mode_depth() == 1
    torch.testing.assert_close(slope(), sigma(Z, 2.0))  # the other block's mode is in force
    torch.testing.assert_close(next(other), sigma(Z, 2.0))
    finish(other, how)
    assert mode_depth() == 0
    assert torch.equal(slope(), HARD)


def test_generators_that_end_last_in_first_out() -> None:
    one, other = slopes(0.5, 9), slopes(2.0, 9)
    next(one)
    next(other)
    finish(other, "close")
    torch.testing.assert_close(next(one), sigma(Z, 0.5))
    finish(one, "close")
    assert torch.equal(slope(), HARD)


def test_three_blocks_of_which_the_middle_one_is_left_first() -> None:
    blocks = [soften(nn.Identity(), t) for t in (0.5, 1.0, 2.0)]
    for block in blocks:
        block.__enter__()
        slope()
    with pytest.raises(SofteningError, match="nested"):
        blocks[1].__exit__(None, None, None)
    torch.testing.assert_close(slope(), sigma(Z, 2.0))
    blocks[2].__exit__(None, None, None)
    torch.testing.assert_close(slope(), sigma(Z, 0.5))
    blocks[0].__exit__(None, None, None)
    assert torch.equal(slope(), HARD)


def test_an_error_on_its_way_is_not_hidden_by_the_one_about_nesting() -> None:
    with ExitStack() as stack:
        one = slopes(0.5, 9)
        next(one)
        stack.enter_context(soften(nn.Identity(), 2.0))
        slope()
        with pytest.raises((ZeroDivisionError, SofteningError)) as caught:
            one.throw(ZeroDivisionError("theirs"))  # type: ignore[attr-defined]
        chain = [caught.value, caught.value.__context__]
        assert any(isinstance(error, ZeroDivisionError) for error in chain)
        torch.testing.assert_close(slope(), sigma(Z, 2.0))


def test_a_block_that_is_left_inside_another_mode_leaves_that_mode() -> None:
    class Other(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return func(*args, **kwargs or {})

    block, other = soften(nn.Identity(), 0.5), Other()
    block.__enter__()
    slope()
    other.__enter__()
    with pytest.raises(SofteningError, match="nested"):
        block.__exit__(None, None, None)
    assert modes() == [other]
    assert torch.equal(slope(), HARD)
    other.__exit__(None, None, None)


def test_interleaved_blocks_put_no_hooks_on_the_model() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU()).double()

    def run(temperature: float) -> Iterator[None]:
        with soften(model, {"": temperature, "1": temperature}):
            while True:
                model(Z.clone().requires_grad_())
                yield

    one, other = run(0.5), run(2.0)
    next(one)
    next(other)
    assert hooks(model) == []
    with pytest.raises(SofteningError, match="nested"):
        one.close()  # type: ignore[attr-defined]
    other.close()  # type: ignore[attr-defined]
    assert hooks(model) == []


def test_threads_that_interleave_keep_their_own_temperatures() -> None:
    barrier, wrong = threading.Barrier(3), []

    def work(temperature: float) -> None:
        with soften(nn.Identity(), temperature):
            for _ in range(5):
                barrier.wait(20)
                if not torch.allclose(slope(), sigma(Z, temperature)):
                    wrong.append(temperature)

    at_once(*(partial(work, t) for t in (0.5, 1.0, 2.0)))
    assert wrong == []


# --- copies that are made inside ------------------------------------------------------------------


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "copy", "torch.save"])
def test_a_copy_made_in_the_block_has_no_hooks_of_ours(way: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.MaxPool1d(2)).double()
    theirs = model[1].register_forward_hook(_their_hook)
    with soften(model, {"": 0.5, "2": 1.0}):
        model(Z[None].clone().requires_grad_())
        if way == "deepcopy":
            made = copy.deepcopy(model)
        elif way == "pickle":
            made = pickle.loads(pickle.dumps(model))
        elif way == "copy":
            made = copy.copy(model[2])
        else:
            torch.save(model, tmp_path / "model.pt")
            made = torch.load(tmp_path / "model.pt", weights_only=False)
        made(Z[None].clone().requires_grad_())
    assert hooks(made) == ([] if way == "copy" else [_their_hook])
    theirs.remove()
    assert hooks(model) == []


def _their_hook(*_: Any) -> None:
    return None


# --- Ctrl-C ---------------------------------------------------------------------------------------

_WATCHED = (
    str(Path(captum_pullback.__file__).parent),
    torch.overrides.__file__,
    contextlib.__file__,
    torch.utils.hooks.__file__,
)


class _InterruptAtCall:
    """Raises KeyboardInterrupt where Python looks for signals: as the n-th function begins."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: types.FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_WATCHED):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt


def network() -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Linear(5, 3), nn.ReLU()).double()


def use_a_block(model: nn.Module) -> None:
    with soften(model, {"": 0.5, "0": 1.0}):
        z = Z.clone().requires_grad_()
        gradient(model(z).sum(), z)


def use_an_attribution(model: nn.Module) -> None:
    ExcitationPullback(model, 0.5).attribute(Z[None], 0)


# Where a generator that nobody needs any more is closed, Python itself swallows the interrupt.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("use", [use_a_block, use_an_attribution])
def test_an_interrupt_at_any_call_leaves_no_mode_and_no_hook(use: Any) -> None:
    model = network()
    tracer = sys.gettrace()
    left: list[tuple[int, Any, Any]] = []
    number = 0
    while True:
        number += 1
        interrupt = _InterruptAtCall(number)
        try:
            sys.settrace(interrupt)
            use(model)
        except KeyboardInterrupt:
            pass
        except RuntimeError as error:  # raised by what tidies up
            left.append((number, str(error), []))
        finally:
            sys.settrace(tracer)
        if mode_depth() or hooks(model):
            left.append((number, _drain(), hooks(model)))
            model = network()
        if interrupt.left > 0:
            break
    assert number > 20  # calls that were tried
    assert left == []


_LOOP = """
import os, random, signal, sys, threading, time
import torch
from torch import nn
from captum_pullback import soften
from captum_pullback.engine._torch import mode_depth, restore_modes
from snapshot import hooks

signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
random.seed(0)
make = lambda: nn.Sequential(nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
x = torch.randn(2, 4, requires_grad=True)
model = make()
go = threading.Event()

def interrupt():
    while True:  # Python swallows one that comes as it closes a generator
        go.wait()
        time.sleep(random.random() * 0.004)
        if go.is_set():
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)

with soften(model, {"": 0.3, "2": 0.5}):
    torch.relu(x)  # PyTorch imports something now, which may not be interrupted
thread = threading.Thread(target=interrupt, daemon=True)
thread.start()
caught, bad = 0, []
while caught < 40:
    try:
        go.set()
        while True:
            with soften(model, {"": 0.3, "2": 0.5}):
                torch.relu(x)
    except KeyboardInterrupt:
        go.clear()
        caught += 1
    if mode_depth() or hooks(model):
        bad.append((caught, mode_depth(), hooks(model)))
        restore_modes([])
        model = make()
print(caught, bad)
"""


@pytest.mark.skipif(os.name == "nt", reason="a signal to oneself ends the process there")
def test_real_interrupts_at_random_moments_leave_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _LOOP],
        capture_output=True, text=True, timeout=120, check=False,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    assert done.stdout.strip() == "40 []", done.stderr[-2000:]
