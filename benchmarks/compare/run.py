"""A run: what is to be measured of which networks, shared among the processes, and put together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.compare import scoring, table
from benchmarks.compare.photographs import Settings, Source
from benchmarks.compare.scoring import Score, Scorer, derive
from benchmarks.compare.store import Store, Unit
from benchmarks.compare.workers import RunError, Workers
from benchmarks.provenance import checkpoint_hash
from captum_pullback.outputs import writable
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.networks import Network

#: A network and its photographs.
Subject = tuple[Network, Source]


def load(settings: Settings, device: str) -> dict[str, Subject]:
    """The networks, each with its photographs, by the names that rows bear.

    Raises:
        zoo.ZooError: A network could not be had.
        data.DataError: Photographs could not be had.
        RunError: Two networks have one name, or there are boxes for none of the photographs.
    """
    found: dict[str, Subject] = {}
    sources = [Source(chosen, settings) for chosen in settings.sets]
    if settings.boxes is not None and not any(source.photos.boxes for source in sources):
        raise RunError(f"{settings.boxes} has a box for none of the photographs")
    for chosen, source in zip(settings.sets, sources, strict=True):
        for name in chosen.networks:
            network = zoo.load("embedded" if name == "reference" else name, device=device)
            shown = name if name == "reference" else network.name or name
            if shown in found:
                raise RunError(f"two networks have the name {shown}: rows could not be told apart")
            # A quarter faster on CPUs; gradients of all methods are made contiguous.
            model = network.model.to(memory_format=torch.channels_last)
            found[shown] = replace(network, model=model, name=shown), source
    return found


def prepare(settings: Settings, subject: Subject) -> dict[str, Any]:
    """Which weights a network has, and why it cannot be explained by which methods."""
    network, source = subject
    inputs, targets = source.batch(network, source.scored, 1)
    skipped = {}
    for name in settings.plan.methods:
        try:
            scorer = Scorer(network, replace(settings.plan, methods=[name]))
            scorer.attributes[name](inputs, targets)
        except Exception as error:  # Captum's methods raise whatever the network makes them raise
            skipped[name] = " ".join(str(error.__cause__ or error).split())
    return {"checkpoint": checkpoint_hash(network.model), "skipped": skipped}


def measure(
    settings: Settings, found: dict[str, Subject], store: Store, here: Workers
) -> dict[str, dict[str, Any]]:
    """Scores all photographs by all networks that are not yet scored; returns `prepare`'s results.

    Those that cannot be read are left out, and tried again by the next run. Costs come last, so
    that they can be measured while nothing else runs.

    Raises:
        RunError: The run cannot begin.
        StoreError: The folder holds another run.
        WorkerError: Another process was lost.
    """
    prepared, scorers = {}, {}
    for name, subject in found.items():
        there = here.from_first(_first(settings, subject, store) if here.first else None)
        if isinstance(there, str):
            raise RunError(there)
        prepared[name] = there
        usable = [each for each in settings.plan.methods if each not in there["skipped"]]
        scorers[name] = Scorer(subject[0], replace(settings.plan, methods=usable))
    units = expected(settings, found)
    done = here.finished(store) & set(units)
    mine = unreadable = 0
    with store.writer(here.rank) as write:
        for name, (network, source) in found.items():
            names = source.names()
            todo = [number for number, image in enumerate(names) if (name, image) not in done]
            title = name if here.size == 1 else f"{name}, process {here.rank} of {here.size}"
            for number in here.share(todo, title):
                case = source.case(network, number)
                if case is None:
                    unreadable += 1
                    continue
                write((name, case.name), scorers[name].scores(case))
                mine += 1
        here.wait("waiting for the last photographs")  # nobody may disturb the clock
        for unit in (u for u in units if here.first and u not in done and _turn(u) >= 0):
            write(unit, _cost(settings, found[unit[0]], scorers[unit[0]], _turn(unit)))
            mine += 1
    total = here.total(mine + unreadable) + len(done)
    if total != len(units):
        raise RunError(f"{total} of {len(units)} units were done: {store.folder} was changed")
    here.wait("waiting for the costs")
    return prepared


def expected(settings: Settings, found: dict[str, Subject]) -> list[Unit]:
    """All units of a run in the order of the table."""
    rounds = settings.cost_rounds if {"time", "memory"} & set(settings.plan.metrics) else 0
    return [
        (name, unit)
        for name, (_, source) in found.items()
        for unit in (*source.names(), *(f"batch {turn}" for turn in range(rounds)))
    ]


def rows(
    units: Sequence[Unit], scores: Mapping[Unit, list[Score]], prepared: dict[str, dict[str, Any]]
) -> Iterator[tuple[Any, ...]]:
    """The table's rows: first what was skipped and why, then all scores."""
    for name, about in prepared.items():
        for method, why in about["skipped"].items():
            yield (name, about["checkpoint"], "", method, "skipped", why, 0, float("nan"))
    for network, image in units:
        for s in scores[network, image]:
            head = (network, prepared[network]["checkpoint"], image)
            yield (*head, s.method, s.metric, s.note, s.seed, s.value)


def _first(settings: Settings, subject: Subject, store: Store) -> Any:
    """`prepare`'s results, or what went wrong; from the folder, if they are there."""
    network = subject[0]
    try:
        key = "network_" + "".join(c if c.isalnum() else "_" for c in network.name)
        there = store.description(key)
        if there is None:
            store.describe(key, prepare(settings, subject))
        elif there["checkpoint"] != checkpoint_hash(network.model):
            raise RunError(f"{network.name} has other weights now: choose another folder (--work)")
        return store.description(key)
    except RuntimeError as error:
        return str(error)


def _turn(unit: Unit) -> int:
    """The number of a batch whose cost is measured, or -1."""
    return int(unit[1].removeprefix("batch ")) if unit[1].startswith("batch ") else -1


def _cost(settings: Settings, subject: Subject, scorer: Scorer, turn: int) -> list[Score]:
    network, source = subject
    size, count = settings.cost_batch, len(source.scored)
    # Others stand in for those that cannot be read.
    which = (source.scored[(turn * size + k) % count] for k in range(size + count))
    return scoring.costs(scorer, *source.batch(network, which, size), turn)


def description(
    settings: Settings, found: dict[str, Subject], versions: dict[str, str]
) -> dict[str, Any]:
    """What must be the same for a run to be gone on with: all but the number of photographs."""
    sets = [{**asdict(each), "images": "any"} for each in settings.sets]
    orders = {name: derive(0, *source.photos.names) for name, (_, source) in found.items()}
    about = {**asdict(settings), "sets": sets, "photographs": orders, "versions": versions}
    about["device"] = settings.device.split(":")[0]
    return about


def check(settings: Settings, out: Path) -> Path:
    """Makes sure of what can be made sure of before anything begins.

    Raises:
        RunError: There is no such device.
        OutputError: The table cannot be written.
    """
    try:
        torch.zeros(1, device=settings.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise RunError(f"device {settings.device!r} is not available here ({reason})") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    return writable(os.fspath(out), table.SUFFIXES)
