"""The scores of inputs with features set to a baseline, computed once for many maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_pullback.engine.models import as_tuple, on_copies, widened
from captum_pullback.pullback.targets import indices

__all__ = ["Ablation", "features_of"]


def features_of(inputs: Tensor, features: int | Tensor | None) -> Tensor:
    """Which feature each entry of an input belongs to.

    Args:
        inputs: (N, ...).
        features: n for a grid of n x n cells over the last two dimensions, all channels together;
            if n does not divide the side, cells differ by one pixel. Or a mask like Captum's
            ``feature_mask``: whole numbers that broadcast to one input, where equal numbers are one
            feature. None makes each entry a feature.

    Returns:
        The number of each entry's feature, (...), counted from 0 without gaps.

    Raises:
        ValueError: Cells would be smaller than a pixel, or a mask does not fit one input.
    """
    shape = inputs.shape[1:]
    if features is None:
        return torch.arange(shape.numel(), device=inputs.device).view(shape)
    if isinstance(features, Tensor):
        mask = features.to(inputs.device)
        if mask.dim() == inputs.dim() and len(mask) == 1:
            mask = mask[0]
        try:
            mask = mask.expand(shape)
        except RuntimeError as error:
            raise ValueError(
                f"a feature mask of shape {tuple(features.shape)} does not fit one input of shape "
                f"{tuple(shape)}; if examples have masks of their own, pass one example at a time"
            ) from error
        found: Tensor = torch.unique(mask, return_inverse=True)[1]
        return found
    if len(shape) < 2 or not 1 <= features <= min(shape[-2:]):
        raise ValueError(f"inputs of shape {tuple(shape)} have no grid of {features} x {features}")
    rows, columns = (
        torch.arange(side, device=inputs.device) * features // side for side in shape[-2:]
    )
    return (rows[:, None] * features + columns).expand(shape)


class Ablation:
    """The score of inputs with any of their features set to a baseline.

    Args:
        forward_func: The network; its output has shape (N, ...).
        inputs: Floating point, (N, ...).
        target: Which output is the score, as Captum takes it: a number, a list or a tensor
            of N, or tuples; None for a network with one output for each example.
        additional_forward_args: Passed to the network; tensors of N rows are split like the inputs.
        baselines: The value of removed features: a number, or a tensor that broadcasts to the
            inputs.
        features: See `features_of`.
        at_once: The largest batch that the network is given.

    Attributes:
        features: The number of each entry's feature, (...).
        count: The number of features F.
        plain: The score of each unchanged input, (N,), in float64 if the device supports it.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        inputs: Tensor,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        baselines: float | Tensor = 0.0,
        features: int | Tensor | None = None,
        at_once: int = 64,
    ) -> None:
        if at_once < 1:
            raise ValueError(f"at_once must be at least 1, not {at_once}")
        self.inputs = inputs.detach()
        self.features = features_of(self.inputs, features)
        self.count = int(self.features.max()) + 1
        self.baselines = torch.as_tensor(baselines).to(self.inputs).expand_as(self.inputs)
        self._forward, self._extra = forward_func, as_tuple(additional_forward_args)
        self._target, self._at_once = target, at_once
        self._where: Tensor | None = None
        everything = torch.arange(len(inputs), device=inputs.device)
        nothing = torch.zeros((), dtype=torch.bool, device=inputs.device)
        self.plain = self._scores(everything, lambda _: nothing)

    def without(self, chosen: Tensor, baselines: Tensor | None = None) -> Tensor:
        """The score with some features set to the baselines.

        Args:
            chosen: True for the features that are set to the baseline in each of M cases: (M, F)
                for all examples alike, or (N, M, F).
            baselines: Used in place of those given to the constructor; broadcast to the inputs.

        Returns:
            (N, M), with the type of ``plain``.
        """
        cases = chosen.shape[-2]
        numbers = torch.arange(len(self.inputs) * cases, device=self.inputs.device)
        chosen = chosen.to(self.inputs.device).expand(len(self.inputs), -1, -1).flatten(0, 1)

        def mask(rows: Tensor) -> Tensor:
            return chosen[rows][:, self.features]

        found = self._scores(numbers, mask, cases, baselines)
        return found.view(len(self.inputs), cases)

    def sums(
        self, attributions: Sequence[Tensor] | Tensor, multiplies_by_inputs: bool | Sequence[bool]
    ) -> Tensor:
        """The contribution of each feature according to each of K attributions.

        Args:
            attributions: K tensors that broadcast to the inputs, or one (K, N, ...).
            multiplies_by_inputs: True for contributions, which are summed as they are; False for
                derivatives, which are first multiplied by the inputs minus the baselines. One value
                for all attributions, or one for each.

        Returns:
            (K, N, F), with the type of ``plain``.
        """
        change = self.inputs.to(self.plain) - self.baselines.to(self.plain)
        place = self.features.flatten().expand(len(self.inputs), -1)
        found = []
        given_maps = list(attributions)
        if isinstance(multiplies_by_inputs, bool):
            multiplies_by_inputs = [multiplies_by_inputs] * len(given_maps)
        for number, (given, is_sum) in enumerate(
            zip(given_maps, multiplies_by_inputs, strict=True)
        ):
            if given.dim() != self.inputs.dim():
                raise ValueError(
                    f"attribution {number} is of shape {tuple(given.shape)}, which does not match "
                    f"the inputs' {tuple(self.inputs.shape)}"
                )
            wide = given.detach().to(self.plain).expand_as(self.inputs)
            values = (wide if is_sum else wide * change).flatten(1)
            empty = values.new_zeros(len(values), self.count)
            found.append(empty.scatter_add_(1, place, values))
        return torch.stack(found)

    @torch.no_grad()
    def _scores(
        self,
        numbers: Tensor,
        mask: Callable[[Tensor], Tensor],
        cases: int = 1,
        baselines: Tensor | None = None,
    ) -> Tensor:
        """The score of each of N x cases rows; the mask says which entries are at the baseline."""
        low = self.baselines if baselines is None else baselines.to(self.inputs)
        low = low.expand_as(self.inputs)
        found = []
        for rows in torch.split(numbers, self._at_once):
            which = rows // cases
            given = torch.where(mask(rows), low[which], self.inputs[which])
            extra = tuple(
                part[which]
                if isinstance(part, Tensor) and part.shape[:1] == self.inputs.shape[:1]
                else part
                for part in self._extra
            )
            output = on_copies(self._forward, given, extra)
            if self._where is None and self._target is not None:
                self._where = indices(self._target, output.new_empty(len(self.inputs)))
            if self._where is not None:
                where = (torch.arange(len(output), device=output.device), *self._where[which].T)
                output = output[where]
            found.append(widened(output).reshape(len(which)))
        return torch.cat(found)
