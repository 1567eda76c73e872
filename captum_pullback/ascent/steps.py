r"""Pixel-space ascent along the pullback: the features that a class asks for, drawn on an input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any, Generic

import torch
from captum.attr import Attribution
from captum.log import log_usage
from captum.robust import Perturbation
from torch import Tensor

from captum_pullback.ascent.region import Bounds, Layout, Region, check_bounds, norms, unit
from captum_pullback.attribution import ExcitationPullback
from captum_pullback.engine.models import on_copies
from captum_pullback.engine.rules import RulesLike
from captum_pullback.engine.softening import check
from captum_pullback.engine.softness import DEFAULT_TEMPERATURE, HasSoftness, Softness
from captum_pullback.engine.temperature import TemperatureLike
from captum_pullback.pullback.call import Inputs, Target

__all__ = ["AscentStep", "PullbackAscent"]


@dataclass(frozen=True)
class AscentStep(Generic[Inputs]):
    """One point of an ascent.

    Attributes:
        step: The number of steps taken so far; 0 is the inputs themselves.
        inputs: The point, with the shapes and types of the inputs.
        score: The target's score there, (N,).
        step_norm: The L2 length of the step that led there, (N,), in float64: less than
            ``step_size`` where the radius or the bounds cut it short, and 0 where there was no
            gradient.
        distance: The L2 distance from the inputs, (N,), in float64.
    """

    step: int
    inputs: Inputs
    score: Tensor
    step_norm: Tensor
    distance: Tensor


class PullbackAscent(HasSoftness, Attribution, Perturbation):  # type: ignore[misc]
    r"""A few steps of gradient ascent along the excitation pullback.

    .. math::
        x_{k+1} = \Pi_{\text{bounds}} \Pi_{\|x - x_0\|_2 \le r}
        \left( x_k + \eta \, g_k / \|g_k\|_2 \right),
        \quad g_k = \text{the pullback of } f_c \text{ at } x_k

    Source: arXiv 2507.22832, whose 5 steps of length 20 within a radius of 100 are for inputs of 3
    x 224 x 224 in [-1, 1]. A length that suits one input size does not suit another: in proportion,
    it is :math:`20 \sqrt{n / 150528}` for inputs of n numbers of the same magnitude. With
    ``relative=True``, the same settings suit any size and normalization.

    It is both a Captum attribution (the total perturbation :math:`x_K - x_0`) and a perturbation of
    ``captum.robust`` (:math:`x_K`). As an attribution it is local, like a gradient, in the units of
    the input: score it by ``infidelity(..., normalize=True)`` with a perturbation function
    decorated by ``infidelity_perturb_func_decorator(multiply_by_inputs=False)``.

    Everything is per example: a batch of n gives the same as n batches of one. The parts of a tuple
    of inputs are treated as one vector, with one norm. Lengths are computed in float64 whatever the
    inputs' type, and hold for the rounded result: it never exceeds ``radius`` or ``bounds``, not
    even in the last digit. An example without any gradient stays where it is.

    Args:
        forward_func: The network, or any callable that gives a tensor of shape (N, ...).
        temperature: As for `ExcitationPullback`; 0 leaves gates as they are, which is the
            plain gradient on ReLU networks (``rules={}`` on any).
        pool_temperature: The same for max pooling; None follows ``temperature``.
        rules: What is held of each kind of gate: see `soften`.
        steps: The number of steps, K.
        step_size: The length of a step, above 0. None is 20, or with ``relative`` 0.1.
        radius: The greatest distance from the inputs, above 0; `math.inf` means no limit. None is
            100, or with ``relative`` 0.5. Inputs that are themselves outside ``bounds`` are moved
            inside, however far that is.
        relative: Whether ``step_size`` and ``radius`` are fractions of each example's own L2 norm
            before the first step.
        bounds: The pair (lowest, highest) that inputs may have: numbers; a sequence or tensor of
            one per channel (dimension 1); or tensors that broadcast against the inputs. They are in
            the units of the inputs: where pixels in [0, 1] were normalized, give
            ``((0 - mean) / std, (1 - mean) / std)`` with tensors ``mean`` and ``std`` of shape
            (C,). The same pair holds for all parts of a tuple.

    Raises:
        TypeError: As for `ExcitationPullback`, and settings that are not numbers.
        ValueError: As for `ExcitationPullback`, and settings out of range.

    In short::

        ascent = PullbackAscent(model, relative=True)
        drawn = ascent.perturb(images, target=3)
        for step in ascent.trace(images, target=3):
            print(step.step, step.score)
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        temperature: TemperatureLike = DEFAULT_TEMPERATURE,
        *,
        pool_temperature: TemperatureLike | None = None,
        rules: RulesLike | None = None,
        steps: int = 5,
        step_size: float | None = None,
        radius: float | None = None,
        relative: bool = False,
        bounds: Bounds | None = None,
    ) -> None:
        Attribution.__init__(self, forward_func)
        self.softness = Softness(temperature, pool_temperature, rules)
        check(forward_func, self.softness)
        if isinstance(steps, bool) or not isinstance(steps, int):
            raise TypeError(f"steps must be an int, not {type(steps).__name__}")
        if steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        self.steps = steps
        self.relative = bool(relative)
        default_step, default_radius = (0.1, 0.5) if relative else (20.0, 100.0)
        self.step_size = _length(default_step if step_size is None else step_size, "step_size")
        self.radius = _length(default_radius if radius is None else radius, "radius")
        if math.isinf(self.step_size):
            raise ValueError("step_size must be finite")
        self.bounds = bounds
        check_bounds(bounds)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self, inputs: Inputs, target: Target, additional_forward_args: Any = None
    ) -> Inputs:
        """The perturbation that the ascent ends with, :math:`x_K - x_0`.

        Args:
            inputs: A tensor of shape (N, ...), or a tuple of such, of floating point.
            target: The output to raise, as in every Captum attribution: an int or a tuple for all
                examples, a list or tensor with one for each; None where the output has one number
                per example.
            additional_forward_args: Additional arguments of the network, which do not change.

        Returns:
            A contiguous tensor, or a tuple of tensors, of the shapes and types of the inputs.

        Raises:
            TypeError, ValueError, AssertionError, IndexError, SofteningError: As `trace`.
        """
        last = self.perturb(inputs, target, additional_forward_args)
        if isinstance(inputs, Tensor):
            perturbation: Tensor = last - inputs.detach()
            return perturbation
        return tuple(end - start.detach() for end, start in zip(last, inputs, strict=True))

    @log_usage()  # type: ignore[untyped-decorator]
    def perturb(
        self, inputs: Inputs, target: Target, additional_forward_args: Any = None
    ) -> Inputs:
        """Where the ascent ends, :math:`x_K`; arguments, result and errors as for `attribute`."""
        for step in self._climb(inputs, target, additional_forward_args):
            last = step.inputs
        return last

    def trace(
        self, inputs: Inputs, target: Target, additional_forward_args: Any = None
    ) -> list[AscentStep[Inputs]]:
        """All the points of the ascent, with scores and lengths; arguments as for `attribute`.

        Returns:
            ``steps`` + 1 points, from the inputs to :math:`x_K`.

        Raises:
            TypeError: Inputs that are not tensors of floating point.
            ValueError: Inputs, scores or gradients that are not finite; bounds that do not fit
                the inputs; with ``relative``, an example that is all zeros.
            AssertionError, IndexError: A target that does not fit the output (Captum's types).
            SofteningError: Nothing was softened, or `torch.inference_mode` is on.
        """
        return list(self._climb(inputs, target, additional_forward_args))

    def _climb(self, inputs: Inputs, target: Target, extra: Any) -> Iterator[AscentStep[Inputs]]:
        layout = Layout(inputs)
        start = layout.flatten(inputs)
        unit_length = norms(start) if self.relative else torch.ones_like(start[:, 0])
        if not bool((unit_length > 0).all()):
            raise ValueError(
                f"example {int(unit_length.argmin())} is all zeros, so a step relative to its norm "
                "has no length: give step_size and radius as lengths, with relative=False"
            )
        step_size = (self.step_size * unit_length).unsqueeze(1)
        region = Region(layout, start, self.radius * unit_length, self.bounds)
        pullback = _ScoredPullback(self.forward_func, self.softness)

        perturbation, point = torch.zeros_like(start), start
        step_norm = distance = torch.zeros_like(unit_length)
        for step in range(self.steps):
            parts = layout.unflatten(point)
            score, gradient = pullback(parts, target, extra)
            gradient = layout.flatten(gradient)
            self._require_finite(step, score=score, gradient=gradient)
            yield AscentStep(step, parts, score, step_norm, distance)
            perturbation, following = region.project(perturbation + step_size * unit(gradient))
            step_norm, distance = norms(following - point), norms(following - start)
            point = following
        parts = layout.unflatten(point)
        score = pullback.score(parts, extra)
        self._require_finite(self.steps, score=score)
        yield AscentStep(self.steps, parts, score, step_norm, distance)

    def _require_finite(self, step: int, **values: Tensor) -> None:
        for what, tensor in values.items():
            finite = torch.isfinite(tensor).reshape(len(tensor), -1).all(dim=1)
            if not bool(finite.all()):
                number = int((~finite).nonzero()[0])
                where = (
                    f"after {step} of {self.steps} steps" if step else "at the inputs themselves"
                )
                raise ValueError(f"the target's {what} is not finite in example {number}, {where}")


class _ScoredPullback:
    """The pullback at a point, and the score that it is the pullback of."""

    def __init__(
        self,
        forward_func: Callable[..., Any],
        softness: Softness,
    ) -> None:
        self.forward_func = forward_func
        self._pullback = ExcitationPullback(
            forward_func,
            softness.temperature,
            pool_temperature=softness.pool_temperature,
            rules=softness.rules,
        )
        self._gradients = self._pullback.gradient_func
        self._pullback.gradient_func = self._seen
        self._output = self._selected = torch.empty(0)

    def __call__(self, parts: Any, target: Target, extra: Any) -> tuple[Tensor, Any]:
        gradient = self._pullback.attribute(parts, target, extra)
        return self._select(self._output), gradient

    def score(self, parts: Any, extra: Any) -> Tensor:
        """The score of the same target elsewhere."""
        with torch.no_grad():
            return self._select(on_copies(self.forward_func, parts, extra))

    def _seen(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Captum's gradients, taken while one looks at the output.

        What arrives at the output in the backward pass is 1 where it was selected and 0 elsewhere:
        so Captum's reading of a target, whatever its form, is known without repeating it.
        """

        def watched(*inputs: Any) -> Any:
            output = forward(*inputs)
            if isinstance(output, Tensor) and output.requires_grad:
                self._output = output.detach().clone()
                output.register_hook(self._arrived)  # type: ignore[no-untyped-call]
            return output

        return self._gradients(watched, *args, **kwargs)

    def _arrived(self, gradient: Tensor) -> None:
        self._selected = gradient.detach() != 0

    def _select(self, output: Tensor) -> Tensor:
        chosen = torch.where(self._selected, output, torch.zeros_like(output))
        return chosen.reshape(len(output), -1).sum(dim=1)


def _length(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    number = float(value)
    if not number > 0:  # also where it is NaN
        raise ValueError(f"{name} must be above 0, not {number}")
    return number
