"""Measures the ascent: do scores rise, do predictions change, and who recognizes what was drawn?

``python -m benchmarks.ascent --data DIR`` takes validation photographs (``DIR/val/<class>/*``, with
the folders that the embedded network was trained on) and for each a random class that is neither
its own nor predicted. Five relative steps are taken towards it, at several temperatures; 0 is the
plain gradient. Then the perturbation alone, on gray, is shown to the network itself and to one
that never saw it being made: the twin without BatchNorm, trained by itself.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.intervals import of_ratio
from benchmarks.networks import without_batch_norm
from benchmarks.pictures import listed
from benchmarks.provenance import command, device, versions, write_json
from captum_pullback import PullbackAscent
from captum_pullback.study.softness import read_temperature
from captum_pullback.zoo.network import pixel_bounds
from captum_pullback.zoo.networks import Network, reference_network
from captum_pullback.zoo.photos import read_photo

log = logging.getLogger("ascent")

RESULTS = Path(__file__).with_name("results") / "ascent.json"
#: As on the command line; the first leaves gates as they are, for comparison.
TEMPERATURES = ("0", "0.3", "0.5", "0.7", "1", "1.5", "2", "1 output")
WANTED = {"raised": 0.99, "became_target": 0.90, "times_plain": 2.0}


def main(argv: list[str] | None = None) -> None:
    """Measures, and writes the results."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    start = time.perf_counter()
    drawn, other = reference_network(args.device), without_batch_norm()
    other.model.to(args.device)
    files, labels, _ = listed(args.data / "val", drawn.meta["folders"])
    inputs = torch.stack([drawn.preprocess(read_photo(file)) for file in files])
    rows = []
    for seed in range(args.seeds):
        chosen, targets = choose(drawn, inputs, labels, args.photos, seed, args.device)
        for bounded in (False, True):
            for temperature in args.temperatures:
                row = {"seed": seed, "bounded": bounded, "temperature": temperature}
                row |= measure(
                    drawn, other, inputs[chosen].to(args.device), targets, temperature, bounded
                )
                log.info(row)
                rows.append(row)
    result = {
        "command": command("benchmarks.ascent", args, data="DIR", out=None),
        "device": device(args.device),
        "versions": versions(),
        "seeds": list(range(args.seeds)),
        "photographs_per_seed": args.photos,
        "classes": len(drawn.classes),
        "steps": 5,
        "relative_step": 0.1,
        "relative_radius": 0.5,
        "networks": {"ascends": identity(drawn), "looks": identity(other)},
        "wanted": WANTED,
        "summary": summary(rows, args.photos),
        "rows": rows,
        "seconds": round(time.perf_counter() - start),
    }
    write_json(args.out, result)
    shown = pd.DataFrame(result["summary"]).drop(columns="met")
    log.info("wrote %s\n%s", args.out, shown.to_string(index=False))


def choose(
    network: Network, inputs: Tensor, labels: Tensor, count: int, seed: int, device: str
) -> tuple[Tensor, Tensor]:
    """So many photographs at random, and a target for each, neither its own class nor predicted."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(inputs), generator=generator)[:count]
    predicted = predict(network.model, inputs[chosen].to(device))
    free = torch.ones(count, len(network.classes))
    free.scatter_(1, labels[chosen].unsqueeze(1), 0).scatter_(1, predicted.unsqueeze(1), 0)
    return chosen, torch.multinomial(free, 1, generator=generator)[:, 0]


def measure(
    drawn: Network, other: Network, inputs: Tensor, targets: Tensor, temperature: str, bounded: bool
) -> dict[str, float]:
    """Shares of the photographs, in [0, 1], and the mean rise of the target's score.

    ``named_by_...`` is of the perturbation alone, on gray; ``stretched_...`` of the same at the
    length that five steps in one direction would have; ``perturbed_...`` of the whole picture.
    """
    mean, std = (torch.tensor(v).view(3, 1, 1).to(inputs) for v in (drawn.mean, drawn.std))
    bounds = pixel_bounds(drawn) if bounded else None
    ascent = PullbackAscent(
        drawn.model, read_temperature(temperature), relative=True, bounds=bounds
    )
    first, last, points = [], [], []
    parts = list(zip(torch.split(inputs, 20), torch.split(targets, 20), strict=True))
    for part, target in tqdm(parts, f"T = {temperature}", leave=False, mininterval=5):
        trace = ascent.trace(part, target.to(part.device))
        first.append(trace[0].score.cpu())
        last.append(trace[-1].score.cpu())
        points.append(trace[-1].inputs)
    reached = torch.cat(points)
    perturbation = reached - inputs
    # Plain steps partly undo each other and end nearer by; this takes that difference away.
    norm, length = (v.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for v in (inputs, perturbation))
    stretched = perturbation * (0.5 * norm / length)

    def on_grey(change: Tensor) -> Tensor:
        # As a picture: what leaves black or white is clipped, as on any screen.
        return ((0.5 + change * std).clamp(0, 1) - mean) / std

    alone = on_grey(perturbation)
    rise = torch.cat(last) - torch.cat(first)

    def share(which: Tensor) -> float:
        return round(float(which.float().mean()), 4)

    return {
        "raised": share(rise > 0),
        "mean_rise": round(float(rise.mean()), 3),
        "became_target": share(predict(drawn.model, reached) == targets),
        "named_by_itself": share(predict(drawn.model, alone) == targets),
        "named_by_other": share(predict(other.model, alone) == targets),
        "stretched_named_by_other": share(predict(other.model, on_grey(stretched)) == targets),
        "perturbed_named_by_other": share(predict(other.model, reached) == targets),
    }


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """The class of each, on the CPU."""
    return torch.cat([model(part).argmax(dim=1).cpu() for part in torch.split(inputs, 100)])


def summary(rows: list[dict[str, Any]], photographs: int) -> list[dict[str, Any]]:
    """Means over the seeds, and how many times as often as after plain steps the other names it."""
    frame = pd.DataFrame(rows)
    shown = photographs * frame["seed"].nunique()
    groups = frame.drop(columns="seed").groupby(["bounded", "temperature"], sort=False)
    means = groups.mean().round(4).to_dict("index")
    result = []
    for (bounded, temperature), mean in means.items():
        plain = means.get((bounded, TEMPERATURES[0]), {})

        def times(key: str, own: Any = mean, plain: Any = plain) -> Any:
            """How many times as often as after plain steps, and the interval; None where never."""
            found = of_ratio(own[key], plain.get(key, 0.0), shown)
            ratio, *ends = (None, None) if found is None else [round(value, 2) for value in found]
            return ratio, ends if ratio else None

        row = {"bounded": bool(bounded), "temperature": temperature, "photographs": shown, **mean}
        row["times_plain"], row["times_plain_95"] = times("named_by_other")
        row["times_plain_stretched"], _ = times("stretched_named_by_other")
        met = {name: row[name] is not None and row[name] >= least for name, least in WANTED.items()}
        result.append({**row, "met": met})
    return result


def identity(network: Network) -> dict[str, Any]:
    """What tells one set of weights from another."""
    return {"name": network.name, **{k: network.meta.get(k) for k in ("accuracy", "seed")}}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.ascent", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with val/")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--photos", type=int, default=120, help="for each seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--temperatures", nargs="+", default=TEMPERATURES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="PyTorch's, where others need the cores too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
