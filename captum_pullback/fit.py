"""The temperature that explains best: a search for the least infidelity."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from captum.metrics import infidelity, infidelity_perturb_func_decorator
from torch import Tensor
from tqdm import tqdm

from captum_pullback.attribution import ExcitationPullback
from captum_pullback.engine.models import as_tuple, on_copies
from captum_pullback.engine.rules import RulesLike
from captum_pullback.engine.softening import SofteningError, watch
from captum_pullback.engine.spread import Spread
from captum_pullback.engine.temperature import TemperatureLike, module_entry
from captum_pullback.perturbations import gaussian_noise, noise_squares, seeded

__all__ = ["TemperatureFit", "fit_temperature"]

_START = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_LIMITS = (1e-3, 1e3)
_REFINEMENTS = 3


@dataclass(frozen=True)
class TemperatureFit:
    """What `fit_temperature` found, and what it tried. Printed, it is a table.

    Attributes:
        temperature: To be given to `ExcitationPullback` or `soften`: a number, or with
            ``per_gate`` a mapping from module names to numbers, or a `Spread`.
        infidelity: Mean infidelity at this temperature; lower is better.
        tried: Pairs (temperature or scale, mean infidelity), ascending; 0 leaves gates as they are.
        scale: With ``per_gate``, or in units of spread, the temperature of each gate in units of
            its spread; else None.
    """

    temperature: float | dict[str, float] | Spread
    infidelity: float
    tried: tuple[tuple[float, float], ...]
    scale: float | None = None

    @property
    def at_limit(self) -> bool:
        """Whether the best is an end of the range that is searched; beyond may be better ones.

        At its upper end the gates are all but wholly averaged out, which infidelity may favor
        long after the map has stopped being about the target: look at the map.
        """
        return (self.temperature if self.scale is None else self.scale) in _LIMITS

    def __str__(self) -> str:
        unit = "temperature" if self.scale is None else "scale"
        if isinstance(self.temperature, Spread):
            unit = "spread"
        best = self.temperature if self.scale is None else self.scale
        lines = [f"{unit:>11}  infidelity"]
        for value, cost in self.tried:
            mark = "  (gates as they are)" if value == 0 else ""
            if value == best:
                mark = "  <- best" + ", at the limit of the search" * self.at_limit
            lines.append(f"{value:>11.4g}  {cost:>10.4g}{mark}")
        return "\n".join(lines)


def fit_temperature(
    forward_func: Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    target: Any = None,
    additional_forward_args: Any = None,
    *,
    pool_temperature: TemperatureLike | None = None,
    rules: RulesLike | None = None,
    units: Literal["input", "spread"] = "input",
    per_gate: bool = False,
    perturb_func: Callable[..., Any] | None = None,
    n_perturb_samples: int = 32,
    normalize: bool = True,
    max_examples_per_batch: int = 64,
    seed: int = 0,
    show_progress: bool = True,
) -> TemperatureFit:
    """Find the temperature whose pullback has the least infidelity on these inputs.

    Infidelity (Yeh et al. 2019, arXiv 1901.09392) is Captum's; the same perturbations, by seed,
    judge every temperature. The search doubles and halves from 0.05 to 3.2, goes on past an end
    that is best (to 0.001 and 1000 at most, see `TemperatureFit.at_limit`), then halves the steps
    around the best three times.

    Args:
        forward_func: The network, or any callable that gives a tensor of shape (N, ...).
        inputs: What to explain, shape (N, ...), or a tuple of such; some tens of examples do.
        target: As for `ExcitationPullback.attribute`.
        additional_forward_args: Further arguments of the network.
        pool_temperature: Of max pools, as for `ExcitationPullback`. None: it follows what is tried.
        rules: What is held of each kind of gate: see `soften`.
        units: Of the temperature: those of the gates' inputs, or "spread" for the scale of a
            `Spread`, which knows each example's own.
        per_gate: Whether to fit one scale s for all gates instead, the temperature of the gates
            of each module being s times the standard deviation of their inputs.
        perturb_func: From inputs to perturbed inputs (both a tensor, or both a tuple of them).
            None fills squares of images (N, C, H, W) with uniform noise between the least and
            the greatest value of each channel, and adds Gaussian noise with the standard
            deviation of the inputs to anything else.
        n_perturb_samples: Perturbations per example.
        normalize: Whether attributions are scored at their best scale, as Captum does it.
        max_examples_per_batch: How many perturbed examples go through the network at once.
        seed: Of the perturbations; the random state is afterwards as before.
        show_progress: Whether to show a progress bar on stderr.

    Returns:
        The temperature, its infidelity, and everything that was tried.

    Raises:
        ValueError: The infidelity is not finite (the network's output is not, say), or
            ``per_gate`` is asked of a callable without modules, or with units of spread; or
            there are no such units.
        SofteningError: Nothing was softened.
    """
    if units not in ("input", "spread"):
        raise ValueError(f"units must be 'input' or 'spread', not {units!r}")
    if units == "spread" and per_gate:
        raise ValueError(
            "per_gate fits one number per module, and units='spread' one for all: choose one"
        )
    perturb = perturb_func or _default_perturbation(inputs)
    decorated = infidelity_perturb_func_decorator(multiply_by_inputs=False)(perturb)
    tensors = as_tuple(inputs)
    examples = len(tensors[0])
    # Captum warns of fewer at once than there are examples, and of more than there are in all.
    at_once = min(max(max_examples_per_batch, examples), examples * n_perturb_samples)
    tried: dict[float, float] = {}

    def forward(*args: Any) -> Any:
        return on_copies(forward_func, args[: len(tensors)], args[len(tensors) :])

    spreads = None
    if per_gate:
        with seeded(seed):
            spreads = _spreads(
                forward_func, inputs, additional_forward_args, pools=pool_temperature is None
            )

    def temperature(value: float) -> Any:
        if units == "spread":
            return Spread(value)
        if spreads is None or not value:
            return value
        return {name: value * spread for name, spread in spreads.items()}

    def cost(value: float) -> float:
        if value not in tried:
            # 0 leaves all gates as they are, pools too.
            pool = pool_temperature if value else 0.0
            pullback = ExcitationPullback(
                forward_func, temperature(value), pool_temperature=pool, rules=rules
            )
            with seeded(seed):
                attributions = pullback.attribute(inputs, target, additional_forward_args)
            with seeded(seed), torch.no_grad():
                costs = infidelity(
                    forward,
                    decorated,
                    inputs,
                    attributions,
                    additional_forward_args=additional_forward_args,
                    target=target,
                    n_perturb_samples=n_perturb_samples,
                    max_examples_per_batch=at_once,
                    normalize=normalize,
                )
            tried[value] = float(costs.cpu().double().mean())
            if not math.isfinite(tried[value]):
                raise ValueError(
                    f"the infidelity at temperature {value:g} is {tried[value]}: the network's "
                    "output, its gradient or the perturbed inputs are not finite"
                )
            progress.update()
            progress.set_postfix_str(f"best {min(tried, key=tried.__getitem__):.3g}")
        return tried[value]

    def within(value: float) -> float:
        return min(max(value, _LIMITS[0]), _LIMITS[1])

    with tqdm(desc="fit temperature", unit="try", disable=not show_progress) as progress:
        cost(0.0)
        best, factor = min(_START, key=cost), 2.0
        while best in (_ends := sorted(v for v in tried if v))[:: len(_ends) - 1]:
            further = within(best / factor if best == _ends[0] else best * factor)
            if further == best or cost(further) >= cost(best):
                break
            best = further
        for _ in range(_REFINEMENTS):
            factor = math.sqrt(factor)
            best = min((best, within(best / factor), within(best * factor)), key=cost)

    return TemperatureFit(
        temperature=temperature(best),
        infidelity=tried[best],
        tried=tuple(sorted(tried.items())),
        scale=best if per_gate or units == "spread" else None,
    )


def _default_perturbation(inputs: Tensor | tuple[Tensor, ...]) -> Callable[..., Any]:
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


def _spreads(
    forward_func: Callable[..., Any],
    inputs: Any,
    additional_forward_args: Any,
    *,
    pools: bool = True,
) -> dict[str, float]:
    """The standard deviation of the inputs of each module's gates, over all their calls.

    Of max pools too, unless these have a temperature of their own.
    """
    sums: dict[str, tuple[float, float, float]] = {}

    def see(module: str, operation: str, z: Tensor) -> None:
        if "pool" in operation and not pools:
            return
        z = z.cpu().double()
        count, total, squares = sums.get(module, (0.0, 0.0, 0.0))
        sums[module] = (count + z.numel(), total + float(z.sum()), squares + float((z * z).sum()))

    with torch.no_grad(), watch(forward_func, see):
        on_copies(forward_func, inputs, additional_forward_args)
    if not sums:
        raise SofteningError("no gate was met, so there is no temperature to fit")
    if set(sums) == {""}:
        raise ValueError("per_gate needs gates in modules with names: pass the torch.nn.Module")
    return {
        module_entry(name): max(math.sqrt(max(squares / count - (total / count) ** 2, 0.0)), 1e-12)
        for name, (count, total, squares) in sums.items()
    }
