"""The command ``ascend``: from photographs to a grid of ascents, and an animation."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from captum_pullback import outputs
from captum_pullback.ascent import AscentStep
from captum_pullback.commands.softness import asked, complain_of_unused
from captum_pullback.commands.terminal import complain, complain_of_names, say
from captum_pullback.figures.ascents import (
    number,
    perturbation_scales,
    plot_ascent,
    save_animation,
    score_change,
)
from captum_pullback.figures.comparison import save_figure
from captum_pullback.study.ascents import Ways, trace
from captum_pullback.study.errors import ScoreError, blamed
from captum_pullback.study.loading import (
    Seen,
    check_classes,
    load_network,
    photographs,
    sample_name,
    see,
    target_classes,
)
from captum_pullback.study.predictions import Prediction
from captum_pullback.study.report import class_name
from captum_pullback.study.scores import quietly
from captum_pullback.study.softness import check_softness, described
from captum_pullback.study.text import printable
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo.networks import Network
from captum_pullback.zoo.photos import SAMPLES, PhotoError

#: The classes that the sample photographs show, for networks that know them.
SAMPLE_CLASSES = {
    "grace_hopper": "military uniform",
    "chelsea": "tabby",
    "coffee": "espresso",
    "rocket": "projectile",
}
#: Words for a column in which each row has a class of its own.
WORDS = {"self": "own class", "random": "random class"}


@dataclass
class Row:
    """One photograph.

    Attributes:
        seen: The photograph as the network sees it.
        own: Its own class: what a sample shows, otherwise what is predicted.
        targets: The class of each column.
        steps: For each method's title, the points of the ascents of all columns.
    """

    seen: Seen
    own: int
    targets: list[int] = field(default_factory=list)
    steps: dict[str, list[AscentStep[Tensor]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """The layout of the figure: the columns' titles, and `plot_ascent`'s ``show`` and ``scale``."""

    columns: Sequence[str]
    show: Literal["both", "perturbation", "photograph"]
    scale: Literal["row", "cell", "figure"]


def run(args: argparse.Namespace) -> int:
    """Run the ascents.

    Returns:
        0, or 2 where some photographs could not be used.

    Raises:
        UsageError: Nothing can be done.
        OSError: A file cannot be written.
    """
    photos = photographs(args.photos) or _samples()
    softness = asked(args)
    out = outputs.writable(args.out, outputs.FIGURES, photos)
    gif = outputs.writable(args.gif, [".gif"], photos) if args.gif else None
    network = load_network(args.model, args.weights, args.device, args.seed)
    words = [part.strip() for text in args.targets for part in _parts(network, text)]
    check_softness(network, softness)
    ways = Ways(
        softness.temperature,
        softness.pool_temperature,
        softness.rules,
        args.steps,
        args.step_size,
        args.radius,
        not args.unbounded,
        args.compare,
    )
    rows = _read(network, photos, args.device)
    grid = Grid(_columns(network, words, rows, args.seed) if rows else [], args.show, args.scale)
    done = _ascended(network, rows, args.device, ways)
    if done:
        with outputs.replacing(out) as file:
            save_figure(_figure(network, done, grid), file, out.suffix[1:].lower())
        if gif:
            _animate(network, done, grid, args.steps, gif)
        say("\n".join(filter(None, [_table(network, done), described(ways)])))
        complain_of_unused(network, done[0].seen.inputs[None].to(args.device), ways)
        say(f"wrote {printable(args.out)}" + (f" and {printable(args.gif)}" if gif else ""))
    return 2 if len(done) < len(photos) else 0


def _animate(network: Network, rows: Sequence[Row], grid: Grid, steps: int, path: Path) -> None:
    """Write the animation, with a progress bar, as it takes as long as that many figures."""
    with (
        outputs.replacing(path) as file,
        tqdm(
            range(steps + 1), "animation", disable=None, leave=False, unit="frame", mininterval=0
        ) as frames,
    ):
        save_animation((_figure(network, rows, grid, step) for step in frames), file)


def _samples() -> list[str]:
    if importlib.util.find_spec("skimage") is not None:
        return list(SAMPLES)
    complain("scikit-image, which has more sample photographs, is not installed")
    return ["grace_hopper"]


def _parts(network: Network, text: str) -> list[str]:
    """Split ``--targets``: one class, whose name may contain commas, or several."""
    try:
        zoo.class_index(network.classes, text)
    except zoo.ZooError:
        return text.split(",")
    return [text]


def _read(network: Network, photos: Sequence[str], device: str) -> list[Row]:
    """Return the usable photographs; report the others."""
    rows = []
    for photo in photos:
        try:
            seen = see(network, photo, device)
        except (PhotoError, ScoreError) as error:
            complain(f"error: {error}")
            continue
        own = seen.prediction.top(1)[0]
        with contextlib.suppress(KeyError, zoo.ZooError):
            own = zoo.class_index(network.classes, SAMPLE_CLASSES[sample_name(photo) or ""])
        rows.append(Row(seen, own))
    if rows:
        count = len(rows[0].seen.prediction.scores)
        complain_of_names(network.name, len(network.classes), count)
    return rows


def _columns(network: Network, words: list[str], rows: list[Row], seed: int) -> list[str]:
    """Give the rows their targets, and return the columns' titles.

    Without words the columns are the photographs' own classes, so that the diagonal has each
    photograph with its own; a single photograph gets a random class in addition.
    """
    count = len(rows[0].seen.prediction.scores)
    if not words:
        words = [str(own) for own in dict.fromkeys(row.own for row in rows)]
        words += ["random"] if len(words) == 1 < count else []
    columns: list[int | str] = []
    for word in words:
        if word in WORDS:
            columns.append(word)
        else:
            columns += [n for n in target_classes(network, [word]) if n not in columns]
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


def _ascended(network: Network, rows: Sequence[Row], device: str, ways: Ways) -> list[Row]:
    """Fill in the rows' steps, and return the rows that succeeded."""
    try:
        ascents = ways.ascents(network)
    except (TypeError, ValueError) as error:  # a scripted network, for example
        raise blamed(error, network.name) from error
    done = []
    total = len(ascents) * sum(len(row.targets) for row in rows)
    with tqdm(total=total, disable=None, leave=False, unit="ascent") as bar:
        for row in rows:
            bar.set_description(row.seen.photo)
            inputs = row.seen.inputs.to(device)
            try:
                for title, ascent in ascents.items():
                    with quietly():
                        row.steps[title] = trace(network, ascent, inputs, row.targets)
                    bar.update(len(row.targets))
                done.append(row)
            except Exception as error:  # anything at all: the module may be the user's own
                bar.clear()
                said = blamed(error, f"{row.seen.photo}: {network.name}")
                complain(f"error: {said}", said.lines)
    return done


def _figure(network: Network, rows: Sequence[Row], grid: Grid, step: int = -1) -> Figure:
    """Draw the grid after so many steps, on the scales of the last step."""
    methods = list(rows[0].steps)
    moved = {
        k: {title: [list(row.steps[title][k].inputs - row.seen.inputs) for row in rows]
            for title in methods}
        for k in (step, -1)
    }  # fmt: skip
    return plot_ascent(
        [row.seen.inputs for row in rows],
        moved[step],
        mean=network.mean,
        std=network.std,
        titles=grid.columns,
        labels=["\n".join([row.seen.photo, *_predictions(network, row)]) for row in rows],
        captions={
            title: [_captions(network, row, title, grid.columns, step) for row in rows]
            for title in methods
        },
        own=[
            (i, j) for i, row in enumerate(rows) for j, t in enumerate(row.targets) if t == row.own
        ],
        show=grid.show,
        scale=grid.scale,
        scales=perturbation_scales(moved[-1], network.std, grid.scale),
    )


def _predictions(network: Network, row: Row, count: int = 2) -> list[str]:
    prediction = row.seen.prediction
    return [f"{class_name(network, i)} {_share(prediction, i)}" for i in prediction.top(count)]


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
    """Return a table of all ascents."""
    width = max(42, *(len(title) for row in rows for title in row.steps))
    line = f"  {{:<28.28}} {{:<{width}}} {{:>9}} {{:>9}} {{:>9}}".format
    lines = []
    for row in rows:
        lines.append(f"{row.seen.photo}: {', '.join(_predictions(network, row, 3))}")
        lines.append(line("toward", "", "before", "after", "distance"))
        for j, target in enumerate(row.targets):
            for title, steps in row.steps.items():
                numbers = (steps[0].score[j], steps[-1].score[j], steps[-1].distance[j])
                lines.append(line(class_name(network, target), title, *map(number, numbers)))
        lines.append("")
    return "\n".join([*lines, "before, after: the class's score, as the network gives it"])


def _share(prediction: Prediction, index: int) -> str:
    """Return a class's probability in whole percent, or the score itself if there is none."""
    if prediction.kind == "one":
        return prediction.text(index)
    return f"{100 * float(prediction.probabilities[index]):.0f} %"
