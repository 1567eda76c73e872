"""The command ``explain``: photographs in; a figure, a table and arrays out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from captum_pullback import outputs, report, zoo
from captum_pullback.fit import fit_temperature
from captum_pullback.methods import METHODS, Settings, at_once
from captum_pullback.photos import SAMPLES, PhotoError, read_photo, sample_photo
from captum_pullback.plots import save_figure
from captum_pullback.report import Explanation
from captum_pullback.scores import INFIDELITY_SAMPLES, noise_squares_of, score
from captum_pullback.softening import soften
from captum_pullback.terminal import UsageError, complain, printable, say
from captum_pullback.zoo import Network

FIGURES = (".png", ".pdf", ".svg")


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
    out = outputs.writable(args.out, FIGURES)
    npz = outputs.writable(args.npz, [".npz"]) if args.npz else None
    if str(out) in map(os.path.realpath, args.photos):
        raise UsageError(f"{args.out}: is one of the photographs; choose another name")
    try:
        _check_device(args.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(args.seed)  # for --weights random
            network = zoo.load(args.model, args.weights, args.device)
        targets = _targets(network, args.target)
    except zoo.ZooError as error:
        raise UsageError(str(error)) from error

    rows, bad = _read(network, args, targets)
    settings = Settings(0.3, args.pool_temperature, args.seed, not args.no_scores)
    if args.temperature != "fit":
        settings = replace(settings, temperature=args.temperature)
    elif rows:
        settings = replace(settings, temperature=_fitted(network, args.device, rows, settings))
    done = _attributed(network, args.device, rows, methods, settings)
    if done:
        with outputs.replacing(out) as file:
            figure = report.figure(network, done, settings, args.show)
            save_figure(figure, file, out.suffix[1:].lower())
        if npz:
            with outputs.replacing(npz) as file:
                np.savez_compressed(file, allow_pickle=False, **report.arrays(done))
        say(report.table(network, done, settings))
        if args.coverage:
            say(_coverage(network, args.device, done[0], settings))
        say(f"wrote {printable(args.out)}" + (f" and {printable(args.npz)}" if npz else ""))
    return 2 if bad or len(done) < len(rows) else 0


def _check_device(name: str) -> None:
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"there is no device {name!r} here ({reason})") from error


def _targets(network: Network, names: Sequence[str]) -> list[int]:
    """The numbers of classes; a name that is none is taken to be several, between commas."""
    targets = []
    for name in names:
        try:
            targets.append(zoo.class_index(network.classes, name))
        except zoo.ZooError:
            if "," not in name:
                raise
            targets += [zoo.class_index(network.classes, part) for part in name.split(",")]
    return list(dict.fromkeys(targets))


def _read(
    network: Network, args: argparse.Namespace, targets: Sequence[int]
) -> tuple[list[Explanation], int]:
    """Photographs as the network sees them, a row for each target; and how many were no good."""
    top_k = args.top_k if args.top_k is not None else int(not targets)
    rows: list[Explanation] = []
    bad = 0
    for photo in args.photos:
        is_sample = photo in (*SAMPLES, "grace_hopper.jpg") and not os.path.exists(photo)
        try:
            image = sample_photo(photo) if is_sample else read_photo(photo)
            inputs = network.preprocess(image)
            probabilities = _predict(network, inputs[None].to(args.device))[0]
        except PhotoError as error:
            bad += 1
            complain(f"error: {error}")
            continue
        except (RuntimeError, ValueError, TypeError) as error:
            raise UsageError(f"{args.model} fails on {photo}: {error}") from error
        if max(targets, default=0) >= len(probabilities):
            raise UsageError(f"class {max(targets)} is not within 0 to {len(probabilities) - 1}")
        top = probabilities.topk(min(top_k, len(probabilities))).indices.tolist()
        name = printable(os.path.basename(photo))
        for target in dict.fromkeys([*targets, *top]):
            rows.append(Explanation(name, inputs, target, probabilities))
    if not rows and not bad:
        raise UsageError("--top-k 0 and no --target: there is nothing to explain")
    return rows, bad


def _predict(network: Network, inputs: torch.Tensor) -> torch.Tensor:
    """The probabilities (N, K) of a batch (N, C, H, W), on the CPU."""
    with torch.no_grad():
        output = network.model(inputs)
    if not isinstance(output, torch.Tensor) or output.dim() != 2:
        raise TypeError("its output is no tensor of logits (N, classes)")
    return output.float().softmax(dim=1).cpu()


def _attributed(
    network: Network,
    device: str,
    rows: Sequence[Explanation],
    methods: Sequence[str],
    settings: Settings,
) -> list[Explanation]:
    """Fills the rows' maps, and returns the rows that came out."""
    done: list[Explanation] = []
    with tqdm(total=len(rows) * len(methods), disable=None, leave=False, unit="map") as bar:
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


def _coverage(network: Network, device: str, row: Explanation, settings: Settings) -> str:
    inputs = row.inputs[None].to(device).requires_grad_()
    with soften(
        network.model, settings.temperature, pool_temperature=settings.pool_temperature
    ) as record:
        network.model(inputs)
    return f"{record}\n"


def _fitted(
    network: Network, device: str, rows: Sequence[Explanation], settings: Settings
) -> float:
    """The temperature of least infidelity on the first rows, as many as fit the memory."""
    rows = rows[: at_once(network)]
    try:
        fit = fit_temperature(
            network.model,
            torch.stack([row.inputs for row in rows]).to(device),
            target=torch.tensor([row.target for row in rows], device=device),
            perturb_func=noise_squares_of(network),
            n_perturb_samples=INFIDELITY_SAMPLES,
            max_examples_per_batch=min(at_once(network), len(rows) * INFIDELITY_SAMPLES),
            seed=settings.seed,
            show_progress=sys.stderr.isatty(),
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"--temperature fit: {error}") from error
    say(f"{fit}\n")
    return float(fit.temperature)  # type: ignore[arg-type]  # one number, without per_gate
