"""Work in threads of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def at_once(*jobs: Callable[[], object]) -> None:
    """Run each in a thread, and wait for all."""
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_a_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, run in a thread of its own."""

    def run(*given: Any) -> Any:
        output: list[Any] = []
        at_once(lambda: output.append(function(*given)))
        return output[0]

    return run
