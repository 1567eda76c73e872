"""Every test starts from the same random state; hypothesis draws the same examples each time."""

from __future__ import annotations

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("same", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.load_profile("same")

torch.set_num_threads(1)  # waiting for a second thread costs small tensors more than it gives


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
