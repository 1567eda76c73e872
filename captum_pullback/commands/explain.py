"""The command ``explain``: photographs in; a figure, a table and arrays out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from captum_pullback import outputs
from captum_pullback.commands.terminal import UsageError, complain, printable, say
from captum_pullback.figures.comparison import save_figure
from captum_pullback.fit import fit_temperature
from captum_pullback.study import report
from captum_pullback.study.loading import (
    check_classes,
    load_network,
    predict,
    suggested_temperature,
    target_classes,
)
from captum_pullback.study.methods import METHODS, Settings, at_once, coverage
from captum_pullback.study.report import Explanation
from captum_pullback.study.scores import INFIDELITY_SAMPLES, noise_squares_of, score
from captum_pullback.zoo.networks import Network
from captum_pullback.zoo.photos import PhotoError


def run(args: argparse.Namespace) -> int:
    """Explains what was asked.

    Returns:
        0, or 2 where some photographs could not be explained.

    Raises:
        UsageError: nothing can be done.
        OSError: a file cannot be written.
    """
    methods = list(dict.fromkeys(name.strip() for name in args.methods.split(",")))
    for name in methods:
        if name not in METHODS:
            raise UsageError(f"no method is called {name!r}; there are {', '.join(METHODS)}")
    out = outputs.writable(args.out, outputs.FIGURES, args.photos)
    npz = outputs.writable(args.npz, [".npz"], args.photos) if args.npz else None
    network = load_network(args)
    targets = target_classes(network, args.target)
    rows, bad = _read(network, args, targets)
    temperature = args.temperature
    if temperature is None:
        temperature = suggested_temperature(network)
    elif temperature == "fit" and rows:
        temperature = _fitted(network, args, rows)
    settings = Settings(temperature, args.pool_temperature, args.seed, not args.no_scores)
    done = _attributed(network, args.device, rows, methods, settings)
    if done:
        with outputs.replacing(out) as file:
            figure = report.figure(network, done, settings, args.show)
            save_figure(figure, file, out.suffix[1:].lower())
        if npz:
            with outputs.replacing(npz) as file:
                np.savez_compressed(file, **report.arrays(done))  # type: ignore[arg-type]
        say(report.table(network, done, settings))
        if args.coverage:
            inputs = done[0].inputs[None].to(args.device)
            say(f"{coverage(network, inputs, settings)}\n")
        say(f"wrote {printable(args.out)}" + (f" and {printable(args.npz)}" if npz else ""))
    return 2 if bad or len(done) < len(rows) else 0


def _read(
    network: Network, args: argparse.Namespace, targets: Sequence[int]
) -> tuple[list[Explanation], int]:
    """Photographs as the network sees them, a row for each target; and how many were no good."""
    top_k = args.top_k if args.top_k is not None else int(not targets)
    rows: list[Explanation] = []
    bad = 0
    for photo in args.photos:
        try:
            inputs, probabilities = predict(network, args, photo)
        except PhotoError as error:
            bad += 1
            complain(f"error: {error}")
            continue
        check_classes(targets, len(probabilities))
        top = probabilities.topk(min(top_k, len(probabilities))).indices.tolist()
        name = printable(os.path.basename(photo))
        for target in dict.fromkeys([*targets, *top]):
            rows.append(Explanation(name, inputs, target, probabilities))
    if not rows and not bad:
        raise UsageError("--top-k 0 and no --target: there is nothing to explain")
    return rows, bad


def _attributed(
    network: Network,
    device: str,
    rows: Sequence[Explanation],
    methods: Sequence[str],
    settings: Settings,
) -> list[Explanation]:
    """Fills the rows' maps, and returns the rows that came out."""
    done: list[Explanation] = []
    with tqdm(
        total=len(rows) * len(methods), disable=None, leave=False, unit="map", mininterval=0
    ) as bar:
        for row in rows:
            inputs = row.inputs[None].to(device)
            try:
                for name in methods:
                    bar.set_description(f"{row.photo}, {METHODS[name].title}")
                    scored = score(network, inputs, row.target, name, settings)
                    if not scored.attribution.isfinite().all():
                        raise ValueError("the attribution is NaN or infinite in places")
                    row.maps[name] = scored
                    bar.update()
                done.append(row)
            except (RuntimeError, ValueError) as error:
                bar.clear()
                complain(f"error: {row.photo}: {METHODS[name].title}: {error}")
    return done


def _fitted(network: Network, args: argparse.Namespace, rows: Sequence[Explanation]) -> float:
    """The temperature of least infidelity on the first rows, as many as fit the memory."""
    rows = rows[: at_once(network)]
    try:
        fit = fit_temperature(
            network.model,
            torch.stack([row.inputs for row in rows]).to(args.device),
            target=torch.tensor([row.target for row in rows], device=args.device),
            pool_temperature=args.pool_temperature,
            perturb_func=noise_squares_of(network),
            n_perturb_samples=INFIDELITY_SAMPLES,
            max_examples_per_batch=min(at_once(network), len(rows) * INFIDELITY_SAMPLES),
            seed=args.seed,
            show_progress=sys.stderr.isatty(),
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"--temperature fit: {error}") from error
    say(f"{fit}\n")
    return float(fit.temperature)  # type: ignore[arg-type]  # one number, without per_gate
