"""Work that takes a while: in a thread of its own, with a bar to watch, and to be stopped.

A job that is begun in a lane stops the one before it there: who moves a slider wants the last
answer. Lanes have the names of sessions in them, so that nobody stops another's job.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor, nn

from captum_pullback.engine.observer import Observer

__all__ = ["Cancelled", "Job", "Jobs", "Ticket", "Watch", "random_numbers"]

Result = TypeVar("Result")
_RANDOM = threading.Lock()


class Cancelled(Exception):  # noqa: N818  # no error: somebody wanted it
    """The job was stopped."""


class Job(Generic[Result]):
    """What runs in a thread, and how far it is.

    Args:
        work: what is to be done; it is given the job, to report to.
    """

    def __init__(self, work: Callable[[Job[Result]], Result]) -> None:
        self._work = work
        self._stopped, self._done = threading.Event(), threading.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._label, self._total, self._count = "", 1.0, 0.0

    def start(self) -> None:
        """Begins."""
        threading.Thread(target=self._run, daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Waits so long at the most; whether it is done."""
        return self._done.wait(seconds)

    def stop(self) -> None:
        """Makes the work raise `Cancelled` at its next `check`."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped it, be it that the work has not noticed yet."""
        return self._stopped.is_set()

    def result(self) -> Result:
        """What came out, or the error that was raised.

        Raises:
            Cancelled: it was stopped, be it that the work had no time to notice.
        """
        self._done.wait()
        self.check()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def check(self) -> None:
        """Raises `Cancelled` if the job was stopped; for the work to call."""
        if self.stopped:
            raise Cancelled

    def begin(self, label: str, total: float) -> None:
        """Says what is done now, and how many examples that are to go through the network."""
        self._label, self._total, self._count = label, max(total, 1.0), 0.0

    def advance(self, examples: float) -> None:
        """Says that so many have."""
        self._count += examples

    @property
    def progress(self) -> tuple[float, str]:
        """The share that is done, in [0, 1], and what it is a share of."""
        return min(self._count / self._total, 1.0), self._label

    def _run(self) -> None:
        try:
            self.check()
            self._result = self._work(self)
        except BaseException as error:  # it is raised again where the result is asked for
            self._error = error
        finally:
            self._done.set()


class Ticket(NamedTuple):
    """The right to start jobs in a lane, until somebody comes after."""

    session: str
    lane: str
    number: int


class Jobs:
    """The last ticket and the last job of each lane."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tickets: dict[tuple[str, str], Ticket] = {}
        self._jobs: dict[tuple[str, str], Job[Any]] = {}
        self._count = itertools.count()

    def enter(self, session: str, lane: str) -> Ticket:
        """Takes over a lane, and stops the job of whoever had it."""
        key = (session, lane)
        with self._lock:
            ticket = self._tickets[key] = Ticket(session, lane, next(self._count))
            before = self._jobs.pop(key, None)
        if before is not None:
            before.stop()
        return ticket

    def start(self, ticket: Ticket, work: Callable[[Job[Result]], Result]) -> Job[Result]:
        """Starts a job; one that is stopped already, where the ticket is no longer the last."""
        job, key = Job(work), ticket[:2]
        with self._lock:
            valid = self._tickets.get(key) == ticket
            if valid:
                self._jobs[key] = job
        if not valid:
            job.stop()
        job.start()
        return job

    def valid(self, ticket: Ticket) -> bool:
        """Whether nobody has taken over its lane, and nobody has stopped it."""
        with self._lock:
            return self._tickets.get(ticket[:2]) == ticket

    def stop(self, session: str) -> None:
        """Stops all the jobs of a session, and forgets it."""
        with self._lock:
            mine = [key for key in self._tickets if key[0] == session]
            jobs = [self._jobs.pop(key, None) for key in mine]
            for key in mine:
                del self._tickets[key]
        for job in jobs:
            if job is not None:
                job.stop()


class Watch(Observer):
    """Sees a network's operations, so that a job counts examples and may stop between any two.

    An example has gone through when the first of the network's parameters has met it. Modes belong
    to a thread: nobody else's operations are seen.
    """

    def __init__(self, model: nn.Module, job: Job[Any]) -> None:
        super().__init__()
        self._first = next(model.parameters(), None)
        self._job = job
        self._raised = False

    def observe(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Stop if that is wanted, and count."""
        if not self._raised:  # once: what cleans up after it uses torch too
            try:
                self._job.check()
            except Cancelled:
                self._raised = True
                raise
        if len(args) > 1 and args[1] is self._first and isinstance(args[0], Tensor):
            self._job.advance(len(args[0]))


@contextmanager
def random_numbers(job: Job[Any]) -> Iterator[None]:
    """Whoever draws from torch's generators, which all threads share, is alone while doing so.

    Raises:
        Cancelled: the job was stopped while waiting for its turn.
    """
    while not _RANDOM.acquire(timeout=0.05):
        job.check()
    try:
        yield
    finally:
        _RANDOM.release()
