"""The code on the pages and in docstrings runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import DOWNLOADS, NAMES, PAGES, ROOT, Block, blocks
from torch import nn
from torchvision.models import WeightsEnum

import captum_pullback
from captum_pullback.zoo.reference import ReferenceNet


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


def on_small_models(patch: pytest.MonkeyPatch, code: str) -> None:
    """What timm's and Hugging Face's hubs have is small, and has random weights."""
    if "timm" in code:
        timm = pytest.importorskip("timm")
        create = timm.create_model
        patch.setattr(timm, "create_model", lambda name, pretrained: create(name, depth=1))
    if "transformers" in code:
        transformers = pytest.importorskip("transformers")
        words = ["a", "dull", "story", "but", "the", "actors", "are", "wonderful", ",", "."]
        vocabulary = {word: number for number, word in enumerate(["[UNK]", *words])}
        config = transformers.DistilBertConfig(
            vocab_size=len(vocabulary), dim=8, n_layers=2, n_heads=2, hidden_dim=12, num_labels=2
        )
        kind = transformers.DistilBertForSequenceClassification
        tokens = pytest.importorskip("tokenizers")
        words_of = tokens.Tokenizer(tokens.models.WordLevel(vocabulary, unk_token="[UNK]"))
        words_of.pre_tokenizer = tokens.pre_tokenizers.Whitespace()
        for loader, found in (
            (transformers.AutoModelForSequenceClassification, kind(config)),
            (
                transformers.AutoTokenizer,
                transformers.PreTrainedTokenizerFast(tokenizer_object=words_of),
            ),
        ):
            patch.setattr(loader, "from_pretrained", lambda name, found=found: found)


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
                on_small_models(patch, block.code)
            exec(code, given)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks")
def test_the_lines_of_the_drop_in_table_run_and_match(given: dict[str, Any]) -> None:
    page = ROOT / "docs" / "captum_workflow.md"
    imports = next(block.code for block in blocks(page) if block.kind == "python")
    exec(imports, given)
    line = r"\| `(\w+\(.*\.attribute\(.*)` \| `?(.*?)`? \|"
    rows = re.findall(line, page.read_text(encoding="utf-8"))
    assert len(rows) == 7
    for yours, ours in rows:
        if "soften" in ours:
            with given["soften"](given["model"]):
                result = eval(yours, given)
        else:
            result = eval(ours, given)
        assert result.shape == eval(yours, given).shape


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


@pytest.mark.parametrize(
    "name",
    ["captum_pullback"]
    + [m.name for m in pkgutil.walk_packages(captum_pullback.__path__, "captum_pullback.")
       if not m.name.endswith("__main__")],
)  # fmt: skip
def test_examples_in_docstrings(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("captum_pullback"):
            raise
        pytest.skip(f"needs {error.name}, which is optional")
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
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


def test_every_paper_is_cited_with_its_authors() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    papers = citation[citation.index("references:") :].split("  - type: article")[1:]
    authors = [re.findall(r"family-names: (\S+)", paper) for paper in papers]
    assert authors == [["Satkiewicz"], ["Satkiewicz", "Corizzo", "Pietroń"], ["Ye"]]
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("## Cite")[1]
    page = (ROOT / "docs" / "cite.md").read_text(encoding="utf-8").replace(r"{\'n}", "ń")
    titles = [re.findall(r'title: "(.+)"', paper)[0] for paper in papers]
    for names, title in zip(authors, titles, strict=True):
        assert f'"{title}"' in " ".join(readme.split())
        assert title in page.replace("{ReLU}", "ReLU")
        for name in names:
            assert name in readme
            assert f"{name}, " in page
