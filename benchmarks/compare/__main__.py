"""Compares attribution methods: ``python -m benchmarks.compare --on DIR NETWORK --out FILE``.

Scores every method by every metric for every network on the same photographs, writes one tidy
table, and reports on it. Killed at any moment, the same command goes on where it was. Under
``torchrun --nproc-per-node N -m benchmarks.compare ...`` photographs are shared among processes.
What a network cannot do is skipped, and the table says why.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.compare import report, run, table
from benchmarks.compare.methods import METHODS, find
from benchmarks.compare.metrics import METRICS
from benchmarks.compare.photographs import DataSet, Settings
from benchmarks.compare.scoring import Plan
from benchmarks.compare.store import Store
from benchmarks.compare.workers import RunError, Workers, local_device, run_command
from benchmarks.provenance import device as device_in_words
from benchmarks.provenance import versions
from captum_pullback.commands.arguments import positive_count

PROGRAM = "benchmarks.compare"
PATHS = ("boxes", "out")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    return run_command(_run, parser().parse_args(argv), PROGRAM)


def _run(args: argparse.Namespace, here: Workers) -> int:
    settings = _settings(args)
    out = run.check(settings, args.out)
    found = run.load(settings, local_device(args.device))
    store = Store(args.work or out.with_name(out.name + ".work"))
    if not here.first:
        run.measure(settings, found, store, here)
        return 0
    with store.locked():
        store.describe("settings", run.description(settings, found, versions()))
        prepared = run.measure(settings, found, store, here)
        done = store.done()
        expected = run.expected(settings, found)
        units = [unit for unit in expected if unit in done]
        written = table.write(out, run.rows(units, done, prepared), _provenance(args))
    missing = len({name for _, name in expected} - {name for _, name in units})
    plural = "s" if missing > 1 else ""
    without = f", without {missing} photograph{plural} that cannot be read" if missing else ""
    print(f"wrote {written} scores to {args.out}{without}")
    for name, about in prepared.items():
        for method, why in about["skipped"].items():
            print(f"{name}: without {method}: {why}")
    if args.report is not None:
        report.write(table.read(out), args.report)
        print(f"wrote tables and a figure to {args.report}")
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    for name in args.metrics:
        if name not in METRICS:
            raise RunError(f"no metric is called {name!r}; there are {', '.join(METRICS)}")
    for name in (*args.methods, *(n for n in args.without if n not in METRICS)):
        try:
            find(name)
        except KeyError:
            known = ", ".join(METHODS)
            raise RunError(f"no method is called {name!r}; there are {known}") from None
    counts = [_each(args, key) for key in ("images", "repeated", "mosaics", "averaged")]
    sets = [
        DataSet(where, tuple(names), images, *(min(count, images) for count in fewer))
        for (where, *names), images, *fewer in zip(args.on, *counts, strict=True)
    ]
    if not all(chosen.networks for chosen in sets):
        raise RunError("--on takes photographs and then networks: --on DIR NETWORK [NETWORK ...]")
    plan = Plan(
        methods=[name for name in dict.fromkeys(args.methods) if name not in args.without],
        metrics=[name for name in args.metrics if name not in args.without],
        seed=args.seed,
        samples=args.samples,
        neighbors=args.neighbors,
    )
    return Settings(
        sets=tuple(sets),
        boxes=args.boxes,
        predicted=args.target == "predicted",
        cost_batch=args.cost_batch,
        cost_rounds=args.cost_rounds,
        device=args.device,
        threads=args.threads,
        plan=plan,
    )


def _each(args: argparse.Namespace, key: str) -> list[int]:
    """A count for each data set, from one for all or from as many."""
    given: list[int] = getattr(args, key)
    if len(given) not in (1, len(args.on)):
        raise RunError(f"--{key} takes one number, or one for each --on, not {len(given)}")
    return given * len(args.on) if len(given) == 1 else given


def _provenance(args: argparse.Namespace) -> dict[str, str]:
    own = {key: value for key, value in versions().items() if key in table.PROVENANCE}
    return {**own, "device": device_in_words(local_device(args.device)), "command": command(args)}


def command(args: argparse.Namespace) -> str:
    """The command that measures this again, without this machine's folders and defaults."""
    words = ["python -m benchmarks.compare"]
    words += [" ".join(["--on", _named(where), *names]) for where, *names in args.on]
    for key, value in vars(args).items():
        if key in ("on", "work", "report") or value == parser().get_default(key):
            continue
        values = value if isinstance(value, list) else [value]
        shown = [_named(str(v)) if key in PATHS else str(v) for v in values]
        words.append(f"--{key.replace('_', '-')} {' '.join(shown)}")
    return " ".join(words)


def _named(path: str) -> str:
    return f"{Path(path).parent.name or 'DIR'}/{Path(path).name}"


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--on",
        nargs="+",
        action="append",
        required=True,
        metavar=("DATA", "NETWORK"),
        help="photographs (a folder of class folders; one with classes.csv; imagenet:DIR, "
        "imagenette:DIR, cifar10:DIR) and networks that are shown them (reference, torchvision's "
        "names, package.module:function); may be given again",
    )
    add("--boxes", help="CSV file of the objects' boxes; photographs without are put into mosaics")
    add("--out", type=Path, required=True, help="the table: .parquet, .csv or .csv.gz")
    add("--work", type=Path, help="folder for what is finished (default: OUT.work)")
    add("--report", type=Path, help="folder for tables and the figure")
    add("--methods", nargs="+", default=list(METHODS), metavar="METHOD")
    add("--metrics", nargs="+", default=list(METRICS), metavar="METRIC")
    add("--without", nargs="+", default=[], metavar="NAME", help="methods and metrics to leave out")
    for count, default, text in (
        ("--images", 200, "photographs, for all --on or for each"),
        ("--repeated", 60, "of these, for metrics that run a method again"),
        ("--mosaics", 60, "of these, in mosaics"),
        ("--averaged", 200, "of these, for methods that average over noise"),
    ):
        add(count, nargs="+", type=positive_count, default=[default], help=text)
    add("--seed", type=int, default=0)
    add("--samples", type=positive_count, default=32, help="perturbed copies for infidelity")
    add("--neighbors", type=positive_count, default=3, help="perturbed copies for max-sensitivity")
    add("--target", choices=("label", "predicted"), default="label")
    add("--cost-batch", type=positive_count, default=4, help="photographs in a batch that is timed")
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
