"""Activation checkpointing: right inside the block, refused where the gates' inputs are lost."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable

import pytest
from handmade import Handmade
from test_models import TARGET, Parallel, Spelled, assert_right, pictures, spelled
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from captum_pullback import soften
from captum_pullback.engine._torch import modes, restore_modes


def checkpointed(model: Spelled, reentrant: bool) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        h = checkpoint(lambda x: model.gate(model.two(model.gate(model.one(x)))), x,
                       use_reentrant=reentrant)  # fmt: skip
        return model.head(model.pool(h).flatten(1))

    return forward


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("gate", ["module", "in place", "functional"])
def test_checkpointing_inside_the_block_is_right(gate: str, reentrant: bool) -> None:
    model, x = spelled(gate), pictures().requires_grad_()
    with soften(model, {"": 0.4, "pool": 0.4}):
        scores = checkpointed(model, reentrant)(x)
        scores[range(3), TARGET].sum().backward()
    assert_right(x.grad)


def test_what_is_run_anew_in_a_thread_of_autograd_is_softened() -> None:
    """On a GPU autograd has threads of its own, with the caller's modes, but not its context."""
    model, x, runs = spelled(), pictures().requires_grad_(), []

    def part(x: Tensor) -> Tensor:
        return model.gate(model.two(model.gate(model.one(x))))

    def forward(x: Tensor) -> Tensor:
        runs.append(None)
        if len(runs) == 1:
            return part(x)
        stack, found = modes(), []

        def elsewhere() -> None:
            restore_modes(stack)
            found.append(contextvars.Context().run(part, x))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return found[0]

    with soften(model, {"": 0.4, "pool": 0.4}):
        h = checkpoint(forward, x, use_reentrant=True)
        model.head(model.pool(h).flatten(1))[range(3), TARGET].sum().backward()
    assert len(runs) == 2
    assert_right(x.grad)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_backward_pass_outside_the_block_is_refused(reentrant: bool) -> None:
    model, x = spelled(), pictures().requires_grad_()

    def attempt() -> None:
        with soften(model, 0.4):
            scores = checkpointed(model, reentrant)(x)
        scores.sum().backward()

    with pytest.raises(RuntimeError, match=r"(?i)checkpoint"):
        attempt()


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_threads_of_dataparallel_are_refused_alike(reentrant: bool) -> None:
    """What a replica's gates tell must reach the block, and not end with the replica's thread."""

    # All gates in the checkpoint: none runs outside it.
    whole = Handmade(
        lambda net, x: checkpoint(net.inner, x, use_reentrant=reentrant), inner=spelled()
    )
    model, x = Parallel(whole), pictures().requires_grad_()
    with soften(model, 0.4):
        model(x)[range(3), TARGET].sum().backward()
    assert_right(x.grad)

    def attempt() -> None:
        with soften(model, 0.4):
            scores = model(x)
        scores.sum().backward()

    with pytest.raises(RuntimeError, match=r"(?i)checkpoint"):
        attempt()
