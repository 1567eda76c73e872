"""The command ``ascend``: photographs in; a grid of what classes ask for, and an animation, out."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from captum_pullback import outputs
from captum_pullback.ascent import AscentStep, PullbackAscent
from captum_pullback.commands.terminal import complain, printable, say
from captum_pullback.figures.ascents import (
    number,
    perturbation_scales,
    plot_ascent,
    save_animation,
    score_change,
)
from captum_pullback.figures.comparison import save_figure
from captum_pullback.study.loading import (
    check_classes,
    load_network,
    predict,
    sample_name,
    suggested_temperature,
    target_classes,
)
from captum_pullback.study.methods import at_once, pixel_bounds
from captum_pullback.study.report import class_name
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.networks import Network
from captum_pullback.zoo.photos import SAMPLES, PhotoError

#: What the sample photographs show, where the network knows such a class.
SAMPLE_CLASSES = {
    "grace_hopper": "military uniform",
    "chelsea": "tabby",
    "coffee": "espresso",
    "rocket": "projectile",
}
#: Columns of which each row has a class of its own.
WORDS = {"self": "own class", "random": "random class"}


@dataclass
class Row:
    """One photograph.

    Attributes:
        photo: its name.
        inputs: what the network saw, (C, H, W), on the CPU.
        probabilities: of all classes, (K,).
        own: its own class: what a sample shows, or else what is predicted.
        targets: the class of each column.
        steps: for each method's title, the points of the ascents of all columns.
    """

    photo: str
    inputs: Tensor
    probabilities: Tensor
    own: int
    targets: list[int] = field(default_factory=list)
    steps: dict[str, list[AscentStep[Tensor]]] = field(default_factory=dict)


def run(args: argparse.Namespace) -> int:
    """Ascends as was asked.

    Returns:
        0, or 2 where some photographs could not be used.

    Raises:
        UsageError: nothing can be done.
        OSError: a file cannot be written.
    """
    photos = args.photos or _samples()
    out = outputs.writable(args.out, outputs.FIGURES, photos)
    gif = outputs.writable(args.gif, [".gif"], photos) if args.gif else None
    network = load_network(args)
    words = [part.strip() for text in args.targets for part in _parts(network, text)]
    if args.temperature is None:
        args.temperature = suggested_temperature(network)
    rows = _read(network, args, photos)
    columns = _columns(network, words, rows, args.seed) if rows else []
    done = _ascended(network, args, rows)
    if done:
        with outputs.replacing(out) as file:
            save_figure(_figure(network, args, done, columns), file, out.suffix[1:].lower())
        if gif:
            with outputs.replacing(gif) as file:
                frames = range(args.steps + 1)
                save_animation((_figure(network, args, done, columns, k) for k in frames), file)
        say(_table(network, done))
        say(f"wrote {printable(args.out)}" + (f" and {printable(args.gif)}" if gif else ""))
    return 2 if len(done) < len(photos) else 0


def _samples() -> list[str]:
    if importlib.util.find_spec("skimage") is not None:
        return list(SAMPLES)
    complain("scikit-image, whose sample photographs are used too, is not installed")
    return ["grace_hopper"]


def _parts(network: Network, text: str) -> list[str]:
    """What ``--targets`` names: one class, whose name may have commas in it, or several."""
    try:
        zoo.class_index(network.classes, text)
    except zoo.ZooError:
        return text.split(",")
    return [text]


def _read(network: Network, args: argparse.Namespace, photos: Sequence[str]) -> list[Row]:
    rows = []
    for photo in photos:
        try:
            inputs, probabilities = predict(network, args, photo)
        except PhotoError as error:
            complain(f"error: {error}")
            continue
        own = int(probabilities.argmax())
        with contextlib.suppress(KeyError, zoo.ZooError):
            own = zoo.class_index(network.classes, SAMPLE_CLASSES[sample_name(photo) or ""])
        rows.append(Row(printable(os.path.basename(photo)), inputs, probabilities, own))
    return rows


def _columns(network: Network, words: list[str], rows: list[Row], seed: int) -> list[str]:
    """Gives the rows their targets, and returns the columns' titles.

    Without words the columns are the photographs' own classes, so that the diagonal has each
    photograph with its own; one photograph alone gets a random class besides.
    """
    if not words:
        words = [str(own) for own in dict.fromkeys(row.own for row in rows)]
        words += ["random"] if len(words) == 1 else []
    columns: list[int | str] = []
    for word in words:
        if word in WORDS:
            columns.append(word)
        else:
            columns += [n for n in target_classes(network, [word]) if n not in columns]
    count = len(rows[0].probabilities)
    named = [column for column in columns if isinstance(column, int)]
    check_classes(named, count)
    generator = torch.Generator().manual_seed(seed)
    for row in rows:
        order = torch.randperm(count, generator=generator).tolist()
        fresh = iter([n for n in order if n not in (*named, row.own)] or order)
        for column in columns:
            if column == "random":
                row.targets.append(next(fresh, order[0]))
            else:
                row.targets.append(row.own if column == "self" else int(column))
    return [WORDS.get(str(c)) or class_name(network, int(c)) for c in columns]


def _ascended(network: Network, args: argparse.Namespace, rows: Sequence[Row]) -> list[Row]:
    """Fills the rows' steps, and returns the rows that came out."""
    bounds = None if args.unbounded else pixel_bounds(network)
    ascents = {
        title: PullbackAscent(
            network.model,
            temperature,
            pool_temperature=pool_temperature,
            steps=args.steps,
            step_size=args.step_size,
            radius=args.radius,
            relative=True,
            bounds=bounds,
        )
        for title, temperature, pool_temperature in _methods(args)
    }
    done = []
    total = len(ascents) * sum(len(row.targets) for row in rows)
    with tqdm(total=total, disable=None, leave=False, unit="ascent") as bar:
        for row in rows:
            bar.set_description(row.photo)
            try:
                for title, ascent in ascents.items():
                    row.steps[title] = _trace(network, args.device, ascent, row)
                    bar.update(len(row.targets))
                done.append(row)
            except (RuntimeError, ValueError) as error:
                bar.clear()
                complain(f"error: {row.photo}: {error}")
    return done


def _methods(args: argparse.Namespace) -> list[tuple[str, float, float | None]]:
    title = f"along the excitation pullback, T = {args.temperature:.3g}"
    methods = [(title, args.temperature, args.pool_temperature)]
    return methods + ([("along the plain gradient", 0.0, None)] if args.compare else [])


def _trace(
    network: Network, device: str, ascent: PullbackAscent, row: Row
) -> list[AscentStep[Tensor]]:
    """The ascents of all the columns, as many at once as is wise, on the CPU."""
    chunks = []
    for targets in torch.split(torch.tensor(row.targets), at_once(network)):
        inputs = row.inputs.to(device).expand(len(targets), *row.inputs.shape)
        chunks.append(ascent.trace(inputs, targets.to(device)))
    return [
        AscentStep(parts[0].step, *(
            torch.cat([getattr(part, name).float().cpu() for part in parts])
            for name in ("inputs", "score", "step_norm", "distance")
        ))
        for parts in zip(*chunks, strict=True)
    ]  # fmt: skip


def _figure(
    network: Network,
    args: argparse.Namespace,
    rows: Sequence[Row],
    columns: Sequence[str],
    step: int = -1,
) -> Figure:
    """The grid after so many steps, on the scales that the last one has."""
    methods = list(rows[0].steps)
    moved = {
        k: {title: [list(row.steps[title][k].inputs - row.inputs) for row in rows]
            for title in methods}
        for k in (step, -1)
    }  # fmt: skip
    return plot_ascent(
        [row.inputs for row in rows],
        moved[step],
        mean=network.mean,
        std=network.std,
        titles=columns,
        labels=["\n".join([row.photo, *_predictions(network, row)]) for row in rows],
        captions={
            title: [_captions(network, row, title, columns, step) for row in rows]
            for title in methods
        },
        own=[
            (i, j) for i, row in enumerate(rows) for j, t in enumerate(row.targets) if t == row.own
        ],
        show=args.show,
        scale=args.scale,
        scales=perturbation_scales(moved[-1], network.std, args.scale),
    )


def _predictions(network: Network, row: Row, count: int = 2) -> list[str]:
    top = row.probabilities.topk(min(count, len(row.probabilities)))
    return [
        f"{class_name(network, i)} {_percent(p)}"
        for p, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]


def _captions(
    network: Network, row: Row, title: str, columns: Sequence[str], step: int
) -> list[str]:
    first, last = row.steps[title][0], row.steps[title][step]
    texts = []
    for j, target in enumerate(row.targets):
        name = [class_name(network, target)] if columns[j] in WORDS.values() else []
        texts.append("\n".join([*name, score_change(first.score[j], last.score[j])]))
    return texts


def _table(network: Network, rows: Sequence[Row]) -> str:
    """Every ascent in words and numbers."""
    line = "  {:<28.28} {:<42} {:>9} {:>9} {:>9}".format
    lines = []
    for row in rows:
        lines.append(f"{row.photo}: {', '.join(_predictions(network, row, 3))}")
        lines.append(line("towards", "", "before", "after", "distance"))
        for j, target in enumerate(row.targets):
            for title, steps in row.steps.items():
                numbers = (steps[0].score[j], steps[-1].score[j], steps[-1].distance[j])
                lines.append(line(class_name(network, target), title, *map(number, numbers)))
        lines.append("")
    return "\n".join([*lines, "before, after: the class's score, as the network gives it"])


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f} %"
