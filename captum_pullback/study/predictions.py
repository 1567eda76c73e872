"""What a row of a network's outputs means: logits, probabilities, labels, or one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from captum_pullback.engine.models import on_copies
from captum_pullback.study.errors import ScoreError
from captum_pullback.study.text import percent

__all__ = ["Kind", "Prediction", "predicted", "squashes"]

#: What the numbers of a row are. ``"probabilities"`` sum to 1; ``"labels"`` are probabilities of
#: their own, any number of which may be high; ``"one"`` is a single output, whatever it means.
Kind: TypeAlias = Literal["logits", "probabilities", "labels", "one"]

_SUM_TOLERANCE = 2e-3  # a softmax of 1,000 classes in half precision sums to 1 within this
_SQUASHING = ("SigmoidBackward", "HardsigmoidBackward", "SoftmaxBackward")
#: Operations that only move or convert numbers, and so keep them between 0 and 1.
_MOVING = (
    "AliasBackward", "AsStridedBackward", "CatBackward", "CloneBackward", "PermuteBackward",
    "ReshapeAliasBackward", "SelectBackward", "SliceBackward", "SqueezeBackward", "StackBackward",
    "TBackward", "ToCopyBackward", "TransposeBackward", "UnsafeViewBackward",
    "UnsqueezeBackward", "ViewBackward",
)  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """A row of scores, and what they are.

    Attributes:
        scores: As the network gives them, (K,), finite, float32, on the CPU.
        kind: What they are.
    """

    scores: Tensor
    kind: Kind = "logits"

    @property
    def probabilities(self) -> Tensor:
        """The probability for each score, (K,); NaN for a single output, which has none.

        Logits go through a softmax; scores that already are probabilities stay as they are.
        """
        if self.kind == "logits":
            return self.scores.softmax(dim=0)
        return self.scores if self.kind != "one" else torch.full_like(self.scores, torch.nan)

    def top(self, count: int) -> list[int]:
        """Return the classes of the greatest scores, the greatest first."""
        return [int(i) for i in self.scores.topk(min(count, len(self.scores))).indices]

    def text(self, index: int) -> str:
        """Format a class's probability, or the score itself if there is none."""
        if self.kind == "one":
            return f"score {float(self.scores[index]):.3g}"
        return percent(self.probabilities[index])


def predicted(scores: Tensor, squashed: Callable[[], bool] = lambda: False) -> Prediction:
    """Find out what a row of scores is.

    Args:
        scores: A network's outputs for one input, (K,).
        squashed: Whether the network ends in a sigmoid. It is called only if the numbers leave
            it open, because they lie in [0, 1] and do not sum to 1.

    Raises:
        ScoreError: A score is NaN or infinite.
    """
    row = scores.detach().float().cpu()
    bad = int((~row.isfinite()).sum())
    if bad:
        raise ScoreError(
            f"{bad} of its {len(row)} scores are NaN or infinite; check the weights and the "
            "preprocessing"
        )
    if len(row) == 1:
        return Prediction(row, "one")
    if row.min() < 0 or row.max() > 1:
        return Prediction(row)
    if abs(float(row.sum()) - 1) <= _SUM_TOLERANCE:
        return Prediction(row, "probabilities")
    return Prediction(row, "labels" if squashed() else "logits")


def squashes(model: Callable[..., Any], inputs: Tensor) -> bool:
    """Return whether a model ends in an operation that puts its scores between 0 and 1.

    Read from autograd's graph; False where the model has none.
    """
    try:
        with torch.enable_grad():
            output = on_copies(model, inputs.detach().clone().requires_grad_())
        node = output.grad_fn
    except Exception:  # anything at all: the model did run without gradients, which has to do
        return False
    while node is not None and node.name().startswith(_MOVING):
        node = next((before for before, _ in node.next_functions if before is not None), None)
    return node is not None and node.name().startswith(_SQUASHING)
