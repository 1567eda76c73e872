"""Work that takes a while: it runs in a thread, shows its progress, and can be stopped.

A job that starts in a lane stops the job before it in that lane: whoever moves a slider wants the
last answer only. Each session has lanes of its own, so visitors cannot stop each other's jobs.
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


class Cancelled(Exception):  # noqa: N818  # not an error: the user asked to stop
    """The job was stopped."""


class Job(Generic[Result]):
    """Work that runs in a thread, and its progress.

    Args:
        work: A function that does the work; it reports its progress to the job that it is given.
    """

    def __init__(self, work: Callable[[Job[Result]], Result]) -> None:
        self._work = work
        self._stopped, self._done = threading.Event(), threading.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._label, self._total, self._count = "", 1.0, 0.0

    def start(self) -> None:
        """Start."""
        threading.Thread(target=self._run, daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait at most this many seconds, and return whether the job is done."""
        return self._done.wait(seconds)

    def stop(self) -> None:
        """Make the work raise `Cancelled` at its next `check`."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop, even if the work has not noticed yet."""
        return self._stopped.is_set()

    def result(self) -> Result:
        """Return the result, or raise the work's error.

        Raises:
            Cancelled: It was stopped, even if the work had no time to notice.
        """
        self._done.wait()
        self.check()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def check(self) -> None:
        """Raise `Cancelled` if the job was stopped; the work calls this."""
        if self.stopped:
            raise Cancelled

    def begin(self, label: str, total: float) -> None:
        """Report what is being done now, and how many examples the network will process for it."""
        self._label, self._total, self._count = label, max(total, 1.0), 0.0

    def advance(self, examples: float) -> None:
        """Report that the network has processed so many more examples."""
        self._count += examples

    @property
    def progress(self) -> tuple[float, str]:
        """Return the fraction done, in [0, 1], and what is being done."""
        return min(self._count / self._total, 1.0), self._label

    def _run(self) -> None:
        try:
            self.check()
            self._result = self._work(self)
        except BaseException as error:  # `result` raises it again
            self._error = error
        finally:
            self._done.set()


class Ticket(NamedTuple):
    """The right to start jobs in a lane, until somebody else enters it."""

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
        """Take over a lane, and stop the job in it."""
        key = (session, lane)
        with self._lock:
            ticket = self._tickets[key] = Ticket(session, lane, next(self._count))
            before = self._jobs.pop(key, None)
        if before is not None:
            before.stop()
        return ticket

    def start(self, ticket: Ticket, work: Callable[[Job[Result]], Result]) -> Job[Result]:
        """Start a job; it is stopped from the start if the ticket is no longer the last."""
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
        """Return whether nobody has taken over the ticket's lane or stopped it."""
        with self._lock:
            return self._tickets.get(ticket[:2]) == ticket

    def stop(self, session: str) -> None:
        """Stop all jobs of a session, and forget the session."""
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

    An example counts as processed when the first of the network's parameters meets it. A mode
    belongs to one thread: operations of other threads are not seen.
    """

    def __init__(self, model: nn.Module, job: Job[Any]) -> None:
        super().__init__()
        self._first = next(model.parameters(), None)
        self._job = job
        self._raised = False

    def observe(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Stop if asked to, and count."""
        if not self._raised:  # once only: the cleanup after it uses torch, too
            try:
                self._job.check()
            except Cancelled:
                self._raised = True
                raise
        if len(args) > 1 and args[1] is self._first and isinstance(args[0], Tensor):
            self._job.advance(len(args[0]))


@contextmanager
def random_numbers(job: Job[Any]) -> Iterator[None]:
    """Keep other threads from drawing random numbers: torch's generators are shared by all threads.

    Raises:
        Cancelled: The job was stopped while waiting for its turn.
    """
    while not _RANDOM.acquire(timeout=0.05):
        job.check()
    try:
        yield
    finally:
        _RANDOM.release()
