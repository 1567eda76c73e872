"""What a method costs: wall time and peak memory, beside the plain gradient's in the same run."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], Tensor]


def seconds(call: Call, device: torch.device) -> float:
    """Wall time of one call."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def time_ratio(call: Call, plain: Call, device: torch.device) -> tuple[float, float]:
    """How many times as long as the plain gradient a call takes, and the seconds it takes.

    Calls alternate with the plain gradient's, once for slow calls and up to five times for quick
    ones. Of the ratios of neighbors the median counts, so that a busy machine slows both.
    """
    own: list[float] = []
    ratios: list[float] = []
    while len(own) < 5 and sum(own) < 0.5:
        before = seconds(plain, device)
        own.append(seconds(call, device))
        ratios.append(own[-1] * 2 / (before + seconds(plain, device)))
    return median(ratios), median(own)


def peak_memory(call: Call, device: torch.device) -> int:
    """The most bytes that are allocated at once by a call, beyond what was there before it."""
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    # The allocator of the CPU has no counter of its peak, but tells the profiler what it does.
    with (
        _silenced(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen,
    ):
        call()
    kineto = seen.profiler.kineto_results
    steps = [event for event in kineto.events() if event.name() == "[memory]"]
    held = most = 0
    for step in sorted(steps, key=lambda event: event.start_ns()):
        held += step.nbytes()
        most = max(most, held)
    return most


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _silenced() -> Iterator[None]:
    """Without what the profiler's C++ code prints to stderr at every start and stop."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
