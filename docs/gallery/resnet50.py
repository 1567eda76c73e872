"""The gallery's grid on torchvision's ResNet-50: ``python docs/gallery/resnet50.py``.

It needs to download the weights, 98 MB, once; torchvision keeps them in its cache. Where there is
no network, give a copy of the file: ``--weights resnet50-11ad3fa6.pth``.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from captum_pullback import DEFAULT_TEMPERATURE, PullbackAscent
from captum_pullback.figures.ascents import plot_ascent, score_change
from captum_pullback.figures.comparison import save_figure
from captum_pullback.zoo.networks import class_index, load
from captum_pullback.zoo.photos import SAMPLES, sample_photo

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--weights", help="a file of weights, or 'random' to see that it runs")
parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
parser.add_argument("--out", default="resnet50.png")
args = parser.parse_args()

network = load("resnet50", args.weights, args.device)
names = ["military uniform", "tabby", "espresso", "projectile"]
targets = [class_index(network.classes, name) for name in names]
photographs = [network.preprocess(sample_photo(name)).to(args.device) for name in SAMPLES]

# From black to white, as the network sees them once pixels are normalized.
mean, std = torch.tensor(network.mean), torch.tensor(network.std)
bounds = ((0 - mean) / std, (1 - mean) / std)

grids: dict[str, list[list[Tensor]]] = {}
captions: dict[str, list[list[str]]] = {}
for title, temperature in (
    ("pullback, T = 1 x mean output", DEFAULT_TEMPERATURE),
    ("plain gradient", 0.0),
):
    ascent = PullbackAscent(network.model, temperature, relative=True, bounds=bounds)
    grids[title], captions[title] = [], []
    for photograph in photographs:
        inputs = photograph.expand(len(targets), -1, -1, -1)
        trace = ascent.trace(inputs, targets)
        grids[title].append(list(trace[-1].inputs - inputs))
        captions[title].append(list(map(score_change, trace[0].score, trace[-1].score)))

figure = plot_ascent(
    photographs,
    grids,
    mean=network.mean,
    std=network.std,
    titles=names,
    labels=SAMPLES,
    captions=captions,
    own=[(i, i) for i in range(len(names))],
)
with open(args.out, "wb") as file:
    save_figure(figure, file, "png")
