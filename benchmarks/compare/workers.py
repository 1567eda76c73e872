"""One process or many: who does what under ``torchrun``, and what is said when one is lost."""

from __future__ import annotations

import datetime
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from benchmarks.compare.data import DataError
from benchmarks.compare.store import Store, StoreError, Unit
from captum_pullback.commands.terminal import complain
from captum_pullback.outputs import OutputError
from captum_pullback.zoo.networks import ZooError
from captum_pullback.zoo.photos import PhotoError

KEPT = (
    "Everything that was finished is kept: run the same command again, with as many processes as "
    "you like, and it goes on from there."
)


class RunError(RuntimeError):
    """A run that cannot begin; the message is one line for the user."""


class WorkerError(RuntimeError):
    """Another process of the run was lost; the message says what to do."""


class Workers:
    """The processes of a run.

    Attributes:
        rank: Of this process.
        size: How many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks for all."""
        return self.rank == 0

    def gather(self, value: Any, doing: str) -> list[Any]:
        """What each process gives, to all of them.

        Raises:
            WorkerError: One is lost.
        """
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(gathered, value)
        except RuntimeError as error:
            reason = str(error).split("\n")[0]
            raise WorkerError(
                f"process {self.rank} of {self.size} lost another one ({doing}: {reason}). {KEPT}"
            ) from error
        return gathered

    def wait(self, reached: str) -> None:
        """Until all processes are here."""
        self.gather(None, reached)

    def from_first(self, value: Any) -> Any:
        """What the first process gives, to all of them."""
        return self.gather(value, "sharing settings")[0]

    def total(self, count: int) -> int:
        """The sum over all processes."""
        return sum(self.gather(count, "counting what was done"))

    def finished(self, store: Store) -> set[Unit]:
        """What is done already, as the first process sees it.

        Raises:
            WorkerError: This process has another folder before it, or one is lost.
        """
        if not store.description("settings"):
            raise WorkerError(
                f"this process does not see {store.folder}: it must be a shared folder"
            )
        return set(self.from_first(list(store.done()) if self.first else None))

    def share(self, todo: Sequence[Any], title: str) -> Any:
        """What of the work is this process's, with a bar of progress by the first."""
        return tqdm(todo[self.rank :: self.size], title, unit="photo", disable=not self.first)


@contextmanager
def workers() -> Iterator[Workers]:
    """The processes that ``torchrun`` started, or this one alone."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1 or "RANK" not in os.environ:
        yield Workers()
        return
    # Photographs take unequal times and the first process measures costs alone, so nobody is
    # given up because of time: a process that has died closes its connections, and that is seen.
    dist.init_process_group("gloo", timeout=datetime.timedelta(days=7))
    before = signal.signal(signal.SIGTERM, _stopped)
    try:
        yield Workers(dist.get_rank(), dist.get_world_size())
    finally:
        signal.signal(signal.SIGTERM, before)
        dist.destroy_process_group()


def run_command(run: Callable[[Namespace, Workers], int], args: Namespace, program: str) -> int:
    """Runs a command in all processes, with ``args.threads`` each; returns the exit status."""
    torch.set_num_threads(args.threads)
    try:
        with workers() as here:
            try:
                return run(args, here)
            except (RunError, DataError, ZooError, StoreError, OutputError, PhotoError) as error:
                if here.first:
                    complain(str(error), program=program)
                return 2
    except WorkerError as error:
        complain(str(error), program=program)
        return 3


def local_device(device: str) -> str:
    """``"cuda"`` as this process's own of a machine's devices."""
    if device == "cuda":
        return f"cuda:{int(os.environ.get('LOCAL_RANK', 0))}"
    return device


def _stopped(number: int, frame: FrameType | None) -> None:
    # torchrun ends the others with SIGTERM when one worker dies.
    rank = os.environ.get("RANK", "0")
    print(
        f"benchmarks.compare: process {rank} was told to stop (signal {number}): another worker "
        f"has died, or the run was cancelled. {KEPT}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(128 + number)  # what waits for a lost worker inside gloo cannot be interrupted
