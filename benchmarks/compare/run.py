"""A run: what is to be measured of which networks, shared among the processes, and put together."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.compare import data, metrics, scoring, subjects, table
from benchmarks.compare.methods import AT
from benchmarks.compare.scoring import Case, Plan, Score, Scorer
from benchmarks.compare.store import Store, Unit
from benchmarks.compare.workers import WorkerError, Workers, local_device
from captum_pullback import fit_temperature
from captum_pullback.outputs import writable
from captum_pullback.study.metrics import sanity
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.networks import Network
from captum_pullback.zoo.photos import PhotoError


@dataclass(frozen=True)
class Settings:
    """What decides the numbers.

    Attributes:
        networks: Names for `zoo.load`; ``"reference"`` is the embedded one.
        data: As `data.load` takes it; ``boxes`` and ``fit_data`` too.
        images: How many photographs are scored.
        repeated: On how many of them the metrics are measured that run a method many times.
        fit_images: On how many others the temperatures are fitted.
        predicted: Whether the predicted class is explained instead of the photograph's own.
        cost_batch: Photographs in each batch whose cost is measured, and ``cost_rounds`` of these.
        plan: All else; its stages are a number here, and filled in for each network.
    """

    networks: tuple[str, ...]
    data: str
    boxes: str | None
    fit_data: str | None
    images: int
    repeated: int
    fit_images: int
    predicted: bool
    cost_batch: int
    cost_rounds: int
    stages: int
    device: str
    threads: int
    plan: Plan


class RunError(RuntimeError):
    """A run that cannot begin; the message is one line for the user."""


class Sources:
    """The photographs of a run: those that are scored, and those that temperatures are fitted on.

    Raises:
        data.DataError: They could not be had.
    """

    def __init__(self, settings: Settings) -> None:
        boxes = None if settings.boxes is None else Path(settings.boxes)
        self.photos = self.others = data.load(settings.data, boxes)
        count, fitted = len(self.photos.names), settings.fit_images
        if settings.fit_data is None:
            self.scored, self.fitted = data.choose(count, settings.images, fitted)
        else:
            self.others = data.load(settings.fit_data)
            self.scored, _ = data.choose(count, settings.images, 0)
            self.fitted, _ = data.choose(len(self.others.names), fitted, 0)
        self.predicted = settings.predicted
        self.repeated = settings.repeated
        self._unreadable: set[str] = set()

    def names(self) -> list[str]:
        """Of the photographs to score, in their order."""
        return [self.photos.names[number] for number in self.scored]

    def case(self, network: Network, number: int) -> Case | None:
        """One photograph, by its number among those to score; None if it cannot be read."""
        which = self.scored[number]
        name = self.photos.names[which]
        read = self._read(self.photos, which)
        if read is None:
            return None
        picture, label = read
        inputs = network.preprocess(picture)[None].to(_device(network))
        target = int(self.targets(network, self.photos, inputs, [label])[0])
        inside = None
        if name in self.photos.boxes:
            inside = data.inside(network, picture, self.photos.boxes[name])
            inside = inside if inside.any() else None  # cropped away
        return Case(name, number, inputs, target, inside, number < self.repeated)

    def batch(
        self, network: Network, photos: data.Photos, which: Iterable[int], most: int
    ) -> tuple[Tensor, ...]:
        """Inputs (N, C, H, W) and targets (N,) of the first so many that can be read."""
        readable = (pair for number in which if (pair := self._read(photos, number)) is not None)
        pairs = list(islice(readable, most))
        if not pairs:
            raise RunError("none of the photographs could be read")
        inputs = torch.stack([network.preprocess(p) for p, _ in pairs]).to(_device(network))
        return inputs, self.targets(network, photos, inputs, [label for _, label in pairs])

    def _read(self, photos: data.Photos, number: int) -> tuple[Image.Image, int] | None:
        """A photograph and its class, or None and a line on stderr if it cannot be read."""
        try:
            return photos.read(number)
        except PhotoError as error:
            if str(error) not in self._unreadable:
                self._unreadable.add(str(error))
                tqdm.write(f"benchmarks.compare: left out: {error}", file=sys.stderr)
            return None

    @torch.no_grad()
    def targets(
        self, network: Network, photos: data.Photos, inputs: Tensor, labels: list[int]
    ) -> Tensor:
        """The classes to be explained."""
        output = network.model(inputs)
        if self.predicted:
            return torch.argmax(output, 1)
        numbers = data.targets(network, output.shape[1], photos)
        return torch.tensor([numbers[label] for label in labels], device=inputs.device)


def load_networks(settings: Settings, device: str) -> dict[str, Network]:
    """The networks by the names that rows bear.

    Raises:
        zoo.ZooError: One could not be had.
        RunError: Two have one name.
    """
    networks = {}
    for name in settings.networks:
        network = zoo.load("embedded" if name == "reference" else name, device=device)
        shown = name if name == "reference" else network.name or name
        if shown in networks:
            raise RunError(f"two networks have the name {shown}: rows could not be told apart")
        # A quarter faster on CPUs; gradients of all methods are made contiguous.
        model = network.model.to(memory_format=torch.channels_last)
        networks[shown] = replace(network, model=model, name=shown)
    return networks


def prepare(
    settings: Settings, sources: Sources, network: Network, progress: bool
) -> dict[str, Any]:
    """What has to be known of a network before photographs are scored, and may take a while.

    Raises:
        RunError: A method or a metric cannot be used with it.
    """
    inputs, targets = sources.batch(network, sources.others, sources.fitted, len(sources.fitted))
    try:
        fit = fit_temperature(
            network.model,
            inputs,
            targets,
            n_perturb_samples=settings.plan.samples,
            show_progress=progress,
        )
        layer = subjects.last_feature_map(network.model, inputs[:1])
        stages = sanity.spread(sanity.stages(network.model), settings.stages)
        if "randomisation" in settings.plan.metrics:
            for _, modules in stages:
                sanity.randomized(network.model, modules, 0)
    except (ValueError, RuntimeError) as error:
        raise RunError(f"{network.name} cannot be measured: {error}") from error
    temperature = fit.temperature
    assert isinstance(temperature, float)  # one for all gates was asked for
    subject = subjects.Subject(network, temperature, layer)
    for name in settings.plan.methods:
        try:
            attribute = scoring.prepared(subject, [name])[name]
            attribute(inputs[:1], targets[:1])
        except Exception as error:  # Captum's methods raise whatever the network makes them raise
            reason = " ".join(str(error).split())
            raise RunError(
                f"{name} cannot explain {network.name}: {reason}; leave it out (--without {name})"
            ) from error
    return {
        "checkpoint": subjects.checkpoint_hash(network.model),
        "temperature": temperature,
        "tried": [(each.value, each.infidelity) for each in fit.tried],
        "layer": layer,
        "stages": stages,
    }


def scorer(settings: Settings, network: Network, prepared: dict[str, Any]) -> Scorer:
    """What scores this network's photographs."""
    stages = [(stage, modules) for stage, modules in prepared["stages"]]
    subject = subjects.Subject(network, prepared["temperature"], prepared["layer"])
    return Scorer(subject, replace(settings.plan, stages=stages))


def measure(
    settings: Settings, sources: Sources, networks: dict[str, Network], store: Store, here: Workers
) -> dict[str, dict[str, Any]]:
    """Scores all photographs by all networks that are not yet scored; returns `prepare`'s results.

    Those that cannot be read are left out, and tried again by the next run.

    Raises:
        RunError: The run cannot begin.
        StoreError: The folder holds another run.
        WorkerError: Another process was lost.
    """
    prepared = {}
    for name, network in networks.items():
        found: Any = None
        if here.first:
            found = _first(settings, sources, network, store)
        found = here.from_first(found)
        if isinstance(found, str):
            raise RunError(found)
        prepared[name] = found
    if not store.description("settings"):
        raise WorkerError(f"this process does not see {store.folder}: it must be a shared folder")
    done = set(here.from_first(list(store.done()) if here.first else None))
    units = expected(settings, sources, list(networks))
    mine = unreadable = 0
    with store.writer(here.rank) as writer:
        for name, network in networks.items():
            scores = scorer(settings, network, prepared[name])
            # Nobody may disturb the clock: neither with photographs before nor with these.
            here.wait(f"waiting for the photographs before {name}")
            if here.first:
                for unit in (u for u in units if u[0] == name and u not in done and _turn(u) >= 0):
                    writer.write(unit, _cost(settings, sources, scores, _turn(unit)))
                    mine += 1
            here.wait(f"waiting for the costs of {name}")
            names = [unit[1] for unit in units if unit[0] == name and _turn(unit) < 0]
            todo = [number for number, image in enumerate(names) if (name, image) not in done]
            share = todo[here.rank :: here.size]
            title = name if here.size == 1 else f"{name}, process {here.rank} of {here.size}"
            for number in tqdm(share, title, unit="photo", disable=not here.first):
                case = sources.case(network, number)
                if case is None:
                    unreadable += 1
                    continue
                writer.write((name, case.name), scores.scores(case))
                mine += 1
    device = torch.device(local_device(settings.device))
    total = here.total(mine + unreadable, device) + len(done)
    if total != len(units):
        raise RunError(f"{total} of {len(units)} units were done: {store.folder} was changed")
    here.wait("waiting for the last photographs")
    return prepared


def expected(settings: Settings, sources: Sources, networks: Sequence[str]) -> list[Unit]:
    """All units of a run in the order of the table."""
    rounds = range(settings.cost_rounds if {"time", "memory"} & set(settings.plan.metrics) else 0)
    return [
        (name, unit)
        for name in networks
        for unit in (*(f"batch {turn}" for turn in rounds), *sources.names())
    ]


def rows(
    units: Sequence[Unit], store: Store, prepared: dict[str, dict[str, Any]]
) -> Iterator[tuple[Any, ...]]:
    """The table's rows: first the fits, then all scores."""
    for name, found in prepared.items():
        head = (name, found["checkpoint"], "fit")
        yield (*head, "pullback_fitted", "temperature", "", 0, found["temperature"])
        for temperature, value in found["tried"]:
            yield (*head, f"{AT}{temperature:.6g}", "fit_infidelity", "", 0, value)
    for (network, image), scores in store.read(list(units)):
        for s in scores:
            head = (network, prepared[network]["checkpoint"], image)
            yield (*head, s.method, s.metric, s.stage, s.seed, s.value)


def _first(settings: Settings, sources: Sources, network: Network, store: Store) -> Any:
    """`prepare`'s results, or what went wrong; from the folder, if they are there."""
    try:
        key = "network_" + "".join(c if c.isalnum() else "_" for c in network.name)
        there = store.description(key)
        if there is None:
            store.describe(key, prepare(settings, sources, network, True))
        elif there["checkpoint"] != subjects.checkpoint_hash(network.model):
            raise RunError(f"{network.name} has other weights now: choose another folder (--work)")
        return store.description(key)
    except RuntimeError as error:
        return str(error)


def _turn(unit: Unit) -> int:
    """The number of a batch whose cost is measured, or -1."""
    return int(unit[1].removeprefix("batch ")) if unit[1].startswith("batch ") else -1


def _cost(settings: Settings, sources: Sources, scores: Scorer, turn: int) -> list[Score]:
    size, count = settings.cost_batch, len(sources.scored)
    # Others stand in for those that cannot be read.
    which = (sources.scored[(turn * size + k) % count] for k in range(size + count))
    inputs, targets = sources.batch(scores.subject.network, sources.photos, which, size)
    return scoring.costs(scores, inputs, targets, turn)


def _device(network: Network) -> torch.device:
    return next(network.model.parameters()).device


def description(settings: Settings, sources: Sources, versions: dict[str, str]) -> dict[str, Any]:
    """What must be the same for a run to be gone on with."""
    digest = scoring.derive(0, *sources.names(), *map(str, sources.fitted))
    found = {**asdict(settings), "photographs": digest, "versions": versions}
    found["device"] = settings.device.split(":")[0]
    return found


def check(settings: Settings, out: Path) -> Path:
    """Makes sure of what can be made sure of before anything begins.

    Raises:
        RunError: An unknown metric, no seeds, too few of something, no device.
        OutputError: The table cannot be written.
    """
    try:
        metrics.chosen(settings.plan.metrics)
        torch.zeros(1, device=settings.device)
    except KeyError as error:
        known = ", ".join(metrics.METRICS)
        raise RunError(f"no metric is called {error}; there are {known}") from error
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise RunError(f"there is no device {settings.device!r} here ({reason})") from error
    if settings.boxes is None and {"box_share", "pointing_game"} & set(settings.plan.metrics):
        raise RunError("box_share and pointing_game need --boxes, or --without them")
    out.parent.mkdir(parents=True, exist_ok=True)
    return writable(os.fspath(out), table.SUFFIXES)
