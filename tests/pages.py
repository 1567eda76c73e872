"""The pages of the documentation, and the fenced blocks on them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
MADE = {"_build", "_tutorials", "_figures"}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += [p for p in sorted((ROOT / "docs").rglob("*.md")) if not MADE & set(p.parts)]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

DOWNLOADS = "<!-- downloads -->"
FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>```+|:::+)(?P<kind>[^\n`]*)\n(?P<code>.*?)^ *(?P=ticks) *$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A fenced block of a page; ``line`` is that of its first line of code."""

    kind: str
    code: str
    line: int
    downloads: bool


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        before = text[: found.start()].rstrip().rpartition("\n")[2].strip()
        code = textwrap.dedent(found["code"])
        line = text[: found.start("code")].count("\n") + 1
        yield Block(found["kind"].strip(), code, line, before == DOWNLOADS)
