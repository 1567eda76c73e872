"""Questions asked of the app's work without its page."""

from __future__ import annotations

from typing import Any

from captum_pullback.app import work
from captum_pullback.app.jobs import Job
from captum_pullback.app.question import Loaded, Question


def job() -> Job[Any]:
    return Job(lambda job: None)


def answered(loaded: Loaded, question: Question) -> work.Explanation:
    return work.explain(loaded, work.look(loaded, question.photo), question, job())


def run(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(source, "the app's code", "exec"), names)
    return names
