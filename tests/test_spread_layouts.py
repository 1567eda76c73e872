"""Which entries share a spread: time before examples, rows of one example, attention's logits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from handmade import Handmade
from reference import gradient, relu
from spreads import SOFT, C, close, deviation, of_each
from torch import Tensor, nn

from captum_pullback import ExcitationPullback, Spread, soften


def sequence_first(inputs_too: bool) -> nn.Module:
    """Gates on (T, N, C), of inputs that are (N, T, C) or (T, N, C)."""
    return Handmade(
        lambda net, x: net.two(F.gelu(net.one(x if inputs_too else x.transpose(0, 1)))).mean(0),
        one=nn.Linear(4, 5), two=nn.Linear(5, 3),
    ).double()  # fmt: skip


@pytest.mark.parametrize("tokens", [3, 5, 8])  # 8: a multiple of the batch
@pytest.mark.parametrize("inputs_too", [False, True])
def test_sequence_first(tokens: int, inputs_too: bool) -> None:
    model = sequence_first(inputs_too)
    x = torch.randn(tokens, 4, 4, dtype=torch.float64) * torch.tensor([1, 2, 4, 8.0]).view(1, 4, 1)
    dim = 1 if inputs_too else 0
    x = x if inputs_too else x.transpose(0, 1)
    leaf = x.detach().requires_grad_()
    z = model.one(leaf if inputs_too else leaf.transpose(0, 1))
    soft = torch.cat([SOFT["gelu"](part, C * deviation(part)) for part in z.split(1, 1)], 1)
    expected = gradient(model.two(soft).mean(0)[:, 1].sum(), leaf)
    method = ExcitationPullback(model, Spread(C))
    close(method.attribute(x, 1), expected)
    alone = [method.attribute(part, 1) for part in x.split(1, dim)]
    close(torch.cat(alone, dim), expected)


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_that_belong_to_one_example_have_one_spread(rows: int) -> None:
    """Windows folded into the batch, as in Swin: (N k, C)."""

    model = Handmade(
        lambda net, x: net.head(F.relu(x.reshape(len(x) * 4, 2)).reshape(len(x), 8)),
        head=nn.Linear(8, 2).double(),
    )
    x = torch.randn(rows, 8, dtype=torch.float64)
    leaf = x.detach().requires_grad_()
    expected = gradient(model.head(of_each(relu, Spread(C))(leaf))[:, 0].sum(), leaf)
    close(ExcitationPullback(model, Spread(C)).attribute(x, 0), expected)


class Attention(nn.Module):
    """One attention of two heads, in one call or written out."""

    def __init__(self, form: str, mask: Tensor | None) -> None:
        super().__init__()
        self.form, self.mask = form, mask
        self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))
        self.double()

    def logits(self, x: Tensor) -> Tensor:
        query, key = (self.heads(part(x)) for part in (self.query, self.key))
        logits = query @ key.mT / math.sqrt(3)
        return logits if self.mask is None else logits + self.mask

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (2, 3)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        value = self.heads(self.value(x))
        if self.form == "one call":
            query, key = self.heads(self.query(x)), self.heads(self.key(x))
            output = F.scaled_dot_product_attention(query, key, value, self.mask)
        elif self.form == "written out":
            output = self.logits(x).softmax(-1) @ value
        else:  # heads folded into the batch
            weights = self.logits(x).flatten(0, 1).softmax(-1)
            output = torch.bmm(weights, value.flatten(0, 1)).unflatten(0, (len(x), 2))
        return output.transpose(1, 2).flatten(1)


def masked(kind: str) -> Tensor | None:
    if kind == "none":
        return None
    low = {"-inf": -math.inf, "least": torch.finfo(torch.float32).min, "-1e4": -1e4}[kind]
    return torch.zeros(5, 5, dtype=torch.float64).masked_fill(torch.ones(5, 5).triu(1) > 0, low)


@pytest.mark.parametrize("form", ["one call", "written out", "folded"])
@pytest.mark.parametrize("mask", ["none", "-inf", "least", "-1e4"])
def test_attentions_logits_have_one_spread_for_each_example(form: str, mask: str) -> None:
    model = Attention(form, masked(mask))
    x = torch.randn(3, 5, 6, dtype=torch.float64) * torch.tensor([1.0, 2, 3]).view(3, 1, 1)
    logits = model.logits(x).detach()
    weights = []
    for part in logits:
        counted = part[part > -5000]  # over heads, rows and columns
        weights.append((part / (C * deviation(counted))).softmax(-1))
    leaf = x.detach().requires_grad_()
    output = torch.stack(weights) @ model.heads(model.value(leaf))
    expected = gradient(output.transpose(1, 2).flatten(1)[:, 7].sum(), leaf)
    method = ExcitationPullback(model, {"": 0, "attention": Spread(C)})
    close(method.attribute(x, 7), expected)
    close(torch.cat([method.attribute(part, 7) for part in x.split(1)]), expected)


def test_attention_in_pieces_of_rows_has_one_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Attention("one call", masked("-inf"))
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    method = ExcitationPullback(model, {"": 0, "attention": Spread(C)})
    expected = method.attribute(x, 7)
    monkeypatch.setattr("captum_pullback.engine.rules.attention._PIECE", 3 * 2 * 5 * 2)  # two rows
    close(method.attribute(x, 7), expected)


@pytest.mark.parametrize("form", ["one call", "written out"])
def test_the_record_names_attentions_temperature(form: str) -> None:
    model, x = Attention(form, None), torch.randn(1, 5, 6).double().requires_grad_()
    for given, shown in ((2, "2"), (Spread(C), "0.8 spread")):
        with soften(model, {"": 0, "attention": given}) as record:
            model(x).sum().backward()
        assert [met.temperature.split(" (")[0] for met in record.softened] == [shown]
    with soften(model, 0) as record:
        model(x).sum().backward()
    assert [met.done for met in record.held] == ["held"]
    assert record.softened == []


def test_equal_logits_have_no_spread_and_are_held_hard() -> None:
    query, value = torch.zeros(2, 1, 3, 4), torch.randn(2, 1, 3, 4, requires_grad=True)
    for half in (torch.float32, torch.float16):
        with soften(nn.Identity(), {"": 0, "attention": Spread(1)}):
            output = F.scaled_dot_product_attention(query, query, value)
            found = gradient(output.sum(), value)
        close(found, torch.ones(2, 1, 3, 4))
        query, value = query.to(half), value.detach().to(half).requires_grad_()
