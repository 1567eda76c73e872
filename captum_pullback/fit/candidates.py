"""Candidates for a temperature, and the evidence for and against each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor

from captum_pullback.attribution import ExcitationPullback
from captum_pullback.engine.errors import SofteningError
from captum_pullback.engine.models import as_tuple, on_copies
from captum_pullback.engine.names import kind_of
from captum_pullback.engine.rules import SEMANTIC, RulesLike
from captum_pullback.engine.softening import watch
from captum_pullback.engine.spread import Spread
from captum_pullback.engine.temperature import module_entry
from captum_pullback.fit.infidelity import Perturbed, cosine, other_classes
from captum_pullback.perturbations import seeded
from captum_pullback.pullback.targets import indices

__all__ = ["OTHERS", "Candidate", "Judge", "gate_spreads", "rank"]

#: What a map is compared with.
OTHERS = ("runner-up", "random class")
#: These have a temperature of their own, which one for all does not reach.
_OWN = frozenset({"attention", "softmax"})


@dataclass(frozen=True)
class Candidate:
    """A temperature that was tried, and how good its maps were.

    Attributes:
        temperature: For `ExcitationPullback`; 0 means hard gates.
        value: The temperature, or the scale of spreads, as one number; the last that was varied
            of several.
        infidelity: Mean over the examples; lower is better.
        cosines: Mean cosine of the map with that of the runner-up class, and with that of a class
            drawn at random, each for the same input; fewer where there are fewer classes.
        failed: Why it cannot be recommended; "" if it can.
    """

    temperature: Any
    value: float
    infidelity: float
    cosines: tuple[float, ...] = ()
    failed: str = ""


def rank(candidate: Candidate) -> tuple[bool, float, float]:
    """What passes first, then the least infidelity; of what fails, the least cosine."""
    if candidate.failed:
        return True, max(candidate.cosines), candidate.infidelity
    return False, candidate.infidelity, 0.0


class Judge:
    """Scores candidates, each once, by infidelity and by dependence on the class."""

    def __init__(
        self,
        forward_func: Callable[..., Any],
        inputs: Any,
        target: Any,
        additional_forward_args: Any,
        *,
        perturb: Callable[..., Any],
        samples: int,
        at_once: int,
        normalize: bool,
        margin: float,
        seed: int,
        pool_temperature: Any,
        rules: Any,
        progress: Any,
    ) -> None:
        self._forward, self._inputs, self._extra = forward_func, inputs, additional_forward_args
        self._pools, self._rules, self._seed = pool_temperature, rules, seed
        self._normalize, self._progress = normalize, progress
        self.tried: dict[str, Candidate] = {}
        self.bounds: tuple[float, ...] = ()
        self._targets: list[Any] = [target]
        # It fails here, with advice, where a target does not fit.
        self._maps([0.0])
        count = len(as_tuple(inputs)[0])
        with seeded(seed), torch.no_grad():
            output = on_copies(forward_func, inputs, additional_forward_args)
        chosen = indices(target, output) if len(output) == count else None
        others = other_classes(output, chosen, seed)
        self._targets += [
            each[:, 0] if each.shape[1] == 1 else [tuple(row) for row in each.tolist()]
            for each in others
        ]
        self._perturbed = Perturbed(
            forward_func, inputs, chosen, additional_forward_args, perturb,
            samples=samples, at_once=at_once, seed=seed,
        )  # fmt: skip
        with seeded(seed):
            plain = [self._saliency(each) for each in self._targets]
        (self.gradient,) = self._scored([(math.nan, None)], [plain])
        self.gradient = replace(self.gradient, value=0.0)
        self.bounds = tuple(max(each, 0.0) + margin for each in self.gradient.cosines)

    def __call__(self, asked: Sequence[tuple[float, Any]]) -> list[Candidate]:
        """The candidates of these values and temperatures."""
        new = {repr(given): (value, given) for value, given in asked}
        new = {key: pair for key, pair in new.items() if key not in self.tried}
        if new:
            maps = self._maps([given for _, given in new.values()])
            scored = self._scored(list(new.values()), maps)
            self.tried.update(zip(new, scored, strict=True))
            best = min(self.tried.values(), key=rank)
            self._progress.update(len(new))
            self._progress.set_postfix_str(f"best {best.infidelity:.3g}")
        return [self.tried[repr(given)] for _, given in asked]

    def kinds(self, *, pools: bool) -> list[str]:
        """The kinds of gates that a temperature for all reaches."""
        met: dict[str, None] = {}

        def see(module: str, operation: str, z: Tensor) -> None:
            if pools or "pool" not in operation:
                met[kind_of(operation)] = None

        _watched(self._forward, self._inputs, self._extra, self._rules, see, self._seed)
        return [kind for kind in met if kind not in _OWN]

    def _maps(self, temperatures: Sequence[Any]) -> list[list[Any]]:
        """For each temperature the attributions of the target and of the other classes."""
        pullbacks = []
        for given in temperatures:
            hard = (given.scale if isinstance(given, Spread) else given) == 0.0
            pools = 0.0 if hard else self._pools  # 0 leaves pools too
            pullbacks.append(
                ExcitationPullback(self._forward, given, pool_temperature=pools, rules=self._rules)
            )
        with seeded(self._seed):
            return pullbacks[0].sweep(
                [each.softness for each in pullbacks], self._inputs, self._targets, self._extra
            )

    def _saliency(self, target: Any) -> Any:
        """The plain gradient."""

        def forward(*args: Any) -> Any:
            count = len(as_tuple(self._inputs))
            return on_copies(self._forward, args[:count], args[count:])

        leaves = tuple(part.detach().clone().requires_grad_() for part in as_tuple(self._inputs))
        return Saliency(forward).attribute(
            leaves if isinstance(self._inputs, tuple) else leaves[0],
            target,
            abs=False,
            additional_forward_args=self._extra,
        )

    def _scored(self, asked: Sequence[tuple[float, Any]], maps: list[list[Any]]) -> list[Candidate]:
        costs = self._perturbed.infidelities([each[0] for each in maps], normalize=self._normalize)
        found = []
        for (value, temperature), each, cost in zip(asked, maps, costs.mean(1), strict=True):
            if not math.isfinite(cost):
                raise ValueError(
                    f"the infidelity at temperature {0 if math.isnan(value) else value:g} is "
                    f"{float(cost)}: the network's output, its gradient or the perturbed inputs "
                    "are not finite"
                )
            cosines = tuple(float(cosine(each[0], other).mean()) for other in each[1:])
            failed = [
                f"cosine {each_:.2f} with the {name}'s map, above {bound:.2f}"
                for each_, bound, name in zip(cosines, self.bounds, OTHERS, strict=False)
                if not each_ <= bound + 1e-9
            ]
            found.append(Candidate(temperature, value, float(cost), cosines, " and ".join(failed)))
        return found


def _watched(
    forward_func: Callable[..., Any],
    inputs: Any,
    additional_forward_args: Any,
    rules: RulesLike | None,
    see: Callable[[str, str, Tensor], None],
    seed: int,
) -> None:
    rules = SEMANTIC if rules is None else rules
    with seeded(seed), torch.no_grad(), watch(forward_func, see, rules):
        on_copies(forward_func, inputs, additional_forward_args)


def gate_spreads(
    forward_func: Callable[..., Any],
    inputs: Any,
    additional_forward_args: Any,
    rules: RulesLike | None,
    pools: bool,
) -> dict[str, float]:
    """The standard deviation of the inputs of each module's gates, over all their calls.

    Of max pools too, unless these have a temperature of their own.
    """
    sums: dict[str, tuple[float, float, float]] = {}

    def see(module: str, operation: str, z: Tensor) -> None:
        if ("pool" in operation and not pools) or kind_of(operation) in _OWN:
            return
        z = z.cpu().double()
        count, total, squares = sums.get(module, (0.0, 0.0, 0.0))
        sums[module] = (count + z.numel(), total + float(z.sum()), squares + float((z * z).sum()))

    _watched(forward_func, inputs, additional_forward_args, rules, see, 0)
    if not sums:
        raise SofteningError("no gate ran, so there is no temperature to fit")
    if set(sums) == {""}:
        raise ValueError("per_gate needs gates in modules with names: pass the torch.nn.Module")
    return {
        module_entry(name): max(math.sqrt(max(squares / count - (total / count) ** 2, 0.0)), 1e-12)
        for name, (count, total, squares) in sums.items()
    }
