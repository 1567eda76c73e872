"""What a pullback costs in time and memory, beside Captum's gradient methods.

``python -m benchmarks.speed`` measures on the CPU or, with ``--device cuda``, on a GPU. Methods
take turns in one process, in an order that is drawn anew for each round, and each is compared with
Captum's Saliency of the same round: the ratio is the median of these paired ratios, with a 95 %
bootstrap interval. Peak memory is that of a fresh process for each method. Rows are appended to
``benchmarks/results/speed.csv`` as they are measured, and a second run skips what is there:
``--suites`` chooses, ``--again`` measures anew. Then ``python -m benchmarks.numbers``
puts them into ``docs/cost.md``. ``--against REV`` compares the methods with themselves at another
commit instead, in two processes that take turns, and appends to ``speed_against.csv``.

Each row says which instructions of the CPU were in use. ``ATEN_CPU_CAPABILITY=avx2
ONEDNN_MAX_CPU_ISA=AVX2 python -m benchmarks.speed`` measures as on a CPU with fewer.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from datetime import datetime, timezone
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.compare.cost import peak_memory
from benchmarks.compare.cost import seconds as timed
from benchmarks.intervals import resampled
from benchmarks.provenance import instructions, machine, versions, write_json
from benchmarks.speed_against import compare, other_tree
from benchmarks.speed_cases import (
    BEYOND,
    FIXED,
    HARD_POOL,
    INTEGRATED,
    KERNELS,
    KEY,
    LARGE_BATCHES,
    MEMORY,
    SALIENCY,
    SOFT,
    SUITES,
    Case,
)

log = logging.getLogger("speed")

RESULTS = Path(__file__).with_name("results")
_FIELDS = (
    *KEY, "suite", "rounds", "seconds", "ratio", "low", "high", "bytes", "weight_bytes", "share",
    "error", "seed", "torch", "captum", "torchvision", "captum_pullback", "command", "against",
)  # fmt: skip


def paired(
    seconds: Sequence[float], base: Sequence[float], seed: int
) -> tuple[float, float, float]:
    """The median of the ratios of each round, and its 95 % bootstrap interval."""
    ratios = np.array(seconds) / np.array(base)
    low, high = resampled(np.median, ratios, seed=seed, resamples=4000)
    return float(np.median(ratios)), low, high


def measure_time(case: Case, device: str, seed: int) -> list[dict[str, Any]]:
    """One row for each method of the case; ratios are to Saliency, or else the first."""
    model, x = case.network_and_inputs(device, seed)
    calls = case.calls(model, x)
    base = SALIENCY if SALIENCY in calls else next(iter(calls))
    rows: dict[str, dict[str, Any]] = {}
    for name in list(calls):
        try:
            # Fifty passes over what Saliency has warmed up need none of their own.
            for _ in range(0 if name == INTEGRATED else 2 if case.rounds > 3 else 1):
                calls[name]()
        except Exception as error:  # other libraries' limits are results too
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            if name == base:
                return [{"method": method, "error": message} for method in case.methods]
            calls.pop(name)
            rows[name] = {"method": name, "error": message}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order, draw = list(calls), random.Random(seed)
    for _ in range(case.rounds):
        draw.shuffle(order)
        for name in order:
            seconds[name].append(timed(calls[name], torch.device(device)))
    if BEYOND in case.methods and {SOFT, FIXED} <= set(seconds):
        seconds[BEYOND] = list(np.subtract(seconds[SOFT], seconds[FIXED]))
    for name, found in seconds.items():
        ratio, low, high = paired(found, seconds[base], seed)
        rows[name] = {
            "method": name, "seconds": float(np.median(found)), "ratio": ratio, "low": low,
            "high": high,
        }  # fmt: skip
    return [rows[name] for name in case.methods if name in rows]


def measure_memory(case: Case, method: str, device: str, seed: int) -> dict[str, Any]:
    """Bytes that the call takes at its peak, beyond what the process held before."""
    model, x = case.network_and_inputs(device, seed)
    weights = sum(
        part.numel() * part.element_size() for part in (*model.parameters(), *model.buffers())
    )
    # What is loaded or started with the first call is no part of it.
    # (Vision transformers take pictures of one size alone.)
    first = x[:1] if case.network.startswith("vit") else x[:1, :, :64, :64].contiguous()
    case.calls(model, first)[method]()
    call = case.calls(model, x)[method]
    if device == "cuda":
        taken = peak_memory(call, torch.device(device))
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _status("VmRSS")
        call()
        taken = _status("VmHWM") - before
    return {"method": method, "bytes": taken, "weight_bytes": weights}


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def measure_kernels(case: Case, device: str, seed: int) -> list[dict[str, Any]]:
    """The share of each method's time that is spent inside PyTorch's own operations."""
    model, x = case.network_and_inputs(device, seed)
    rows = []
    for name, call in case.calls(model, x).items():
        call()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            call()
        events = profiler.key_averages()
        whole = sum(event.self_cpu_time_total for event in events)
        inside = sum(e.self_cpu_time_total for e in events if e.key.startswith("aten::"))
        rows.append({"method": name, "share": inside / whole})
    return rows


class Table:
    """The rows that were measured, in a file that grows."""

    def __init__(self, path: Path, common: dict[str, Any], again: bool) -> None:
        self.path, self.common = path, common
        rows = pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else None
        # A file from before there were columns for all of it gets them.
        rows = pd.DataFrame(rows).reindex(columns=list(_FIELDS), fill_value="")
        rows.to_csv(path, index=False)
        known = rows[list(KEY)].itertuples(index=False, name=None)
        self.known = set() if again else set(known)

    def lacks(self, kind: str, case: Case, method: str) -> bool:
        """Whether this was not measured yet."""
        row = self._row(kind, case, {"method": method})
        return tuple(str(row[key]) for key in KEY) not in self.known

    def add(self, kind: str, case: Case, found: dict[str, Any], suite: str) -> None:
        """Write one row, at once."""
        row = self._row(kind, case, found) | {"suite": suite}
        self.known.add(tuple(str(row[key]) for key in KEY))
        short = {key: _short(value) for key, value in row.items()}
        line = pd.DataFrame([short], columns=list(_FIELDS))
        line.to_csv(self.path, mode="a", header=False, index=False)
        log.info("%s %s", kind, {key: short[key] for key in ("network", "batch", *found)})

    def _row(self, kind: str, case: Case, found: dict[str, Any]) -> dict[str, Any]:
        return {"kind": kind} | asdict(case) | self.common | found


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def circumstances(args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """On what, with what and when this was measured."""
    return {
        "command": args.command,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "minutes": round(seconds / 60, 1),
        "load_before": args.load,
        "load_after": os.getloadavg(),
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        **machine(),
        **versions(),
    }


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed", description=__doc__)
    names = (*SUITES, "memory", "kernels")
    usual = [name for name in names if name != LARGE_BATCHES]
    parser.add_argument("--suites", nargs="+", choices=names, default=usual)
    parser.add_argument("--networks", nargs="+", help="these networks only")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch, on the CPU")
    parser.add_argument("--rounds", type=int, help="instead of each case's own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="measure what is there, too")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed.csv")
    parser.add_argument("--against", metavar="REV", help="compare with this commit instead")
    args = parser.parse_args(argv)
    given = sys.argv[1:] if argv is None else argv
    args.command = " ".join(("python -m benchmarks.speed", *given))
    args.load = os.getloadavg()
    return args


def main(argv: list[str] | None = None) -> None:
    """Measures what is not measured yet."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    warnings.filterwarnings("ignore", module="captum")
    args = parse(argv)
    torch.set_num_threads(args.threads)
    common = {
        "device": args.device, "threads": args.threads, "seed": args.seed,
        "command": args.command, "instructions": instructions(), **versions(),
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.against:
        compare_commits(args, common)
        return
    table, start = Table(args.out, common, args.again), time.perf_counter()
    for suite, case in chosen(args):
        measure(table, suite, case, args)
    file = args.out.with_suffix(".json")
    runs = json.loads(file.read_text()) if file.exists() else []
    write_json(file, [*runs, circumstances(args, time.perf_counter() - start)])


def chosen(args: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """The cases that were asked for, each with its suite."""
    for suite in args.suites:
        for case in (SUITES | {"memory": MEMORY, "kernels": KERNELS})[suite]:
            if not args.networks or case.network in args.networks:
                yield suite, replace(case, rounds=args.rounds or case.rounds)


def compare_commits(args: argparse.Namespace, common: dict[str, Any]) -> None:
    """Each method of ours in each chosen case, beside itself at another commit."""
    path = args.out.with_name(f"{args.out.stem}_against.csv")
    with other_tree(args.against) as (tree, commit):
        table = Table(path, common | {"against": commit}, again=True)
        for suite, case in chosen(args):
            ours = {SOFT, HARD_POOL} if suite in SUITES else ()
            for method in (name for name in case.methods if name in ours):
                here, there = compare(tree, case, method, vars(args))
                ratio, low, high = paired(here, there, args.seed)
                found = {"method": method, "seconds": float(np.median(here)), "ratio": ratio}
                table.add("against", case, found | {"low": low, "high": high}, suite)


def measure(table: Table, suite: str, case: Case, args: argparse.Namespace) -> None:
    """One case of a suite, unless it is in the table."""
    kind = suite if suite in ("memory", "kernels") else "time"
    lacking = [method for method in case.methods if table.lacks(kind, case, method)]
    if kind == "memory":
        for method in lacking:
            table.add(kind, case, _in_fresh_process(case, method, args), suite)
    elif lacking:
        take = measure_time if kind == "time" else measure_kernels
        for found in take(case, args.device, args.seed):
            if found["method"] in lacking:
                table.add(kind, case, found, suite)
    torch.compiler.reset()


def _in_fresh_process(case: Case, method: str, args: argparse.Namespace) -> dict[str, Any]:
    # glibc is to give back at once what is freed, or one would see what it hoards and not what is
    # in use: how much that is depends on what a process did before.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    with ProcessPoolExecutor(
        1, get_context("spawn"), initializer=torch.set_num_threads, initargs=(args.threads,)
    ) as fresh:
        return fresh.submit(measure_memory, case, method, args.device, args.seed).result()


if __name__ == "__main__":
    main()
