"""Checks a site that was built: ``python docs/check_site.py [FOLDER]``.

Every link within the site leads to a page, and to a place on it, that is there; every picture is
there and has an alternative text; and no page needs another host to be shown.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Of a page, what a browser fetches by itself.
FETCHED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page links to, what it fetches, and the places on it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.places: set[str] = set()
        self.wrong: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes one tag."""
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in FETCHED and FETCHED[tag] in given:
            self.fetched.append(given[FETCHED[tag]])
        # A tutorial's thumbnail has its title beside it, and rightly an empty text.
        thumbnail = given.get("alt") == "" and given.get("src", "").endswith("_thumb.png")
        if tag == "img" and not thumbnail and not _says_something(given.get("alt", "")):
            self.wrong.append(f"picture without alternative text: {given.get('src')}")


def _says_something(alt: str) -> bool:
    """Whether an alternative text is more than a file's name."""
    return " " in alt.strip() and not alt.endswith((".png", ".jpg", ".svg", ".gif"))


def problems(folder: Path) -> list[str]:
    """What is wrong with the site in this folder."""
    pages = {path.resolve(): Page(path) for path in sorted(folder.rglob("*.html"))}
    found = [] if pages else [f"{folder} has no pages"]
    for path, page in pages.items():
        wrong = list(page.wrong)
        for address in page.fetched:
            split = urlsplit(address)
            if split.scheme not in ("", "data") or split.netloc:
                wrong.append(f"needs another host: {address}")
        for address in (*page.links, *page.fetched):
            split = urlsplit(address)
            if split.scheme or split.netloc:
                continue
            target = (path.parent / unquote(split.path)).resolve() if split.path else path
            if not target.is_file():
                wrong.append(f"leads nowhere: {address}")
            elif target in pages and split.fragment:
                places = pages[target].places
                wrong += [] if unquote(split.fragment) in places else [f"no such place: {address}"]
        found += [f"{path.relative_to(folder.resolve())}: {text}" for text in dict.fromkeys(wrong)]
    return found


def main() -> None:
    """Says what is wrong, and fails if anything is."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "_build" / "html")
    if found := problems(folder):
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
