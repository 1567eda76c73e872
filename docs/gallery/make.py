"""Makes the gallery's pictures from the sample photographs: ``python docs/gallery/make.py``.

All of it is offline, on the embedded network, and gives the same pictures each time.
"""

from __future__ import annotations

import argparse
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from captum.attr import IntegratedGradients, Saliency
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_pullback import DEFAULT_TEMPERATURE, ExcitationPullback, PullbackAscent
from captum_pullback.engine.temperature import TemperatureLike
from captum_pullback.figures.ascents import (
    perturbation_scales,
    plot_ascent,
    save_animation,
    score_change,
)
from captum_pullback.figures.comparison import plot_comparison, save_figure
from captum_pullback.study.softness import temperature_words
from captum_pullback.zoo.networks import class_index, reference_network
from captum_pullback.zoo.photos import SAMPLES, sample_photo

log = logging.getLogger("gallery")

HERE = Path(__file__).parent
#: What the photographs show.
OWN = ("military uniform", "tabby", "espresso", "projectile")
CLASSES = (
    "tabby", "monarch", "ladybug", "school bus", "goldfish", "pizza", "banana", "king penguin",
)  # fmt: skip
TEMPERATURE = DEFAULT_TEMPERATURE

network = reference_network()
mean, std = torch.tensor(network.mean), torch.tensor(network.std)
bounds = ((0 - mean) / std, (1 - mean) / std)
photographs = torch.stack([network.preprocess(sample_photo(name)) for name in SAMPLES])


def number(name: str) -> int:
    """A class's number."""
    return class_index(network.classes, name)


def ascent(temperature: TemperatureLike = TEMPERATURE) -> PullbackAscent:
    """The ascent of all the pictures: five steps of a tenth of the photograph's norm."""
    return PullbackAscent(network.model, temperature, relative=True, bounds=bounds)


def perturbations(
    photos: Tensor,
    classes: Sequence[str],
    temperature: TemperatureLike = TEMPERATURE,
    step: int = -1,
) -> tuple[list[list[Tensor]], list[list[str]]]:
    """For each photograph, a perturbation and a caption for each class."""
    grid, captions = [], []
    for photo in photos:
        inputs = photo.expand(len(classes), -1, -1, -1)
        trace = ascent(temperature).trace(inputs, [number(name) for name in classes])
        grid.append(list(trace[step].inputs - inputs))
        captions.append(list(map(score_change, trace[0].score, trace[step].score)))
    return grid, captions


def own_and_other_classes() -> Figure:
    """Four photographs and four classes, along the pullback and along the plain gradient."""
    titles: dict[str, TemperatureLike] = {
        f"pullback, T = {temperature_words(TEMPERATURE)}": TEMPERATURE,
        "plain gradient": 0.0,
    }
    made = {title: perturbations(photographs, OWN, t) for title, t in titles.items()}
    return plot_ascent(
        photographs,
        {title: grid for title, (grid, _) in made.items()},
        mean=network.mean,
        std=network.std,
        titles=OWN,
        labels=SAMPLES,
        captions={title: captions for title, (_, captions) in made.items()},
        own=[(i, i) for i in range(4)],
    )


def many_classes(temperature: TemperatureLike) -> Figure:
    """What eight classes ask of each photograph: the cells of the blind reading."""
    grid, captions = perturbations(photographs, CLASSES, temperature)
    figure = plot_ascent(
        photographs,
        {"": grid},
        mean=network.mean,
        std=network.std,
        titles=CLASSES,
        labels=SAMPLES,
        captions={"": captions},
        own=[(1, 0)],
        show="perturbation",
        scale="cell",
    )
    # Smoothly enlarged: the squares of so few pixels hide what they make up.
    for image in (image for axis in figure.axes for image in axis.images):
        image.set_interpolation("bicubic")
    return figure


def temperatures() -> Figure:
    """The same ascents at temperatures from 0 upwards."""
    values = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, TEMPERATURE)
    pairs = [(0, "lion"), (1, "tabby"), (2, "pizza"), (3, "projectile")]
    grid, captions = [], []
    for index, name in pairs:
        cells = [perturbations(photographs[index : index + 1], [name], t) for t in values]
        grid.append([cell[0][0] for cell, _ in cells])
        captions.append([text[0][0] for _, text in cells])
    return plot_ascent(
        [photographs[index] for index, _ in pairs],
        {"": grid},
        mean=network.mean,
        std=network.std,
        titles=["T = 0, plain gradient", *(f"T = {temperature_words(t)}" for t in values[1:])],
        labels=[f"{SAMPLES[index]}\ntowards {name}" for index, name in pairs],
        captions={"": captions},
        show="perturbation",
    )


def attributions() -> Figure:
    """One gradient and its pullback, and Integrated Gradients of fifty."""
    model, targets = network.model, [number(name) for name in OWN]
    inputs = photographs.clone().requires_grad_()  # or Captum warns that it sets this itself
    methods = {
        "Gradient": Saliency(model).attribute(inputs, targets, abs=False),
        "Integrated Gradients": IntegratedGradients(model).attribute(inputs, target=targets),
        f"Excitation pullback, T = {temperature_words(TEMPERATURE)}": ExcitationPullback(
            model, TEMPERATURE
        ).attribute(inputs, targets),
    }
    return plot_comparison(
        photographs,
        methods,
        mean=network.mean,
        std=network.std,
        labels=[f"{name}\nfor {own}" for name, own in zip(SAMPLES, OWN, strict=True)],
    )


def step_by_step() -> list[Figure]:
    """Frames: the cat on its way to four classes."""
    classes = ["tabby", "monarch", "ladybug", "school bus"]
    cat = photographs[1:2]
    made = [perturbations(cat, classes, step=step) for step in range(6)]
    scales = perturbation_scales({"": made[-1][0]}, network.std, "row")
    return [
        plot_ascent(
            cat,
            {"": grid},
            mean=network.mean,
            std=network.std,
            titles=classes,
            labels=[f"chelsea, step {step}"],
            captions={"": captions},
            own=[(0, 0)],
            scales=scales,
        )
        for step, (grid, captions) in enumerate(made)
    ]


def save(figure: Figure, name: str, dpi: int) -> None:
    """Writes a JPEG that keeps the colours' resolution, a quarter of the size of a PNG."""
    buffer = io.BytesIO()
    save_figure(figure, buffer, "png", dpi)
    with Image.open(buffer) as image:
        image.convert("RGB").save(HERE / name, quality=85, subsampling=0, optimize=True)
    log.info("%s: %d kB", name, (HERE / name).stat().st_size // 1000)


def main() -> None:
    """Makes all the pictures, or those that are named."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pictures = {
        "ascent.jpg": (own_and_other_classes, 90),
        "classes.jpg": (lambda: many_classes(TEMPERATURE), 130),
        "classes_plain.jpg": (lambda: many_classes(0.0), 130),
        "temperatures.jpg": (temperatures, 110),
        "attributions.jpg": (attributions, 90),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*pictures, "ascent.gif"])
    for name in parser.parse_args().names:
        if name == "ascent.gif":
            with (HERE / name).open("wb") as file:
                save_animation(step_by_step(), file, dpi=80)
            log.info("%s: %d kB", name, (HERE / name).stat().st_size // 1000)
        else:
            make, dpi = pictures[name]
            save(make(), name, dpi)


if __name__ == "__main__":
    main()
