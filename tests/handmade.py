"""Networks that are a function and the modules that it calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class Handmade(nn.Module):
    """Modules by name, and a function of the network and its inputs that uses them."""

    def __init__(self, run: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *inputs: Any) -> Any:
        return self.run(self, *inputs)
