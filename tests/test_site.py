"""The pages: commands, links, pictures and numbers; maps of the modules; the site's check."""

from __future__ import annotations

import configparser
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import FENCE, MADE, NAMES, PAGES, ROOT, blocks

from captum_pullback.commands.parser import parser


def test_code_is_in_a_language_that_says_whether_it_runs() -> None:
    known = {"python", "pycon", "bash", "shell", "text", "bibtex", "yaml"}
    for page in PAGES:
        for block in blocks(page):
            directive = block.kind.startswith("{")
            assert directive or block.kind in known


def commands() -> Iterator[tuple[str, list[str]]]:
    for page, name in zip(PAGES, NAMES, strict=True):
        for block in blocks(page):
            if block.kind in ("shell", "bash"):
                for line in re.split(r"\n|&&", re.sub(r"\\\n", "", block.code)):
                    if words := shlex.split(line, comments=True):
                        yield f"{name}: {line.strip()}", words


@pytest.mark.parametrize("words", [pytest.param(words, id=name) for name, words in commands()])
def test_commands_on_the_pages_are_ones_that_there_are(words: list[str]) -> None:
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    if program.startswith("python") and arguments[:2] == ["-m", "captum_pullback"]:
        program, arguments = "captum-pullback", arguments[2:]
    if program == "captum-pullback":
        parser().parse_args(arguments)
    elif program == "pip":
        extras = re.findall(r"\[([\w,]+)\]", " ".join(arguments))
        settings = configparser.ConfigParser()
        settings.read(ROOT / "setup.cfg")
        known = settings["options.extras_require"]
        assert arguments[0] == "install"
        assert all(extra in known for extra in ",".join(extras).split(",") if extra)
    elif program.startswith("python") and arguments[0] == "-m":
        package = arguments[1].split(".")[0]
        ours = ROOT.joinpath(*arguments[1].split("."))
        assert package in ("pytest", "venv") or ours.is_dir() or ours.with_suffix(".py").is_file()
    elif program == "torchrun":
        assert ROOT.joinpath(*arguments[arguments.index("-m") + 1].split(".")).is_dir()
    elif program.startswith("python"):
        assert (ROOT / arguments[0]).is_file()
    else:
        tools = {"codespell", "mypy", "ruff", "sphinx-build"}
        assert program in tools or (ROOT / program).is_file()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"`[^`\n]*`", "", text)
    for alt, target in re.findall(r"(!?\[[^\]]*\])\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, place = target.partition("#")
        file = (page.parent / path) if path else page
        if not MADE & set(Path(path).parts):
            assert file.exists(), f"{alt}({target})"
        if place and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert place in slugs, f"{alt}({target})"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_picture_has_an_alternative_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for alt in re.findall(r"!\[([^\]]*)\]\(", text):
        assert len(alt.split()) > 2, f"{alt!r} does not say what is to be seen"
    for block in blocks(page):
        if re.match(r"\{(image|figure|drawn)\}", block.kind):
            assert re.search(r"^:alt: \S+ \S+ \S+", block.code, re.MULTILINE), block.line


def test_numbers_on_the_pages_are_those_of_the_committed_results() -> None:
    from benchmarks import numbers

    values, tables = numbers.numbers(), numbers.tables()
    for page in numbers.pages():
        text = page.read_text(encoding="utf-8")
        assert numbers.filled(text, values, tables) == text, (
            f"{page.name} differs from the results: python -m benchmarks.numbers"
        )


def test_a_number_at_the_beginning_of_a_line_or_without_a_name_is_refused() -> None:
    from benchmarks import numbers

    text = "It is <!--n one-->?<!--/n-->."
    assert numbers.filled(text, {"one": "1"}, {}) == "It is <!--n one-->1<!--/n-->."
    with pytest.raises(KeyError, match="one"):
        numbers.filled(text, {}, {})
    with pytest.raises(ValueError, match="begins with a number"):
        numbers.filled("<!--n one-->?<!--/n--> is one.", {"one": "1"}, {})


#: How many modules and folders a map may show, on how many floors: more is a list, no drawing.
MAPS = {"": (24, 7), "engine": (24, 7)}


@pytest.mark.parametrize("folder", MAPS)
def test_the_maps_of_the_modules_are_small_and_have_no_import_upwards(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "figures")
    import modules

    graph = modules.imports(folder)
    depth = modules.levels(graph)
    assert all(depth[name] < depth[used] for name in graph for used in graph[name])
    most, floors = MAPS[folder]
    assert len(graph) <= most
    assert 1 + max(depth.values()) <= floors
    page = (ROOT / "docs" / "inside.md").read_text(encoding="utf-8")
    missing = [name for name in graph if f"`{name}`" not in page]
    assert not missing, "docs/inside.md has a line for each module"
    if folder:
        assert {"rules/", "mode/"} <= graph["softening"]
        assert {"calls/", "names/"} <= graph["rules/"]
        assert not graph["_torch/"]
    else:
        assert {"engine/", "pullback/"} <= graph["attribution/"]
        assert {"study/", "lens/"} <= graph["commands/"]
        assert not graph["engine/"]
        assert not any(graph[name] & {"commands/", "app/"} for name in set(graph) - {"app/"})
    with pytest.raises(ValueError, match="circle"):
        modules.levels({"a": {"b"}, "b": {"a"}})
    sys.modules.pop("modules", None)
    sys.modules.pop("drawing", None)


def test_the_places_that_contributors_are_told_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("## Where does a new")[2].partition("\n## ")[0]
    places = re.findall(r"`([\w/]+(?:/|\.py|\.md))`", table)
    assert len(places) > 15
    missing = [
        place
        for place in places
        if not ((ROOT / place).exists() or (ROOT / "captum_pullback" / place).exists())
        and place not in ("captum_pullback/", "__init__.py")
    ]
    assert not missing
    for name, place in re.findall(r"`([A-Za-z_]+)` (?:or `HUBS` )?(?:of|in) `([\w/]+\.py)`", table):
        home = ROOT / place if (ROOT / place).exists() else ROOT / "captum_pullback" / place
        assert re.search(rf"^(class )?{name}\b", home.read_text(encoding="utf-8"), re.M), name


def test_the_check_of_the_site_finds_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    from check_site import problems

    (tmp_path / "good.html").write_text('<p id="here"><a href="#here">x</a></p>')
    assert problems(tmp_path) == []
    (tmp_path / "bad.html").write_text(
        '<img src="a.png"><img src="good.html" alt="a.png"><a href="good.html#there">x</a>'
        '<a href="gone.html">x</a><script src="https://example.org/x.js"></script>'
    )
    assert [line.partition(": ")[2] for line in problems(tmp_path)] == [
        "picture without alternative text: a.png",
        "picture without alternative text: good.html",
        "needs another host: https://example.org/x.js",
        "no such place: good.html#there",
        "leads nowhere: gone.html",
        "leads nowhere: a.png",
    ]
