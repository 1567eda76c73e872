"""A method beside itself at another commit: two processes that take turns.

``python -m benchmarks.speed_against TREE WORK`` is one of them: it imports the package from the
tree, and times one call for each line that it is sent.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

__all__ = ["compare", "other_tree"]

ROOT = Path(__file__).resolve().parent.parent


def _git(*command: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {command[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def other_tree(revision: str) -> Iterator[tuple[Path, str]]:
    """A working tree of a commit, for as long as the block lasts, and the commit's short name."""
    commit = _git("rev-parse", "--short", "--verify", f"{revision}^{{commit}}")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        _git("worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree, commit
        finally:
            _git("worktree", "remove", "--force", str(tree))


def compare(
    tree: Path, case: Any, method: str, options: dict[str, Any]
) -> tuple[list[float], list[float]]:
    """Seconds of each round of a case, here and in the other tree; who begins is drawn."""
    work = {"case": asdict(case), "method": method}
    work |= {key: options[key] for key in ("device", "seed", "threads")}
    draw = random.Random(options["seed"])
    seconds: tuple[list[float], list[float]] = ([], [])
    with ExitStack() as undo:
        workers = [undo.enter_context(_worker(place, work)) for place in (ROOT, tree)]
        order = [0, 1]
        for _ in range(case.rounds):
            draw.shuffle(order)
            for which in order:
                seconds[which].append(_ask(workers[which]))
    return seconds


@contextmanager
def _worker(tree: Path, work: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.speed_against", str(tree), json.dumps(work)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            _ask(process)  # until it is ready
            yield process
        finally:
            process.kill()


def _ask(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError("the measuring process has ended: its error stands above")
    return float(answer)


def serve(tree: str, given: str) -> None:
    """Time a call of the tree's package for each line of standard input."""
    # The package from the tree, and the cases from here: the other tree may lack them.
    sys.path[:] = [tree, *(path for path in sys.path if Path(path).resolve() != ROOT)]
    import captum_pullback

    assert Path(captum_pullback.__file__).is_relative_to(Path(tree).resolve())
    sys.path[0] = str(ROOT)
    import torch

    from benchmarks.compare.cost import seconds
    from benchmarks.speed_cases import Case

    work = json.loads(given)
    torch.set_num_threads(work["threads"])
    case = Case(**work["case"])
    model, x = case.network_and_inputs(work["device"], work["seed"])
    call = case.calls(model, x)[work["method"]]
    call()
    for _ in sys.stdin:
        print(seconds(call, x.device), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
