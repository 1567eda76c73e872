"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a table with a line of titles, and a line for each of ``lines``."""
    titles = list(head)
    return "\n".join([_line(titles), "|---" * len(titles) + "|", *map(_line, lines)])


def _line(cells: Iterable[str]) -> str:
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"
