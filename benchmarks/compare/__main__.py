"""Compares attribution methods: ``python -m benchmarks.compare --data DIR --out FILE``.

Scores every method by every metric for every network on the same photographs, writes one tidy
table, and reports on it. Killed at any moment, the same command goes on where it was. Under
``torchrun --nproc-per-node N -m benchmarks.compare ...`` photographs are shared among processes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.compare import report, run, table
from benchmarks.compare.data import DataError
from benchmarks.compare.methods import AT, METHODS, find
from benchmarks.compare.metrics import METRICS
from benchmarks.compare.run import RunError, Settings, Sources
from benchmarks.compare.scoring import Plan
from benchmarks.compare.store import Store, StoreError
from benchmarks.compare.workers import WorkerError, Workers, local_device, workers
from benchmarks.provenance import device as device_in_words
from benchmarks.provenance import versions
from captum_pullback.commands.arguments import positive_count
from captum_pullback.commands.terminal import complain
from captum_pullback.outputs import OutputError
from captum_pullback.zoo.networks import ZooError

PROGRAM = "benchmarks.compare"
NO_BN = "benchmarks.networks:without_batch_norm"
SWEEP = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 4.0, 8.0)
PATHS = ("data", "boxes", "fit_data", "out", "work", "report")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    args = parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        with workers(args.device) as here:
            try:
                return _run(args, here)
            except (RunError, DataError, ZooError, StoreError, OutputError) as error:
                if here.first:
                    complain(str(error), program=PROGRAM)
                return 2
    except WorkerError as error:
        complain(str(error), program=PROGRAM)
        return 3


def _run(args: argparse.Namespace, here: Workers) -> int:
    settings = _settings(args)
    out = run.check(settings, args.out)
    sources = Sources(settings)
    networks = run.load_networks(settings, local_device(args.device))
    store = Store(args.work or out.with_name(out.name + ".work"))
    if not here.first:
        run.measure(settings, sources, networks, store, here)
        return 0
    with store.locked():
        store.describe("settings", run.description(settings, sources, versions()))
        prepared = run.measure(settings, sources, networks, store, here)
        done = store.done()
        expected = run.expected(settings, sources, list(networks))
        units = [unit for unit in expected if unit in done]
        written = table.write(out, run.rows(units, store, prepared), _provenance(args))
    missing = len({name for _, name in expected} - {name for _, name in units})
    plural = "s" if missing > 1 else ""
    without = f", without {missing} photograph{plural} that cannot be read" if missing else ""
    print(f"wrote {written} scores to {args.out}{without}")
    if args.report is not None:
        report.write(table.read(out), args.report)
        print(f"wrote tables and figures to {args.report}")
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    named = [name for name in args.methods if name not in args.without]
    sweep = [f"{AT}{temperature:g}" for temperature in args.sweep]
    for name in (*named, *(n for n in args.without if n not in METRICS)):
        try:
            find(name)
        except (KeyError, ValueError):
            raise RunError(
                f"no method is called {name!r}; there are {', '.join(METHODS)}"
            ) from None
    plan = Plan(
        methods=list(dict.fromkeys([*named, *sweep])),
        metrics=[name for name in args.metrics if name not in args.without],
        seeds=list(range(args.seeds)),
        samples=args.samples,
        neighbours=args.neighbours,
        all_seeds=args.all_seeds,
        stages=[],
    )
    return Settings(
        networks=tuple(args.networks),
        data=args.data,
        boxes=args.boxes,
        fit_data=args.fit_data,
        images=args.images,
        repeated=min(args.repeated_images, args.images),
        fit_images=args.fit_images,
        predicted=args.target == "predicted",
        cost_batch=args.cost_batch,
        cost_rounds=args.cost_rounds,
        stages=args.stages,
        device=args.device,
        threads=args.threads,
        plan=plan,
    )


def _provenance(args: argparse.Namespace) -> dict[str, str]:
    own = {key: value for key, value in versions().items() if key in table.PROVENANCE}
    return {
        **own,
        "device": device_in_words(local_device(args.device)),
        "data": _named(args.data),
        "command": command(args),
    }


def command(args: argparse.Namespace) -> str:
    """The command that measures this again, without this machine's folders."""
    words = ["python -m benchmarks.compare"]
    for key, value in vars(args).items():
        if value is None or value is False or key in ("work", "report"):
            continue
        values = value if isinstance(value, list | tuple) else [value]
        shown = [_named(str(v)) if key in PATHS else f"{v:g}" if isinstance(v, float) else str(v)
                 for v in values]  # fmt: skip
        if value is True or shown:
            words.append(f"--{key.replace('_', '-')} {'' if value is True else ' '.join(shown)}")
    return " ".join(word.strip() for word in words)


def _named(path: str) -> str:
    return f"{Path(path).parent.name or 'DIR'}/{Path(path).name}"


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data",
        required=True,
        help="folder of class folders; or imagenet:DIR, imagenette:DIR, cifar10:DIR",
    )
    add("--boxes", help="CSV file of the objects' boxes")
    add("--out", type=Path, required=True, help="the table: .parquet, .csv or .csv.gz")
    add("--work", type=Path, help="folder for what is finished (default: OUT.work)")
    add("--report", type=Path, help="folder for tables and figures")
    add(
        "--networks",
        nargs="+",
        default=["reference", NO_BN],
        help="reference, torchvision's names, package.module:function",
    )
    add("--methods", nargs="+", default=list(METHODS), metavar="METHOD")
    add("--metrics", nargs="+", default=list(METRICS), metavar="METRIC")
    add("--without", nargs="+", default=[], metavar="NAME", help="methods and metrics to leave out")
    add("--sweep", nargs="*", type=float, default=SWEEP, metavar="T", help="temperatures to show")
    add("--images", type=positive_count, default=300)
    add(
        "--repeated-images",
        type=positive_count,
        default=100,
        help="for metrics that repeat methods",
    )
    add("--seeds", type=positive_count, default=3)
    add(
        "--all-seeds",
        action="store_true",
        help="for metrics that repeat methods too, which otherwise take each photograph under one "
        "of the seeds, in turn",
    )
    add("--samples", type=positive_count, default=16, help="perturbed copies for infidelity")
    add("--neighbours", type=positive_count, default=3, help="perturbed copies for max-sensitivity")
    add("--stages", type=positive_count, default=4, help="steps of the cascading randomisation")
    add("--fit-images", type=positive_count, default=64, help="photographs for fit_temperature")
    add("--fit-data", help="where from (default: those of --data that are not scored)")
    add("--target", choices=("label", "predicted"), default="label")
    add(
        "--cost-batch",
        type=positive_count,
        default=8,
        help="photographs in each batch that is timed",
    )
    add("--cost-rounds", type=positive_count, default=3)
    add("--device", default="cpu", help="cpu or cuda")
    add(
        "--threads",
        type=positive_count,
        default=1,
        help="of each process; they decide the last digits",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
