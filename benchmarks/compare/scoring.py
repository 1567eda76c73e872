"""All scores of one photograph: the unit of work, which depends on nothing but itself.

Whatever is random is drawn from a seed made of the run's seed, the photograph's name and the
purpose. So the numbers are the same in whatever order, process or run photographs are scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from benchmarks.compare import cost
from benchmarks.compare.methods import (
    AT,
    Attribute,
    attribution,
    baseline,
    find,
)
from benchmarks.compare.subjects import Subject
from captum_pullback.study import metrics
from captum_pullback.study.methods import at_once


class Score(NamedTuple):
    """One number: of which method, by which metric, at which stage (or none), by which seed."""

    method: str
    metric: str
    stage: str
    seed: int
    value: float


@dataclass(frozen=True)
class Plan:
    """What is measured of each photograph.

    Attributes:
        methods: Names of `methods.METHODS`, and of the sweep.
        metrics: Names of `metrics.METRICS`.
        seeds: What draws random numbers is done under each; the rest once, under the first.
        samples: Perturbed copies for infidelity.
        neighbours: Perturbed copies for max-sensitivity.
        all_seeds: Whether metrics that run a method many times over are measured under each seed
            too, and not under one seed for each photograph, in turn.
        stages: The parts that are randomised one after the other, each with its modules.
    """

    methods: Sequence[str]
    metrics: Sequence[str]
    seeds: Sequence[int]
    samples: int
    neighbours: int
    all_seeds: bool
    stages: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Case:
    """One photograph.

    Attributes:
        name: Of the photograph.
        number: In the order in which they are scored.
        inputs: (1, C, H, W), on the network's device.
        target: The class that is explained.
        inside: Which pixels lie in the object's box, (H, W), if that is known.
        repeated: Whether the metrics that run a method many times over are measured on it.
    """

    name: str
    number: int
    inputs: Tensor
    target: int
    inside: Tensor | None
    repeated: bool


def derive(seed: int, *purpose: object) -> int:
    """A seed for this purpose, that of no other."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def sow(seed: int) -> None:
    """Seeds every generator that a method of Captum draws from."""
    torch.manual_seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002


class Scorer:
    """Scores photographs by a plan.

    Args:
        subject: The network.
        plan: What is to be measured.

    Raises:
        ValueError: A method cannot explain this network; the message says which.
    """

    def __init__(self, subject: Subject, plan: Plan) -> None:
        self.subject, self.plan = subject, plan
        self.attributes = prepared(subject, plan.methods)

    def scores(self, case: Case) -> list[Score]:
        """All scores of a photograph."""
        devices = [case.inputs.device] if case.inputs.is_cuda else []
        state = np.random.get_state()  # noqa: NPY002  (what Captum's GradientShap draws from)
        try:
            with torch.random.fork_rng(devices=devices):
                return list(self._scores(case))
        finally:
            np.random.set_state(state)  # noqa: NPY002

    def _scores(self, case: Case) -> Iterator[Score]:
        wanted = self.plan.metrics
        maps = Maps(self.attributes, case)
        for seed in self.plan.seeds:
            yield from self._infidelities(case, maps, seed)
        for name in self.plan.methods:
            method = find(name)
            for seed in self.plan.seeds if method.draws else self.plan.seeds[:1]:
                found = maps.get(name, seed)
                if case.inside is not None and "box_share" in wanted:
                    value = metrics.box_share(found[0], case.inside)
                    yield Score(name, "box_share", "", seed, value)
                if case.inside is not None and "pointing_game" in wanted:
                    value = metrics.pointing_game(found[0], case.inside)
                    yield Score(name, "pointing_game", "", seed, value)
                if method.complete and "convergence_delta" in wanted:
                    value = self._delta(case, name, found)
                    yield Score(name, "convergence_delta", "", seed, value)
        if case.repeated:
            seeds = self.plan.seeds
            turn = seeds if self.plan.all_seeds else [seeds[case.number % len(seeds)]]
            for seed in turn:
                yield from self._sensitivities(case, maps, seed)
                yield from self._random_logits(case, maps, seed)
                yield from self._randomisation(case, maps, seed)

    def _infidelities(self, case: Case, maps: Maps, seed: int) -> Iterator[Score]:
        network, plan = self.subject.network, self.plan
        for metric, disturb in (
            ("infidelity", metrics.squares),
            ("infidelity_gaussian", metrics.gaussian),
        ):
            forms = {metric: True, f"{metric}_raw": False}
            if not any(form in plan.metrics for form in forms):
                continue
            sow(derive(seed, case.name, metric))
            perturbed = disturb(network, case.inputs, plan.samples)
            answers = metrics.Answers.ask(network.model, case.inputs, perturbed, at_once(network))
            for name in plan.methods:
                method = find(name)
                own = maps.get(name, seed if method.draws else plan.seeds[0])
                start = baseline(self.subject, method, case.inputs)
                for form, normalize in forms.items():
                    if form in plan.metrics:
                        value = answers.infidelity(
                            own, case.target, method.multiplies_by_inputs, start, normalize
                        )
                        yield Score(name, form, "", seed, value)

    def _delta(self, case: Case, name: str, found: Tensor) -> float:
        start = baseline(self.subject, find(name), case.inputs)
        delta = IntegratedGradients(self.subject.model).compute_convergence_delta(
            found, start, case.inputs, target=case.target
        )
        return abs(float(delta))

    def _sensitivities(self, case: Case, maps: Maps, seed: int) -> Iterator[Score]:
        if "max_sensitivity" not in self.plan.metrics:
            return
        sow(derive(seed, case.name, "max_sensitivity"))
        near = metrics.nearby(self.subject.network, case.inputs, self.plan.neighbours)
        for name in self.plan.methods:
            base = maps.get(name, seed if find(name).draws else self.plan.seeds[0])
            sow(derive(seed, case.name, "max_sensitivity", name))
            value = metrics.max_sensitivity(
                self.attributes[name], case.inputs, base, near, case.target
            )
            yield Score(name, "max_sensitivity", "", seed, value)

    def _random_logits(self, case: Case, maps: Maps, seed: int) -> Iterator[Score]:
        if "random_logit" not in self.plan.metrics:
            return
        with torch.no_grad():
            classes = self.subject.model(case.inputs).shape[1]
        sow(derive(seed, case.name, "random_logit"))
        other = (case.target + 1 + int(torch.randint(classes - 1, ()))) % classes
        for name in _named(self.plan.methods):
            base = maps.get(name, seed if find(name).draws else self.plan.seeds[0])
            # The same noise for both classes, so that only the class differs.
            found = maps.attribute(name, seed, target=other)
            value = abs(metrics.similarity(base[0], found[0], absolute=False))
            yield Score(name, "random_logit", "", seed, value)

    def _randomisation(self, case: Case, maps: Maps, seed: int) -> Iterator[Score]:
        if "randomisation" not in self.plan.metrics:
            return
        names = _named(self.plan.methods)
        modules: list[str] = []
        for number, (stage, parts) in enumerate(self.plan.stages, 1):
            modules += parts
            # One network for all photographs of a seed; made anew, so that one is held at a time.
            model = metrics.randomized(self.subject.model, modules, derive(seed, "randomisation"))
            fresh = Maps(prepared(self.subject.with_model(model), names), case)
            for name in names:
                base = maps.get(name, seed if find(name).draws else self.plan.seeds[0])
                found = fresh.attribute(name, seed, target=case.target)
                value = metrics.similarity(base[0], found[0], absolute=True)
                yield Score(name, "randomisation", f"{number} {stage}", seed, value)


class Maps:
    """The attributions of one photograph, each computed once."""

    def __init__(self, attributes: dict[str, Attribute], case: Case) -> None:
        self.attributes, self.case = attributes, case
        self.found: dict[tuple[str, int], Tensor] = {}

    def get(self, name: str, seed: int) -> Tensor:
        """A method's attributions (1, C, H, W) under a seed."""
        if (name, seed) not in self.found:
            self.found[name, seed] = self.attribute(name, seed, self.case.target)
        return self.found[name, seed]

    def attribute(self, name: str, seed: int, target: int) -> Tensor:
        """The same for any class, not kept."""
        sow(derive(seed, self.case.name, name))
        return self.attributes[name](self.case.inputs, target)


def costs(scorer: Scorer, inputs: Tensor, targets: Tensor, turn: int) -> list[Score]:
    """Time and memory of every method for one batch (N, C, H, W), over the plain gradient's."""
    plain, device = attribution(scorer.subject, find("gradient")), inputs.device
    wanted, scores = scorer.plan.metrics, []

    def once(attribute: Attribute) -> cost.Call:
        return lambda: attribute(inputs, targets)

    once(plain)()  # what only first calls cost is nobody's
    base = cost.peak_memory(once(plain), device) if "memory" in wanted else 0
    for name in _named(scorer.plan.methods):
        call = once(scorer.attributes[name])
        if "time" in wanted:
            ratio, seconds = cost.time_ratio(call, once(plain), device)
            scores.append(Score(name, "time", "", turn, ratio))
            scores.append(Score(name, "seconds", "", turn, seconds / len(inputs)))
        if "memory" in wanted:
            scores.append(Score(name, "memory", "", turn, cost.peak_memory(call, device) / base))
    return scores


def prepared(subject: Subject, names: Sequence[str]) -> dict[str, Attribute]:
    """What attributes, by each of these methods.

    Raises:
        ValueError: One cannot explain this network.
    """
    attributes = {}
    for name in names:
        try:
            attributes[name] = attribution(subject, find(name))
        except ValueError as error:
            raise ValueError(f"{name} cannot explain {subject.network.name}: {error}") from error
    return attributes


def _named(methods: Sequence[str]) -> list[str]:
    """Without the sweep's, whose cost and sanity are those of the pullback."""
    return [name for name in methods if not name.startswith(AT)]
