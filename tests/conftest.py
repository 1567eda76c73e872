"""Every test starts from the same random state; hypothesis draws the same examples each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import app_pages
import browser
import hypothesis
import numpy as np
import pytest
import torch
import training_runs
from PIL import Image

hypothesis.settings.register_profile("same", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.load_profile("same")

torch.set_num_threads(1)  # waiting for a second thread costs small tensors more than it gives


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a command: two photographs, and one that is none."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    Image.fromarray(noise[::-1].copy()).save(tmp_path / "other.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photograph")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels of a short training."""
    return training_runs.examples()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[app_pages.Server]:
    """The app, in a process of its own."""
    yield from app_pages.running(tmp_path_factory)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    with browser.chromium() as found:
        yield found


@pytest.fixture
def visit(chromium: Any, server: app_pages.Server) -> Iterator[Any]:
    """Makes visitors of the app."""
    yield from app_pages.visiting(chromium, server)
