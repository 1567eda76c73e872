"""Which temperature transfers from network to network, chosen on one half of them.

``python -m benchmarks.temperature --data DIR --imagenet DIR --networks DIR --stage choose`` scores
every candidate on the first half of `temperature_networks`; ``--stage report`` scores what was
chosen, and its rivals, on the half that was held back. Rows go to
``benchmarks/results/temperature_STAGE.csv``, one for each photograph and method; networks that
stand there already are left out. ``--data`` holds ``val/<class>/*`` and may hold ``boxes.csv``,
``--imagenet`` photographs.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from captum.attr import IntegratedGradients, Saliency
from PIL import Image
from torch import Tensor

from benchmarks.compare.data import Box, inside, read_boxes
from benchmarks.provenance import device, versions
from benchmarks.temperature_networks import on_disk
from benchmarks.temperature_units import ALL, Gamma, in_units
from captum_pullback import SEMANTIC, ExcitationPullback, Spread
from captum_pullback.engine.rules import READINGS
from captum_pullback.fit.infidelity import Perturbed, cosine, other_classes
from captum_pullback.perturbations import seeded
from captum_pullback.pullback.targets import indices
from captum_pullback.study.metrics import max_sensitivity, similarity
from captum_pullback.study.metrics.disturbances import noise_squares_of, uniform_noise_of
from captum_pullback.study.metrics.faithfulness_correlation import faithfulness_correlation
from captum_pullback.study.metrics.localization import box_share
from captum_pullback.zoo.networks import Network

log = logging.getLogger("temperature")
RESULTS = Path(__file__).with_name("results")
CELLS = 4  # a side
SQUARES = 32
NEIGHBORS = 10
BATCH = 8


SCALES = (0.5, 1.0, 1.5)
HALVES = {"choose": "chosen with", "report": "held back"}
#: What was chosen.
CHOSEN = Spread(1.0, "output")
#: ReLU's step softened to a normal cumulative distribution in place of a logistic one.
NORMAL = {**SEMANTIC, "relu": READINGS["relu"]["normal"], "relu6": READINGS["relu6"]["normal"]}
#: What ReLU6 is read as: held as in `SEMANTIC`, by its derivative, or open above 6.
RULES = {
    ", ReLU6 by its derivative": {**SEMANTIC, "relu6": READINGS["relu6"]["derivative"]},
    ", ReLU6 open above": {**SEMANTIC, "relu6": READINGS["relu6"]["excited"]},
}


def pullbacks(network: Network, args: argparse.Namespace) -> dict[str, Any]:
    """The temperature and rules of each pullback that is scored."""
    capped = any(isinstance(module, torch.nn.ReLU6) for module in network.model.modules())
    found: dict[str, Any] = {f"T = {t:g}": (t, SEMANTIC) for t in (0.0, 0.3, 1.0)}
    if args.stage == "report":
        found["1 output"] = (CHOSEN, SEMANTIC)
        if any(isinstance(module, torch.nn.BatchNorm2d) for module in network.model.modules()):
            found["1 gamma"] = (Gamma(1.0, "output").watch(network.model), SEMANTIC)
    if args.stage == "choose":
        for scale in args.scales:
            for measure in args.measures:
                unit = in_units(scale, measure)
                unit = unit.watch(network.model) if isinstance(unit, Gamma) else unit
                found[f"{scale:g} {measure}"] = (unit, SEMANTIC)
            found[f"{scale:g} mean output, normal"] = (Spread(scale, "output"), NORMAL)
            for name, rules in RULES.items() if capped else ():
                found[f"{scale:g} mean output{name}"] = (Spread(scale, "output"), rules)
    return found


def batches(
    network: Network, files: list[Path], boxes: dict[str, list[Box]]
) -> Iterator[tuple[list[str], Tensor, list[Tensor | None]]]:
    """Yield names, inputs (N, 3, H, W) and pixels in boxes (H, W) of N photographs at a time."""
    for start in range(0, len(files), BATCH):
        part = files[start : start + BATCH]
        pictures, masks = [], []
        for file in part:
            box = boxes.get(f"{file.parent.name}/{file.name}")
            with Image.open(file) as image:
                pictures.append(network.preprocess(image))
                masks.append(inside(network, image, box) if box else None)
        yield [file.name for file in part], torch.stack(pictures), masks


def score(
    network: Network,
    inputs: Tensor,
    masks: list[Tensor | None],
    methods: dict[str, Callable[..., list[Tensor]]],
    *,
    near: bool,
) -> list[dict[str, Any]]:
    """Score each method on each input, in the order of methods and then of inputs."""
    model = network.model
    with torch.no_grad():
        output = model(inputs)
    target = output.argmax(1)
    where = indices(target, output)
    others = [each[:, 0] for each in other_classes(output, where, 0)]
    made = {
        name: [each.detach() for each in attribute(inputs, [target, *others])]
        for name, attribute in methods.items()
    }
    first = [maps[0] for maps in made.values()]
    squares = Perturbed(
        model, inputs, where, None, noise_squares_of(network), samples=SQUARES, at_once=64, seed=0
    )
    infidelity = squares.infidelities(first)
    # Of one cell at a time, which makes it the faithfulness estimate as well.
    correlations = faithfulness_correlation(
        model, inputs, first, target, features=CELLS, multiplies_by_inputs=False
    )
    rows = []
    for number, (name, maps) in enumerate(made.items()):
        cosines = [cosine(maps[0], other) for other in maps[1:]]
        for example in range(len(inputs)):
            row = {
                "method": name,
                "infidelity": float(infidelity[number, example]),
                "correlation": float(correlations[number, example]),
                "runner_up": float(cosines[0][example]),
                "random_class": float(cosines[1][example]),
            }
            mask = masks[example]
            if mask is not None and mask.any():
                row["box_share"] = box_share(maps[0][example], mask)
            for other, given in zip(("runner_up", "random_class"), maps[1:], strict=True):
                row[f"{other}_ranks"] = similarity(maps[0][example], given[example], absolute=False)
            if near:
                row["max_sensitivity"] = sensitivity(
                    network, methods[name], inputs[example], maps[0][example], target[example]
                )
            rows.append(row)
    return rows


def sensitivity(
    network: Network, attribute: Any, given: Tensor, base: Tensor, target: Tensor
) -> float:
    """Captum's max-sensitivity of one method at one input."""
    with seeded(0):
        near = uniform_noise_of(network)(given[None].repeat(NEIGHBORS, 1, 1, 1))

    def explain(inputs: Any, target: int) -> Tensor:
        found: Tensor = attribute(inputs, [torch.full((len(inputs),), target)])[0]
        return found.detach()

    return max_sensitivity(explain, given[None], base[None], near, int(target))


def methods_for(
    network: Network, args: argparse.Namespace
) -> dict[str, Callable[..., list[Tensor]]]:
    """What attributes to inputs (N, C, H, W), for each of several targets (N,)."""
    model = network.model

    def gradient(inputs: Tensor, targets: list[Tensor]) -> list[Tensor]:
        saliency = Saliency(model)
        leaf = inputs.clone().requires_grad_()
        return [saliency.attribute(leaf, target, abs=False) for target in targets]

    def integrated(inputs: Tensor, targets: list[Tensor]) -> list[Tensor]:
        # Derivatives, as all others are: their mean over the path.
        method = IntegratedGradients(model, multiply_by_inputs=False)
        return [
            method.attribute(inputs, target=target, n_steps=50, internal_batch_size=64)
            for target in targets
        ]

    def pullback(width: Any, rules: Any) -> Callable[..., list[Tensor]]:
        method = ExcitationPullback(model, width, rules=rules)
        return lambda inputs, targets: list(method.attribute_targets(inputs, targets))

    found: dict[str, Callable[..., list[Tensor]]] = {"gradient": gradient}
    if args.stage == "report":
        found["Integrated Gradients"] = integrated
    for name, (width, rules) in pullbacks(network, args).items():
        found[name] = pullback(width, rules)
    return found


def photographs(args: argparse.Namespace, network: Network, count: int) -> list[Path]:
    """The first photographs of each class, one class after another, or every n-th of ImageNet's."""
    if len(network.classes) == 1000:
        files = sorted(args.imagenet.glob("*.jpg"))
        return files[:: max(len(files) // count, 1)][:count]
    folders = sorted(path for path in (args.data / "val").iterdir() if path.is_dir())
    each = math.ceil(count / len(folders))
    return [sorted(folder.iterdir())[number] for number in range(each) for folder in folders][
        :count
    ]


def main(argv: list[str] | None = None) -> None:
    """Score what is not in the results yet."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(prog="benchmarks.temperature", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--imagenet", type=Path, required=True)
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--stage", choices=["choose", "report"], required=True)
    parser.add_argument("--count", type=int, default=24, help="photographs for each network")
    parser.add_argument("--only", nargs="+", help="networks")
    parser.add_argument("--measures", nargs="+", choices=ALL, default=ALL)
    parser.add_argument("--scales", nargs="+", type=float, default=SCALES)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    table = args.out / f"temperature_{args.stage}.csv"
    done = pd.read_csv(table) if table.exists() else pd.DataFrame()
    half, file = HALVES[args.stage], args.data / "boxes.csv"
    boxes = read_boxes(file, "val") if file.exists() else {}
    for name, make in on_disk(args.networks)[half].items():
        if (args.only and name not in args.only) or (len(done) and name in set(done.network)):
            continue
        network, begin = make(), time.perf_counter()
        if network.model.training:
            raise ValueError(f"{name} is in training mode: what it returns changes with the batch")
        methods = methods_for(network, args)
        rows = []
        files = photographs(args, network, args.count)
        for names, inputs, masks in batches(network, files, boxes):
            scored = score(network, inputs, masks, methods, near=args.stage == "report")
            for number, row in enumerate(scored):
                photograph = names[number % len(names)]
                rows.append({"half": half, "network": name, "photograph": photograph} | row)
        done = pd.concat([done, pd.DataFrame(rows)])
        done.to_csv(table, index=False, float_format="%.4g")
        log.info("%s: %.0f s", name, time.perf_counter() - begin)
        print(pd.DataFrame(rows).groupby("method", sort=False).mean(numeric_only=True))
    meta = {
        "command": "python -m benchmarks.temperature --data DIR --imagenet DIR --networks DIR "
        f"--stage {args.stage} --count {args.count}",
        "seed": 0,
        "device": device("cpu"),
        "versions": versions(),
    }
    table.with_suffix(".json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
