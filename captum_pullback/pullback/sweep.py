"""Many attributions of the same inputs, from as few forward passes as can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor

from captum_pullback.engine.softness import Softness
from captum_pullback.pullback.batches import check_rows, in_chunks
from captum_pullback.pullback.call import Inputs, Pullback, Target

__all__ = ["Sweep", "over_parts"]


class Sweep(Pullback):
    """A pullback of the output, for several targets and at several temperatures."""

    gradient_func: Callable[..., Any]

    def sweep(
        self,
        softnesses: Sequence[Softness],
        inputs: Inputs,
        targets: Sequence[Target],
        extra: Any = None,
        size: int | None = None,
    ) -> list[list[Inputs]]:
        """For each softness the attributions of each target; arguments as for `attribute`."""
        chunks = []
        for part, *others in in_chunks(inputs, extra, list(targets), size):
            found, output = self._sweep_chunk(softnesses, part, *others)
            check_rows(output, part, inputs)
            chunks.append(found)
        if len(chunks) == 1:
            return chunks[0]
        return [
            [over_parts(torch.cat, list(parts)) for parts in zip(*rows, strict=True)]
            for rows in zip(*chunks, strict=True)
        ]

    def _sweep_chunk(
        self, softnesses: Sequence[Softness], inputs: Inputs, extra: Any, targets: list[Target]
    ) -> tuple[list[list[Inputs]], Tensor]:
        """The same for some examples, and the output."""
        output: list[Tensor] = []

        def run(forward: Callable[..., Any], leaves: Inputs) -> list[Inputs]:
            def watched(*args: Any) -> Any:
                output[:] = [forward(*args)]
                return output[0]

            saliency = Saliency(watched)
            saliency.gradient_func = self.gradient_func
            return [
                saliency.attribute(leaves, target, abs=False, additional_forward_args=extra)
                for target in targets
            ]

        found = self._softly_at(softnesses, inputs, run, len(targets))
        finished = [[self._finished(each, inputs) for each in gradients] for gradients in found]
        return finished, output[0].detach()


def over_parts(join: Callable[[list[Tensor]], Tensor], attributions: list[Any]) -> Any:
    """Join attributions, which are tensors, or tuples of tensors to be joined part by part."""
    if isinstance(attributions[0], Tensor):
        return join(attributions)
    return tuple(join(list(parts)) for parts in zip(*attributions, strict=True))
