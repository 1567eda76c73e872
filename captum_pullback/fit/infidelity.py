"""Infidelity of many maps on the same perturbed inputs, and their dependence on the class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_pullback.engine.models import as_tuple, on_copies, widened
from captum_pullback.perturbations import gaussian_noise, noise_squares, seeded

__all__ = ["Perturbed", "cosine", "default_perturbation", "other_classes"]

#: Perturbations up to this many bytes are kept, and made anew from the seed beyond.
_KEPT = 2**28


class Perturbed:
    r"""Perturbed inputs and what they do to the score, for the infidelity of any attribution.

    With :math:`I_s = x - \tilde x_s` and :math:`d_s = f(x) - f(\tilde x_s)`, the infidelity of a
    map a is Captum's,

    .. math::
        \frac1S \sum_s \left(\beta \langle I_s, a \rangle - d_s\right)^2, \qquad
        \beta = \frac{\sum_s \langle I_s, a \rangle d_s}{\sum_s \langle I_s, a \rangle^2}

    with :math:`\beta = 1` where it is not at its best scale. The network sees each perturbed
    input once, whatever the number of maps. Sums are in float64 where the device has it. Source:
    Yeh et al. 2019, arXiv 1901.09392.

    Args:
        forward_func: The network.
        inputs: A tensor of shape (N, ...), or a tuple of such.
        target: Indices (N, D) of the output of each example, as of `indices`, or None.
        additional_forward_args: Of the network; tensors are repeated as the inputs are.
        perturb: From inputs to perturbed inputs, both a tensor or both a tuple.
        samples: Perturbations S of each example.
        at_once: How many perturbed examples the network sees at once, about.
        seed: Of the perturbations.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        inputs: Tensor | tuple[Tensor, ...],
        target: Tensor | None,
        additional_forward_args: Any,
        perturb: Callable[..., Any],
        *,
        samples: int,
        at_once: int,
        seed: int,
    ) -> None:
        self._inputs = tuple(part.detach() for part in as_tuple(inputs))
        self._perturb, self._samples, self._seed = perturb, samples, seed
        self._count = len(self._inputs[0])
        self._each = min(max(at_once // self._count, 1), samples)
        self._kept: list[list[Tensor]] | None = []
        size = sum(part.numel() * part.element_size() for part in self._inputs) * samples
        extra = as_tuple(additional_forward_args)
        with seeded(seed), torch.no_grad():
            plain = _score(on_copies(forward_func, self._inputs, extra), target)
            changes = []
            for perturbed in self._draws():
                each = len(perturbed[0]) // self._count
                repeated = tuple(
                    given.repeat_interleave(each, 0) if _has_rows(given) else given
                    for given in extra
                )
                where = None if target is None else target.repeat_interleave(each, 0)
                found = _score(on_copies(forward_func, perturbed, repeated), where)
                changes.append(plain[:, None] - found.reshape(self._count, each))
                if size <= _KEPT:
                    self._kept.append(self._differences(perturbed))
        self._changes = torch.cat(changes, 1)
        if size > _KEPT:
            self._kept = None

    def infidelities(self, attributions: Sequence[Any], *, normalize: bool = True) -> Tensor:
        """The infidelity of each of K attributions, for each example.

        Args:
            attributions: K of the form of the inputs.
            normalize: Whether each map of each example is taken at its best scale.

        Returns:
            Shape (K, N), of float64 where the device has it; not negative.
        """
        maps = [
            torch.stack([widened(as_tuple(given)[part]).flatten(1) for given in attributions], 1)
            for part in range(len(self._inputs))
        ]  # (N, K, D) of each part
        products = torch.cat(
            [
                sum(
                    torch.bmm(each, widened(part).transpose(1, 2))
                    for each, part in zip(maps, parts, strict=True)
                )  # type: ignore[misc]
                for parts in self._pieces()
            ],
            2,
        )
        changes = self._changes[:, None].to(products)
        if normalize:
            squares = products.square().sum(2, keepdim=True)
            scale = (products * changes).sum(2, keepdim=True) / squares
            products = torch.where(squares > 0, scale, 1.0) * products
        return (products - changes).square().mean(2).T

    def _pieces(self) -> Iterator[list[Tensor]]:
        """Differences of the inputs from perturbed ones, (N, samples, D) for each part."""
        if self._kept is not None:
            yield from self._kept
            return
        with seeded(self._seed), torch.no_grad():
            for perturbed in self._draws():
                yield self._differences(perturbed)

    def _draws(self) -> Iterator[tuple[Tensor, ...]]:
        """Perturbed inputs, in the order in which Captum draws them."""
        for start in range(0, self._samples, self._each):
            each = min(self._each, self._samples - start)
            repeated = tuple(part.repeat_interleave(each, 0) for part in self._inputs)
            yield as_tuple(self._perturb(repeated if len(repeated) > 1 else repeated[0]))

    def _differences(self, perturbed: tuple[Tensor, ...]) -> list[Tensor]:
        return [
            (part[:, None] - other.view(self._count, -1, *part.shape[1:])).flatten(2)
            for part, other in zip(self._inputs, perturbed, strict=True)
        ]


def other_classes(output: Tensor, target: Tensor | None, seed: int) -> list[Tensor]:
    """Indices of the runner-up and of a class drawn at random, for each example.

    Classes are the second dimension of the output. The runner-up has the highest score but the
    target's; the third is any other than these two.

    Returns:
        Two tensors of the shape of ``target``; one, if there are two classes; none for one score.
    """
    if target is None or output.shape[1] < 2:
        return []
    rows = torch.arange(len(output), device=output.device)
    scores = output.detach()
    if output.dim() > 2:
        where = (rows, slice(None), *target[:, 1:].T)
        scores = scores[where]
    scores = scores.clone().float()
    lowest = float("-inf")
    scores[rows, target[:, 0]] = lowest
    runner_up = scores.argmax(1)
    found = [runner_up]
    if output.shape[1] > 2:
        with seeded(seed):
            drawn = torch.rand(scores.shape).to(scores)
        drawn[rows, target[:, 0]] = drawn[rows, runner_up] = -1.0
        found.append(drawn.argmax(1))
    return [torch.cat([each[:, None], target[:, 1:]], 1) for each in found]


def cosine(first: Any, second: Any) -> Tensor:
    """The cosine of two attributions of each example, all their parts taken together.

    Two maps that are both zero are the same, with a cosine of 1; one that is zero has 0 to any
    other.

    Returns:
        Shape (N,), of float64 where the device has it.
    """
    one, other = (
        torch.cat([widened(part).flatten(1) for part in as_tuple(given)], 1)
        for given in (first, second)
    )
    # Scaled first, so that no square is too small or too large.
    sizes = [each.abs().amax(1, keepdim=True) for each in (one, other)]
    units = [
        torch.where(size > 0, each / size, 0.0)
        for each, size in zip((one, other), sizes, strict=True)
    ]
    norms = torch.linalg.vector_norm(units[0], dim=1) * torch.linalg.vector_norm(units[1], dim=1)
    products = (units[0] * units[1]).sum(1)
    both = (sizes[0] == 0) & (sizes[1] == 0)
    found = torch.where(norms > 0, products / norms, both[:, 0].to(products))
    return found.clamp(-1, 1)


def default_perturbation(inputs: Tensor | tuple[Tensor, ...]) -> Callable[..., Any]:
    """Squares of noise for images (N, C, H, W), and Gaussian noise for anything else."""
    if isinstance(inputs, Tensor) and inputs.dim() == 4:
        image = inputs.detach().float().cpu()
        return noise_squares(
            image.amin((0, 2, 3)).view(-1, 1, 1), image.amax((0, 2, 3)).view(-1, 1, 1)
        )
    tensors = as_tuple(inputs)
    noises = [gaussian_noise(float(t.detach().float().std(correction=0))) for t in tensors]

    def perturb(given: Any) -> Any:
        if isinstance(given, Tensor):
            return noises[0](given)
        return tuple(noise(part) for noise, part in zip(noises, given, strict=True))

    return perturb


def _score(output: Tensor, target: Tensor | None) -> Tensor:
    """The score of each example, (N,), in the wide type."""
    if target is None:
        return widened(output.detach()).reshape(len(output))
    rows = torch.arange(len(output), device=output.device)
    where = (rows, *target.T)
    return widened(output.detach()[where])


def _has_rows(given: Any) -> bool:
    return isinstance(given, Tensor) and given.dim() > 0
