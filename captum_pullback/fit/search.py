"""The search for a temperature whose maps are faithful and still depend on the class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor
from tqdm import tqdm

from captum_pullback.engine.rules import RulesLike
from captum_pullback.engine.spread import UNITS, Spread
from captum_pullback.engine.temperature import TemperatureLike
from captum_pullback.fit.candidates import OTHERS, Candidate, Judge, gate_spreads, rank
from captum_pullback.fit.infidelity import default_perturbation
from captum_pullback.perturbations import seeded

__all__ = ["Candidate", "NoTemperatureError", "TemperatureFit", "fit_temperature"]

_START = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_LIMITS = (1e-3, 1e3)
_REFINEMENTS = 3


@dataclass(frozen=True)
class TemperatureFit:
    """What `fit_temperature` found, and what it tried. Printed, it is a table.

    Attributes:
        temperature: To be given to `ExcitationPullback` or `soften`: a number, a `Spread`, or a
            mapping from modules or kinds of gates to such. 0, which means hard gates, is
            recommended if no softer temperature passes and is better.
        infidelity: Mean infidelity at this temperature; lower is better.
        tried: All candidates, ascending; the first, 0, leaves gates as they are.
        gradient: The plain gradient, which class dependence is measured against.
        scale: With ``per_gate``, or in units of spread, the scale that was found; otherwise None.
        bounds: What the candidates' cosines must not exceed; empty for outputs of one score.
    """

    temperature: float | Spread | dict[str, Any]
    infidelity: float
    tried: tuple[Candidate, ...]
    gradient: Candidate
    scale: float | None = None
    bounds: tuple[float, ...] = ()

    @property
    def best(self) -> Candidate:
        """The candidate that is recommended."""
        return next(each for each in self.tried if each.temperature == self.temperature)

    @property
    def failed(self) -> tuple[Candidate, ...]:
        """The candidates that fail the sanity check."""
        return tuple(each for each in self.tried if each.failed)

    @property
    def at_limit(self) -> bool:
        """Whether the best is an end of the range that is searched; beyond may be better ones."""
        return self.best.value in _LIMITS

    def __str__(self) -> str:
        first = next((each.temperature for each in self.tried if each.value), 0.0)
        unit = "temperature" if self.scale is None else "scale"
        if isinstance(first, Spread):
            unit = first.unit
        names = OTHERS[: len(self.bounds)]
        lines = [f"{unit:>11}  infidelity" + "".join(f"  {name:>12}" for name in names)]
        for candidate in (self.gradient, *self.tried):
            shown = "gradient" if candidate is self.gradient else f"{candidate.value:.4g}"
            mark = ""
            if candidate is self.gradient:
                mark = "  (plain)"
            elif candidate.value == 0:
                mark = "  (gates as they are)"
            if candidate.failed:
                mark += f"  fails: {candidate.failed}"
            if candidate is self.best:
                mark += "  <- best" + ", at the limit of the search" * self.at_limit
            cosines = "".join(f"  {each:>12.2f}" for each in candidate.cosines)
            if isinstance(candidate.temperature, dict) and self.scale is None:
                mark += f"  {candidate.temperature}"
            lines.append(f"{shown:>11}  {candidate.infidelity:>10.4g}{cosines}{mark}")
        if names:
            bounds = " and ".join(
                f"{bound:.2f} with the {name}'s"
                if name == names[0]
                else f"{bound:.2f} with a {name}'s"
                for bound, name in zip(self.bounds, names, strict=True)
            )
            lines.append(f"cosines with the maps of other classes; a map passes up to {bounds}")
        else:
            lines.append("one score: whether maps depend on the class cannot be checked")
        if self.best.value == 0:
            lines.append("no softer temperature passes and is more faithful: keep the gates hard")
        return "\n".join(lines)


class NoTemperatureError(ValueError):
    """No temperature can be recommended, not even 0.

    Attributes:
        tried: All candidates.
    """

    def __init__(self, message: str, tried: Sequence[Candidate]) -> None:
        super().__init__(message)
        self.tried = tuple(tried)


def fit_temperature(
    forward_func: Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    pool_temperature: TemperatureLike | None = None,
    rules: RulesLike | None = None,
    units: Literal["input", "spread", "output"] = "input",
    per_gate: bool = False,
    per_kind: bool = False,
    class_margin: float = 0.1,
    perturb_func: Callable[..., Any] | None = None,
    n_perturb_samples: int = 32,
    normalize: bool = True,
    max_examples_per_batch: int = 64,
    seed: int = 0,
    show_progress: bool = True,
) -> TemperatureFit:
    r"""Find the temperature with the lowest infidelity whose maps still depend on the class.

    Infidelity (Yeh et al. 2019, arXiv 1901.09392) is Captum's; the same perturbed inputs judge
    every candidate, and the network sees each once. It keeps falling long after a map has become
    the same for all classes, so a candidate must pass a sanity check first: with
    :math:`\rho_T` the mean cosine of its maps with those of another class for the same inputs,

    .. math::
        \rho_T \le \max(\rho_\nabla, 0) + m

    for the runner-up class of each example as well as for one drawn at random; :math:`\rho_\nabla`
    is that of the plain gradient, and m the margin. The square of a cosine is the share of one map
    that the other explains: where the gradient tells classes apart, another class's map may explain
    about :math:`m^2` of a map, by default 1 %. A cosine below 0 is not required, since maps that
    have nothing in common have 0. Among the candidates that pass, including 0 (hard gates), the one
    with the lowest infidelity is recommended.

    The search starts with 0.05, 0.1, 0.2 and so on up to 3.2, continues past an end that is best
    (to 0.001 and 1000 at most, see `TemperatureFit.at_limit`), then halves the steps around the
    best three times.

    Args:
        forward_func: The network, or any callable that gives a tensor of shape (N, ...).
        inputs: What to explain, shape (N, ...), or a tuple of such; a few dozen examples are
            enough.
        target: As for `ExcitationPullback.attribute`. Classes are the output's second dimension;
            an output of one score cannot be checked, which the result says.
        additional_forward_args: Further arguments of the network.
        pool_temperature: Of max pools, as for `ExcitationPullback`. None: it follows what is tried.
        rules: What is held of each kind of gate: see `soften`.
        units: Of the temperature: those of the gates' inputs, or "spread" or "output" for the
            scale of a `Spread` with this unit, which knows each example's own.
        per_gate: Whether to fit one scale s for all gates instead, the temperature of the gates
            of each module being s times the standard deviation of their inputs.
        per_kind: Whether to vary the temperature of each kind of gate by itself, once the best
            for all is known: one kind after another, the others staying. Attention keeps its own.
        class_margin: m, from 0; inf looks at infidelity alone.
        perturb_func: From inputs to perturbed inputs (both a tensor, or both a tuple of them). None
            fills squares of images (N, C, H, W) with uniform noise between the least and the
            greatest value of each channel, and adds Gaussian noise with the standard deviation of
            the inputs to anything else. Beyond 256 MB of perturbed inputs it is called again for
            each round of candidates, with the same seed for torch's generators.
        n_perturb_samples: Perturbations per example.
        normalize: Whether attributions are scored at their best scale, as Captum does it.
        max_examples_per_batch: How many perturbed examples go through the network at once.
        seed: For the perturbations and the random class; the state of torch's generators does not
            change.
        show_progress: Whether to show a progress bar on stderr.

    Returns:
        The temperature, its infidelity, all candidates, and why some failed.

    Raises:
        NoTemperatureError: Nothing passes, not even 0, which can happen if rules hold more than the
            ReLU family.
        ValueError: The infidelity is not finite (the network's output is not, say), or
            ``per_gate`` is asked of a callable without modules, or with other units or
            ``per_kind``; or there are no such units; or the margin is negative.
        SofteningError: Nothing was softened.
    """
    if units not in ("input", *UNITS):
        raise ValueError(f"units must be 'input', 'spread' or 'output', not {units!r}")
    if units != "input" and per_gate:
        raise ValueError(
            f"per_gate fits one number per module, and units={units!r} one for all: choose one"
        )
    if per_gate and per_kind:
        raise ValueError("per_gate and per_kind cannot be used together: choose one")
    if not class_margin >= 0:
        raise ValueError(f"class_margin is {class_margin}; give a number from 0 to inf")
    spreads = None
    if per_gate:
        with seeded(seed):
            spreads = gate_spreads(
                forward_func, inputs, additional_forward_args, rules, pool_temperature is None
            )

    def temperature(value: float) -> Any:
        if units != "input":
            return Spread(value, units)
        if spreads is None or not value:
            return value
        # What is held without a temperature, as norms are, asks for one all the same.
        return {"": 0.0} | {name: value * spread for name, spread in spreads.items()}

    with tqdm(desc="fit temperature", unit="try", disable=not show_progress) as progress:
        judge = Judge(
            forward_func, inputs, target, additional_forward_args,
            perturb=perturb_func or default_perturbation(inputs), samples=n_perturb_samples,
            at_once=max_examples_per_batch, normalize=normalize, margin=class_margin, seed=seed,
            pool_temperature=pool_temperature, rules=rules, progress=progress,
        )  # fmt: skip
        hard = judge([(0.0, temperature(0.0))])[0]
        found = _search(lambda values: judge([(value, temperature(value)) for value in values]))
        if per_kind and found.value:
            kinds = judge.kinds(pools=pool_temperature is None)
            found = _by_kind(judge, found, kinds) if len(kinds) > 1 else found
    tried = tuple(sorted(judge.tried.values(), key=lambda each: each.value))
    best = min((hard, found), key=rank)
    if best.failed:
        raise NoTemperatureError(
            f"no temperature passes, not even hard gates: the map at 0 {best.failed}; take the "
            "plain gradient (captum.attr.Saliency), other rules, or a larger class_margin",
            tried,
        )
    return TemperatureFit(
        temperature=best.temperature,
        infidelity=best.infidelity,
        tried=tried,
        gradient=judge.gradient,
        scale=best.value if per_gate or (units != "input" and not per_kind) else None,
        bounds=judge.bounds,
    )


def _within(value: float) -> float:
    return min(max(value, _LIMITS[0]), _LIMITS[1])


def _search(judge: Callable[[Sequence[float]], list[Candidate]]) -> Candidate:
    """The best of the search over one number."""
    found = judge(_START)
    best, factor = min(found, key=rank), 2.0
    low, high = _START[0], _START[-1]
    while best.value in (low, high):
        further = _within(best.value / factor if best.value == low else best.value * factor)
        if further == best.value:
            break
        (other,) = judge([further])
        if rank(other) >= rank(best):
            break
        low, high, best = min(low, further), max(high, further), other
    return _refined(judge, best, factor)


def _refined(
    judge: Callable[[Sequence[float]], list[Candidate]], best: Candidate, factor: float
) -> Candidate:
    for _ in range(_REFINEMENTS):
        factor = math.sqrt(factor)
        around = judge([_within(best.value / factor), _within(best.value * factor)])
        best = min((best, *around), key=rank)
    return best


def _by_kind(judge: Judge, best: Candidate, kinds: Sequence[str]) -> Candidate:
    """The best of varying one kind of gate after another."""
    common = best.temperature

    def of(value: float) -> Any:
        return Spread(value, common.unit) if isinstance(common, Spread) else value

    for kind in kinds:
        held = best.temperature if isinstance(best.temperature, dict) else {"": common}
        found = judge(
            [
                (value, {**held, f"kind:{kind}": of(value)})
                for value in (_within(best.value * 2.0**step) for step in (-3, -2, -1, 1, 2, 3))
            ]
        )
        best_here = min((best, *found), key=rank)

        def vary(values: Sequence[float], held: Any = held, kind: str = kind) -> list[Candidate]:
            return judge([(value, {**held, f"kind:{kind}": of(value)}) for value in values])

        if best_here is not best:
            best_here = _refined(vary, best_here, 2.0)
        # The next kind begins at the common temperature.
        start = common.scale if isinstance(common, Spread) else common
        best = replace(best_here, value=start)
    return min((each for each in judge.tried.values()), key=rank)
