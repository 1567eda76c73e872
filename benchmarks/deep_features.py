"""Do two photographs that are alike in deep features have like gates, and like pullbacks?

``python -m benchmarks.deep_features --data DIR`` measures it for the embedded network, trained and
untrained, and writes ``benchmarks/results/deep_features.json``.

For each pair of photographs there is a similarity of their penultimate features, and similarities
of their gates, of their pullbacks, of their gradients and of their pixels. What is reported is
Spearman's correlation over all pairs between the first and each of the others, with intervals from
resampling photographs, as pairs are not independent.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.pictures import first_of_each, normalize, read_split
from benchmarks.provenance import device, versions
from captum_pullback import ExcitationPullback, Spread
from captum_pullback.zoo.networks import reference_network
from captum_pullback.zoo.reference import ReferenceNet

RESULTS = Path(__file__).parent / "results" / "deep_features.json"
SEEDS = (1, 2, 3)  # of untrained networks
BATCH = 30
RESAMPLES = 300
Similarities = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


def cosines(rows: Tensor) -> Tensor:
    """Between all pairs of rows."""
    units = torch.nn.functional.normalize(rows.double().flatten(1), dim=1)
    return units @ units.T


def agreements(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """The share of gates that are the same for each two inputs, of each call of a ReLU in order."""
    calls: list[list[Tensor]] = []
    place = 0

    def note(_: nn.Module, __: object, output: Tensor) -> None:
        nonlocal place
        if place == len(calls):
            calls.append([])
        calls[place].append(output.detach().flatten(1) > 0)
        place += 1

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.ReLU)]
    try:
        with torch.no_grad():
            for part in torch.split(inputs, BATCH):
                place = 0
                model(part)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for parts in calls:
        signs = torch.cat(parts).float() * 2 - 1
        found.append(((signs @ signs.T).double() / signs.shape[1] + 1) / 2)
    return found


def pulled(model: nn.Module, inputs: Tensor, targets: Sequence[int], temperature: Any) -> Tensor:
    """The mean over classes of the cosines of the class's maps of each two inputs."""
    pullback = ExcitationPullback(model, temperature)
    maps = pullback.attribute_targets(inputs, list(targets), internal_batch_size=BATCH)
    return torch.stack([cosines(each) for each in maps]).mean(0)


def similarities(model: ReferenceNet, inputs: Tensor, targets: Sequence[int]) -> Similarities:
    """All similarities of each two inputs, (N, N)."""
    features: list[Tensor] = []
    hook = model.fc.register_forward_pre_hook(lambda _, given: features.append(given[0]))
    try:
        with torch.no_grad():
            for part in torch.split(inputs, BATCH):
                model(part)
    finally:
        hook.remove()
    deep = torch.cat(features)
    gates = agreements(model, inputs)
    third = len(gates) // 3
    found = {
        "features": cosines(deep - deep.mean(0)),
        "gates": torch.stack(gates).mean(0),
        "gates, first third of the calls": torch.stack(gates[:third]).mean(0),
        "gates, last third": torch.stack(gates[-third:]).mean(0),
        "pullbacks": pulled(model, inputs, targets, Spread(1.0)),
        "gradients": pulled(model, inputs, targets, 0.0),
        "pixels": cosines(inputs - inputs.mean(0)),
    }
    return {name: value.numpy() for name, value in found.items()}


def followed(found: Similarities, chosen: Any) -> dict[str, float]:
    """Spearman's correlation of features' similarity with each other one, over pairs.

    Args:
        found: As of `similarities`.
        chosen: Numbers of photographs, maybe more than once; a pair of a photograph with itself
            does not count.
    """
    one, two = np.triu_indices(len(chosen), 1)
    one, two = chosen[one], chosen[two]
    one, two = one[one != two], two[one != two]
    deep = found["features"][one, two]
    return {
        name: float(spearmanr(deep, value[one, two]).statistic)
        for name, value in found.items()
        if name != "features"
    }


def summarized(trained: Similarities, untrained: Sequence[Similarities]) -> list[dict[str, Any]]:
    """For each similarity its correlation in both kinds of network, and the difference."""
    count = len(trained["features"])

    def both(chosen: Any) -> dict[str, tuple[float, float, float]]:
        own = followed(trained, chosen)
        others = [followed(each, chosen) for each in untrained]
        means = {name: float(np.mean([other[name] for other in others])) for name in own}
        return {name: (own[name], means[name], own[name] - means[name]) for name in own}

    draw = np.random.default_rng(0)
    drawn = [both(draw.integers(0, count, count)) for _ in range(RESAMPLES)]
    rows = []
    for name, values in both(np.arange(count)).items():
        low, high = np.percentile([each[name] for each in drawn], (2.5, 97.5), axis=0)
        row: dict[str, Any] = {"similarity": name}
        for kind, value, least, most in zip(
            ("trained", "untrained", "difference"), values, low, high, strict=True
        ):
            row[kind] = [round(float(each), 4) for each in (value, least, most)]
        rows.append(row)
    return rows


def untrained(settings: dict[str, Any], seed: int, pictures: Tensor) -> ReferenceNet:
    """A network as before training, whose BatchNorms have the statistics of these pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ReferenceNet(**settings)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over batches
    with torch.no_grad():
        for part in torch.split(pictures, BATCH):
            model.train()(part)
    return model.eval()


def main() -> None:
    """Measures, and writes the result."""
    parser = argparse.ArgumentParser(prog="benchmarks.deep_features", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train and val")
    parser.add_argument("--each", type=int, default=8, help="photographs of each class")
    parser.add_argument("--targets", type=int, default=8, help="classes whose maps are compared")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    pictures, labels, _ = read_split(args.data / "val")
    chosen = first_of_each(labels, args.each)
    inputs = normalize(pictures[chosen])
    network = reference_network()
    model: Any = network.model
    classes = len(network.classes)
    targets = [round(k * classes / args.targets) for k in range(args.targets)]
    trained = similarities(model, inputs, targets)
    # BatchNorm's statistics come from photographs that are not scored.
    others = torch.ones(len(labels), dtype=torch.bool)
    others[chosen] = False
    rest = normalize(pictures[others][: len(chosen)])
    fresh = [similarities(untrained(model.settings, seed, rest), inputs, targets) for seed in SEEDS]
    result = {
        "photographs": len(inputs),
        "classes": classes,
        "targets": targets,
        "untrained_seeds": SEEDS,
        "resamples": RESAMPLES,
        "device": device("cpu"),
        "versions": versions(),
        "rows": summarized(trained, fresh),
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["rows"], indent=1))


if __name__ == "__main__":
    main()
