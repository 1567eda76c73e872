"""The pages: code blocks run, links lead somewhere, pictures have a text, numbers are measured."""

from __future__ import annotations

import configparser
import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torchvision.models import WeightsEnum

import captum_pullback
from captum_pullback import cli
from captum_pullback.reference import ReferenceNet

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


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What every page may use: a network of ten classes, four inputs, and their labels."""
    monkeypatch.chdir(tmp_path)
    model = ReferenceNet(10, widths=(4, 4, 8, 8)).eval()
    x = torch.randn(4, 3, 32, 32)
    labels = torch.tensor([1, 1, 2, 2])
    return {
        "__name__": "__main__",
        "model": model,
        "x": x,
        "images": x,
        "labels": labels,
        "inputs": x,
        "batches": [(x, labels)] * 3,
        "train": lambda model, batch: None,
    }


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Weights that torchvision would download are an error, unless a block says that it does."""

    def refuse(weights: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"{weights} would be downloaded: mark the block with {DOWNLOADS}")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", refuse)
    return monkeypatch


def on_random_weights(patch: pytest.MonkeyPatch) -> None:
    """Networks with torchvision's weights are made, and keep those that they were born with."""
    load = nn.Module.load_state_dict
    nothing: dict[str, Any] = {}

    def loaded(model: nn.Module, state: Any, *args: Any, **kwargs: Any) -> Any:
        return None if state is nothing else load(model, state, *args, **kwargs)

    patch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: nothing)
    patch.setattr(nn.Module, "load_state_dict", loaded)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_blocks_of_a_page_run_one_after_another(
    page: Path, given: dict[str, Any], no_download: pytest.MonkeyPatch
) -> None:
    for block in blocks(page):
        if block.kind == "pycon":
            session = doctest.DocTestParser().get_doctest(
                block.code, given, page.name, str(page), block.line - 1
            )
            result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
                session, clear_globs=False
            )
            assert result.failed == 0
        if block.kind != "python":
            continue
        padded = "\n" * (block.line - 1) + block.code  # so that a traceback has the page's lines
        code = compile(padded, str(page), "exec", dont_inherit=True)
        with no_download.context() as patch:
            if block.downloads:
                on_random_weights(patch)
            exec(code, given)


def test_blocks_that_download_are_marked_and_others_refused(
    tmp_path: Path, no_download: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{DOWNLOADS}\n```python\na = 1\n```\n\n  ```python\n  b = 2\n  ```\n")
    assert list(blocks(page)) == [
        Block("python", "a = 1\n", 3, True),
        Block("python", "b = 2\n", 7, False),
    ]
    from torchvision.models import resnet18

    with pytest.raises(AssertionError, match="mark the block"):
        resnet18(weights="DEFAULT")


def test_code_is_in_a_language_that_says_whether_it_runs() -> None:
    known = {"python", "pycon", "bash", "shell", "text", "bibtex", "yaml"}
    for page in PAGES:
        for block in blocks(page):
            directive = block.kind.startswith("{")
            assert directive or block.kind in known


@pytest.mark.parametrize(
    "name",
    ["captum_pullback"]
    + [m.name for m in pkgutil.walk_packages(captum_pullback.__path__, "captum_pullback.")
       if not m.name.endswith("__main__")],
)  # fmt: skip
def test_examples_in_docstrings(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


def literal_blocks() -> Iterator[tuple[str, str]]:
    """What stands indented after ``::`` in the docstrings of what the API pages show."""
    shown = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    for path in re.findall(r"^\.\. auto(?:class|function):: ([\w.]+)$", shown, re.MULTILINE):
        module, _, name = path.rpartition(".")
        documented = getattr(importlib.import_module(module), name)
        members = vars(documented).values() if isinstance(documented, type) else ()
        for part in (documented, *members):
            for found in re.finditer(r"::\n\n((?:    .*\n|\n)+)", f"{inspect.getdoc(part)}\n"):
                yield f"{path}: {found[1].strip().splitlines()[0]}", textwrap.dedent(found[1])


@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in literal_blocks()])
def test_code_in_docstrings_runs(code: str, given: dict[str, Any]) -> None:
    exec("from captum_pullback import *\nfrom captum.attr import *", given)
    exec(compile(code, "docstring", "exec"), given)


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
        cli._parser().parse_args(arguments)
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


def test_the_map_of_the_rooms_has_no_import_upwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "figures")
    import rooms

    graph = rooms.imports()
    depth = rooms.levels(graph)
    assert all(depth[name] < depth[used] for name in graph for used in graph[name])
    assert {"softening", "fit"} <= graph["attribution"] | graph["commands/"]
    assert not graph["gates"]
    page = (ROOT / "docs" / "inside.md").read_text(encoding="utf-8")
    missing = [name for name in graph if f"`{name}`" not in page]
    assert not missing, "docs/inside.md has a line for each room"
    with pytest.raises(ValueError, match="circle"):
        rooms.levels({"a": {"b"}, "b": {"a"}})
    sys.modules.pop("rooms", None)
    sys.modules.pop("drawing", None)


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
