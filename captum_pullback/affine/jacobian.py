"""The gradients of many outputs, from one forward pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from captum_pullback.affine.linearity import Graph

__all__ = ["jacobian"]

# How many gradients of the size of the largest activation a backward pass holds at once: what
# comes in, what goes out, the sum at a shortcut, and a convolution's workspace.
_HELD_AT_ONCE = 4
# On a CPU, so many bytes of gradients of the largest activation are worth taking at once. With
# more, the kernels are as quick for one output as for many, and memory is slower than a cache.
_WORTH_IT = 2**22

Together = Callable[[Tensor], Sequence[Tensor | None]]


def jacobian(
    rows: Tensor, leaves: tuple[Tensor, ...], graph: Graph, max_bytes: int, *, checked: bool
) -> list[Tensor]:
    """The gradients of rows (N, K) with respect to each leaf, each (N, K, *input shape).

    Args:
        rows: K outputs of each of N examples.
        leaves: The inputs, each of N examples.
        graph: What autograd recorded between them.
        max_bytes: About how much memory one backward pass may take, beside the result.
        checked: Whether the caller compares the result with what does not depend on it.
    """
    count, largest = rows.shape[1], max(graph.largest, 1)
    found = [leaf.new_zeros(len(leaf), count, *leaf.shape[1:]) for leaf in leaves]
    if rows.grad_fn is None or not rows.numel():
        return found
    at_once = max_bytes // (_HELD_AT_ONCE * largest)
    # `torch.func.vmap` gives a convolution all gradients in one call; but of what derivatives it
    # knows some are wrong (cdist's in PyTorch 2.14). `is_grads_batched` calls it once for each.
    together = _mapped if checked else _batched
    if checked and rows.device.type == "cpu":
        at_once = min(at_once, _WORTH_IT // largest)
    # Where examples see each other, one's gradient must not be mixed with the others'.
    for example in range(len(rows)) if graph.couples else (None,):
        for chunk, gradients in _pieces(rows, leaves, example, at_once, together(rows, leaves)):
            for whole, gradient in zip(found, gradients, strict=True):
                if gradient is None:
                    continue
                if example is None:
                    whole[:, chunk] = gradient.movedim(0, 1)
                else:
                    whole[example, chunk] = gradient[:, example]
    return found


def _pieces(
    rows: Tensor,
    leaves: tuple[Tensor, ...],
    example: int | None,
    at_once: int,
    together: Together,
) -> Iterator[tuple[slice, list[Tensor | None]]]:
    """Slices of the K outputs, and the gradients of theirs, each (outputs, N, *input shape)."""
    start, count = 0, rows.shape[1]
    while start < count:
        stop = min(count, start + max(at_once, 1))
        seeds = rows.new_zeros(stop - start, *rows.shape)
        seeds.diagonal(start, 0, 2)[slice(None) if example is None else example] = 1
        found: Sequence[Tensor | None]
        if stop - start > 1:
            try:
                found = together(seeds)
            except RuntimeError:  # there is something that must be taken one by one
                at_once = 1
                continue
        else:
            alone = torch.autograd.grad(
                rows, leaves, seeds[0], retain_graph=True, allow_unused=True
            )
            found = [None if part is None else part[None] for part in alone]
        yield slice(start, stop), [None if part is None else part.detach() for part in found]
        start = stop


def _mapped(rows: Tensor, leaves: tuple[Tensor, ...]) -> Together:
    def pull(seed: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(rows, leaves, seed, retain_graph=True, materialize_grads=True)

    def together(seeds: Tensor) -> Sequence[Tensor]:
        with warnings.catch_warnings():
            # Of what it has no rule for, and takes one by one.
            warnings.filterwarnings("ignore", "There is a performance drop")
            return torch.func.vmap(pull)(seeds)

    return together


def _batched(rows: Tensor, leaves: tuple[Tensor, ...]) -> Together:
    def together(seeds: Tensor) -> Sequence[Tensor | None]:
        return torch.autograd.grad(
            rows, leaves, seeds, retain_graph=True, is_grads_batched=True, allow_unused=True
        )

    return together
