"""Batches that do not fit into memory, taken some examples at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from captum_pullback.engine.models import as_tuple

__all__ = ["check_rows", "in_chunks"]


def in_chunks(
    inputs: Any, additional_forward_args: Any, targets: list[Any], size: int | None
) -> Iterator[tuple[Any, Any, list[Any]]]:
    """A batch, at most so many examples at a time.

    Args:
        inputs: A tensor of shape (N, ...), or a tuple of such.
        additional_forward_args: Of these, tensors of N rows are cut like the inputs.
        targets: As Captum takes them; lists and tensors of N entries are cut like the inputs.
        size: The number of examples; None for all.

    Yields:
        The three for some examples, in order.

    Raises:
        TypeError, ValueError: A size that is no whole number from 1.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        raise TypeError(f"internal_batch_size must be an int, not {type(size).__name__}")
    if size is not None and size < 1:
        raise ValueError(f"internal_batch_size must be at least 1, not {size}")
    tensors = as_tuple(inputs)
    first = tensors[0] if tensors else None
    count = len(first) if isinstance(first, Tensor) and first.dim() else 0

    def is_per_example(given: Any) -> bool:
        return isinstance(given, Tensor) and given.shape[:1] == (count,)

    # What does not fit the batch is for Captum to refuse: it is not cut until it does.
    fits = all(map(is_per_example, tensors)) and all(_fits(target, count) for target in targets)
    if size is None or size >= count or not fits:
        yield inputs, additional_forward_args, targets
        return

    for start in range(0, count, size):
        rows = slice(start, start + size)
        parts = tuple(part[rows] for part in tensors)
        yield (
            parts if isinstance(inputs, tuple) else parts[0],
            tuple(
                given[rows] if is_per_example(given) else given
                for given in as_tuple(additional_forward_args)
            ),
            [
                given[rows] if isinstance(given, list) or is_per_example(given) else given
                for given in targets
            ],
        )


def check_rows(output: Tensor, part: Any, whole: Any) -> None:
    """Raise ValueError where the output of a part shows that it is no part of the batch.

    Inputs whose first dimension is time, say, have an output of as many rows as ever. One number
    for all examples may be their sum, which can be taken in parts.
    """
    if part is whole or not output.dim():
        return
    rows, given = len(output), len(as_tuple(part)[0])
    if rows != given:
        raise ValueError(
            "internal_batch_size splits the inputs along their first dimension, which must be the "
            f"examples; but for {given} of its {len(as_tuple(whole)[0])} entries the output has "
            f"{rows} rows: "
            "leave internal_batch_size out, or put the examples first in inputs and output"
        )


def _fits(target: Any, count: int) -> bool:
    if isinstance(target, Tensor):
        return target.numel() == 1 or target.shape == (count,)
    return not isinstance(target, list) or len(target) == count
