"""All scores of one photograph: the unit of work, which depends on nothing but itself.

Whatever is random is drawn from a seed made of the run's seed, the photograph's name and the
purpose. So the numbers are the same in whatever order, process or run photographs are scored.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.compare import cost
from benchmarks.compare.methods import METHODS, Attribute, attribution, find
from benchmarks.compare.metrics import CELLS
from captum_pullback.study import metrics
from captum_pullback.study.methods import at_once
from captum_pullback.zoo.networks import Network


class Score(NamedTuple):
    """One number: of which method, by which metric, with what to note, by which seed."""

    method: str
    metric: str
    note: str
    seed: int
    value: float


@dataclass(frozen=True)
class Plan:
    """What is measured of each photograph.

    Attributes:
        methods: Names of `methods.METHODS`.
        metrics: Names of `metrics.METRICS`.
        seed: Of all that is drawn.
        samples: Perturbed copies for infidelity.
        neighbors: Perturbed copies for max-sensitivity.
    """

    methods: Sequence[str]
    metrics: Sequence[str]
    seed: int
    samples: int
    neighbors: int


@dataclass(frozen=True)
class Case:
    """One photograph.

    Attributes:
        name: Of the photograph.
        inputs: (1, C, H, W), on the network's device.
        target: The class that is explained.
        inside: Which pixels lie in the object's box, (H, W), if that is known.
        mosaic: Inputs of a mosaic of four photographs, and which of its pixels are this one's.
        repeated: Whether the metrics that run a method again are measured on it.
        averaged: Whether methods that average over noise are measured on it.
    """

    name: str
    inputs: Tensor
    target: int
    inside: Tensor | None = None
    mosaic: tuple[Tensor, Tensor] | None = None
    repeated: bool = False
    averaged: bool = True


def derive(seed: int, *purpose: object) -> int:
    """A seed for this purpose, that of no other."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def sow(seed: int) -> None:
    """Seeds every generator that a method of Captum draws from."""
    torch.manual_seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002


def mosaic(pictures: Sequence[Tensor], place: int) -> tuple[Tensor, Tensor]:
    """Four inputs (1, C, H, W) at half their size in one, the first at this place, and its pixels.

    Places are upper left, upper right, lower left, lower right.
    """
    small = [
        F.interpolate(each, scale_factor=0.5, mode="bilinear", antialias=True) for each in pictures
    ]
    small.insert(place, small.pop(0))
    made = torch.cat([torch.cat(small[:2], 3), torch.cat(small[2:], 3)], 2)
    inside = torch.zeros(made.shape[2:], dtype=torch.bool)
    height, width = small[0].shape[2:]
    top, left = place // 2 * height, place % 2 * width
    inside[top : top + height, left : left + width] = True
    return made, inside


class Scorer:
    """Scores photographs by a plan.

    Args:
        network: That is explained.
        plan: What is to be measured.

    Raises:
        ValueError: A method cannot explain this network; the message says which.
    """

    def __init__(self, network: Network, plan: Plan) -> None:
        self.network, self.plan = network, plan
        self.attributes: dict[str, Attribute] = {}
        for name in plan.methods:
            try:
                self.attributes[name] = attribution(network, find(name))
            except ValueError as error:
                raise ValueError(f"{name} cannot explain {network.name}: {error}") from error

    def scores(self, case: Case) -> list[Score]:
        """All scores of a photograph."""
        devices = [case.inputs.device] if case.inputs.is_cuda else []
        state = np.random.get_state()  # noqa: NPY002  (what Captum's GradientShap draws from)
        try:
            with torch.random.fork_rng(devices=devices):
                return [
                    Score(method, metric, "", self.plan.seed, value)
                    for method, metric, value in self._scores(case)
                ]
        finally:
            np.random.set_state(state)  # noqa: NPY002

    def _sow(self, case: Case, purpose: str) -> None:
        sow(derive(self.plan.seed, case.name, purpose))

    def _attribute(self, case: Case, name: str, inputs: Tensor, target: int) -> Tensor:
        self._sow(case, name)  # the same noise for both classes: only the class differs
        return self.attributes[name](inputs, target)

    def _scores(self, case: Case) -> Iterator[tuple[str, str, float]]:
        wanted = set(self.plan.metrics)
        maps = {
            name: self._attribute(case, name, case.inputs, case.target)
            for name in self.plan.methods
            if case.averaged or not find(name).averages
        }
        yield from self._infidelities(case, maps)
        if "faithfulness_correlation" in wanted:
            forms = [find(name).multiplies_by_inputs for name in maps]
            found = metrics.faithfulness_correlation(
                self.network.model, case.inputs, list(maps.values()), case.target,
                features=CELLS, multiplies_by_inputs=forms, at_once=at_once(self.network),
            )  # fmt: skip
            for name, value in zip(maps, found[:, 0], strict=True):
                yield name, "faithfulness_correlation", float(value)
        for name, own in maps.items():
            if case.inside is not None and "box_share" in wanted:
                yield name, "box_share", metrics.box_share(own[0], case.inside)
            if case.inside is not None and "pointing_game" in wanted:
                yield name, "pointing_game", metrics.pointing_game(own[0], case.inside)
            if case.mosaic is not None and "mosaic_share" in wanted:
                inputs, inside = case.mosaic
                found = self._attribute(case, name, inputs, case.target)
                yield name, "mosaic_share", metrics.box_share(found[0], inside)
        if case.repeated:
            yield from self._again(case, maps)

    def _infidelities(
        self, case: Case, maps: dict[str, Tensor]
    ) -> Iterator[tuple[str, str, float]]:
        network, most = self.network, at_once(self.network)
        for metric, raw, disturb in (
            ("infidelity", "infidelity_raw", metrics.squares),
            ("infidelity_gaussian", "", metrics.gaussian),
        ):
            forms = {
                form: form == metric for form in (metric, raw) if form in self.plan.metrics
            }  # at the best scale or not
            if not forms:
                continue
            self._sow(case, metric)
            perturbed = disturb(network, case.inputs, self.plan.samples)
            answers = metrics.Answers.ask(network.model, case.inputs, perturbed, most)
            start = torch.zeros_like(case.inputs)
            for name, own in maps.items():
                multiplies = find(name).multiplies_by_inputs
                for form, normalize in forms.items():
                    value = answers.infidelity(own, case.target, multiplies, start, normalize)
                    yield name, form, value

    def _again(self, case: Case, maps: dict[str, Tensor]) -> Iterator[tuple[str, str, float]]:
        self._sow(case, "max_sensitivity")
        near = metrics.nearby(self.network, case.inputs, self.plan.neighbors)
        with torch.no_grad():
            classes = self.network.model(case.inputs).shape[1]
        self._sow(case, "random_logit")
        other = (case.target + 1 + int(torch.randint(classes - 1, ()))) % classes
        for name, own in maps.items():
            if "max_sensitivity" in self.plan.metrics:
                self._sow(case, f"max_sensitivity/{name}")
                value = metrics.max_sensitivity(
                    self.attributes[name], case.inputs, own, near, case.target
                )
                yield name, "max_sensitivity", value
            if "random_logit" in self.plan.metrics:
                found = self._attribute(case, name, case.inputs, other)
                yield name, "random_logit", abs(metrics.similarity(own[0], found[0], False))


def costs(scorer: Scorer, inputs: Tensor, targets: Tensor, turn: int) -> list[Score]:
    """Time and memory of every method for one batch (N, C, H, W), and over the plain gradient's.

    The seed of these scores is the number of the turn, and they note how busy the machine was.
    """
    plain, device = attribution(scorer.network, METHODS["gradient"]), inputs.device
    wanted = scorer.plan.metrics
    scores = []

    def once(attribute: Attribute) -> cost.Call:
        return lambda: attribute(inputs, targets)

    once(plain)()  # what only first calls cost is nobody's
    base = cost.peak_memory(once(plain), device) if "memory" in wanted else 0
    for name, attribute in scorer.attributes.items():
        found = {}
        call = once(attribute)
        if "time" in wanted:
            found["time"], seconds = cost.time_ratio(call, once(plain), device)
            found["milliseconds"] = 1e3 * seconds / len(inputs)
        if "memory" in wanted:
            peak = cost.peak_memory(call, device)
            found |= {"memory": peak / base, "mebibytes": peak / len(inputs) / 2**20}
        note = f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores"
        scores += [Score(name, metric, note, turn, value) for metric, value in found.items()]
    return scores
