"""The command ``explain``: from photographs to a figure, a table and arrays."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from captum_pullback import outputs
from captum_pullback.commands.arguments import FITS
from captum_pullback.commands.softness import asked, complain_of_unused
from captum_pullback.commands.terminal import complain, complain_of_names, say
from captum_pullback.engine.softness import Softness
from captum_pullback.figures.comparison import save_figure
from captum_pullback.figures.panels import Method as DrawingMethod
from captum_pullback.fit import fit_temperature
from captum_pullback.study import report
from captum_pullback.study.errors import ScoreError, UsageError, blamed, reason
from captum_pullback.study.loading import (
    Seen,
    check_classes,
    load_network,
    photographs,
    see,
    target_classes,
)
from captum_pullback.study.methods import METHODS, Settings, at_once, coverage
from captum_pullback.study.metrics.disturbances import noise_squares_of
from captum_pullback.study.report import Explanation
from captum_pullback.study.scores import INFIDELITY_SAMPLES, attributed, rate
from captum_pullback.study.softness import check_softness
from captum_pullback.study.text import printable
from captum_pullback.zoo.networks import Network
from captum_pullback.zoo.photos import PhotoError


def run(args: argparse.Namespace) -> int:
    """Explain the photographs.

    Returns:
        0, or 2 where some photographs could not be explained by any method.

    Raises:
        UsageError: Nothing can be explained.
        OSError: A file cannot be written.
    """
    methods = _methods(args.methods)
    photos = photographs(args.photos)
    softness = asked(args)
    out = outputs.writable(args.out, outputs.FIGURES, photos)
    npz = outputs.writable(args.npz, [".npz"], photos) if args.npz else None
    network = load_network(args.model, args.weights, args.device, args.seed)
    targets = target_classes(network, args.target)
    seen = _seen(network, photos, args.device)
    rows = _rows(seen, targets, args.top_k)
    check_softness(network, softness)
    if args.temperature in FITS and rows:
        softness = _fitted(network, rows, args.device, softness, args.temperature, args.seed)
    settings = Settings(
        softness.temperature,
        softness.pool_temperature,
        softness.rules,
        args.seed,
        args.scores,
    )
    done = _attributed(network, rows, args.device, methods, settings)
    if done:
        _draw(network, done, settings, args.show, out)  # before the scores, which may take a while
        if npz:
            with outputs.replacing(npz) as file:
                np.savez_compressed(file, **report.arrays(done, settings))  # type: ignore[arg-type]
        if settings.scores != "none":
            done = list(_rated(network, done, args.device, settings))
            _draw(network, done, settings, args.show, out)
        say(report.table(network, done, settings))
        if any("pullback" in method for method in methods):
            complain_of_unused(network, done[0].seen.inputs[None].to(args.device), settings)
        if args.coverage:
            _print_coverage(network, done[0], args.device, settings)
        say(f"wrote {printable(args.out)}" + (f" and {printable(args.npz)}" if npz else ""))
    return 2 if len(seen) < len(photos) or len(done) < len(rows) else 0


def _methods(names: str) -> list[str]:
    methods = list(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in methods:
        if name not in METHODS:
            raise UsageError(f"no method is called {name!r}; choose from {', '.join(METHODS)}")
    return methods


def _seen(network: Network, photos: Sequence[str], device: str) -> list[Seen]:
    """Return the usable photographs as the network sees them; report the others."""
    found = []
    for photo in photos:
        try:
            found.append(see(network, photo, device))
        except (PhotoError, ScoreError) as error:
            complain(f"error: {error}")
    if found:
        complain_of_names(network.name, len(network.classes), len(found[0].prediction.scores))
    return found


def _rows(seen: Sequence[Seen], targets: Sequence[int], top_k: int | None) -> list[Explanation]:
    """Return an empty explanation for each photograph and each of its targets."""
    rows = []
    for each in seen:
        check_classes(targets, len(each.prediction.scores))
        top = each.prediction.top(int(not targets) if top_k is None else top_k)
        rows += [Explanation(each, target) for target in dict.fromkeys([*targets, *top])]
    if seen and not rows:
        raise UsageError("--top-k 0 and no --target: there is nothing to explain")
    return rows


def _attributed(
    network: Network,
    rows: Sequence[Explanation],
    device: str,
    methods: Sequence[str],
    settings: Settings,
) -> list[Explanation]:
    """Fill in the maps, and return the rows that have any.

    A method that fails is left out, with a line that says why, once for each reason.
    """
    done: list[Explanation] = []
    told: set[str] = set()
    with tqdm(
        total=len(rows) * len(methods), disable=None, leave=False, unit="map", mininterval=0
    ) as bar:
        for row in rows:
            photo, inputs = row.seen.photo, row.seen.inputs[None].to(device)
            failed: dict[str, Exception] = {}
            for name in methods:
                bar.set_description(f"{photo}, {METHODS[name].title}")
                try:
                    scored = attributed(network, inputs, row.target, name, settings)
                    if not scored.attribution.isfinite().all():
                        raise ValueError("the attribution is NaN or infinite in places")
                    row.maps[name] = scored
                except Exception as error:  # anything at all: the module may be the user's own
                    failed[name] = error
                bar.update()
            if row.maps:
                done.append(row)
            elif len({reason(each) for each in failed.values()}) == 1:
                failed = dict([next(iter(failed.items()))])  # the network's fault, not a method's
            kind = "warning" if row.maps else "error"
            for name, why in failed.items():
                said = blamed(why, f"{METHODS[name].title} of {network.name}")
                if row.maps and str(said) in told:
                    continue
                told.add(str(said))
                bar.clear()
                left = " is left out" if row.maps else ""
                text = str(said).replace(": ", f"{left}: ", 1) if left else str(said)
                complain(f"{kind}: {photo}: {text}", said.lines)
    return done


def _rated(
    network: Network, rows: Sequence[Explanation], device: str, settings: Settings
) -> Iterator[Explanation]:
    """Add scores to the rows, each photograph's targets together; warn if scoring fails."""
    for _, group in groupby(rows, key=lambda row: id(row.seen)):
        targets = list(group)
        seen = targets[0].seen
        try:
            rated = rate(
                network,
                seen.inputs[None].to(device),
                [(row.target, row.maps) for row in targets],
                settings,
            )
        except Exception as error:  # anything at all: the module may be the user's own
            said = blamed(error, f"{seen.photo} has no scores: {network.name}")
            complain(f"warning: {said}", said.lines)
            yield from targets
            continue
        for row, maps in zip(targets, rated.maps, strict=True):
            yield replace(row, maps=maps, cut=rated.cut)


def _draw(
    network: Network,
    done: Sequence[Explanation],
    settings: Settings,
    show: DrawingMethod,
    out: Path,
) -> None:
    with outputs.replacing(out) as file:
        figure = report.figure(network, done, settings, show)
        save_figure(figure, file, out.suffix[1:].lower())


def _fitted(
    network: Network,
    rows: Sequence[Explanation],
    device: str,
    softness: Softness,
    what: str,
    seed: int,
) -> Softness:
    """Fit the temperature on the first rows, as many as fit into memory."""
    rows = rows[: at_once(network)]
    try:
        fit = fit_temperature(
            network.model,
            torch.stack([row.seen.inputs for row in rows]).to(device),
            target=torch.tensor([row.target for row in rows], device=device),
            pool_temperature=softness.pool_temperature,
            rules=softness.rules,
            units=what.removeprefix("fit").strip() or "input",  # type: ignore[arg-type]
            perturb_func=noise_squares_of(network),
            n_perturb_samples=INFIDELITY_SAMPLES,
            max_examples_per_batch=min(at_once(network), len(rows) * INFIDELITY_SAMPLES),
            seed=seed,
            show_progress=sys.stderr.isatty(),
        )
    except Exception as error:  # anything at all: the module may be the user's own
        raise blamed(error, f"--temperature {what} of {network.name}") from error
    say(f"{fit}\n")
    return replace(softness, temperature=fit.temperature)


def _print_coverage(
    network: Network, explanation: Explanation, device: str, settings: Settings
) -> None:
    try:
        record = coverage(network, explanation.seen.inputs[None].to(device), settings)
    except Exception as error:  # anything at all: the module may be the user's own
        raise blamed(error, f"--coverage of {network.name}") from error
    say(f"{record}\n")
