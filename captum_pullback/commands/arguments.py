"""Numbers and names on the command line, and the options that commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from captum_pullback.study.spelling import amounts, readings

#: What a temperature may be instead of one: the best number, or the best multiple of spread.
FITS = ("fit", "fit spread")

_LARGEST = 2**31 - 1


def port(text: str) -> int:
    """From 1 to 65535."""
    if not (text.isdecimal() and len(text) < 6 and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)


def name(text: str) -> str:
    """Of a file, a network or the like: not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a name is wanted, not an empty one")
    return text


def count(text: str) -> int:
    """Whole, and 0 or more."""
    return _whole(text, 0, _LARGEST)


def positive_count(text: str) -> int:
    """Whole, and 1 or more."""
    return _whole(text, 1, _LARGEST)


def side(text: str) -> int:
    """Of a picture, in pixels: whole, from 1 to 8192."""
    return _whole(text, 1, 8192)


def seed(text: str) -> int:
    """Whole, of at most 64 bits."""
    return _whole(text, 0, 2**64 - 1)


def _whole(text: str, least: int, most: int) -> int:
    digits = text.strip()
    if digits.isdecimal() and len(digits) <= 20 and least <= int(digits) <= most:
        return int(digits)
    limits = f"of at least {least}" if most == _LARGEST else f"from {least} to {most}"
    raise argparse.ArgumentTypeError(f"a whole number {limits} is wanted, not {text!r}")


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def positive(text: str) -> float:
    """Above 0, and finite."""
    value = _float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"a number above 0 is wanted, not {text!r}")
    return value


def temperature(text: str) -> str:
    """One or several, as they are spelled."""
    return _spelled(amounts, text)


def temperature_or_fit(text: str) -> str:
    """A temperature, or the word 'fit', or 'fit spread'."""
    words = " ".join(text.split())
    return words if words in FITS else temperature(text)


def rules(text: str) -> str:
    """A composite and readings, as they are spelled: which there are, only torch knows."""
    return _spelled(readings, text)


def _spelled(read: Callable[[str], object], text: str) -> str:
    try:
        read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def add_network(add: Any) -> None:
    """Adds what says which network, and where."""
    add(
        "--model",
        type=name,
        default="embedded",
        metavar="NAME",
        help="'embedded' (the default), efficientnet_lite0 (ImageNet's classes), one of "
        "torchvision's classifiers such as resnet50, timm:NAME, hf:NAME, or module:function, of an "
        "installed module or one in this folder",
    )
    add(
        "--weights",
        type=name,
        metavar="FILE",
        help="a state dict instead of the network's own weights: a file of torch.save, alone or "
        "under 'state_dict' or 'model', or .safetensors",
    )
    add("--device", type=name, default="cpu", help="cpu (the default), cuda, cuda:1, mps")


def add_softness(add: Any) -> None:
    """Adds the temperature of max pooling, and the rules."""
    add(
        "--pool-temperature",
        type=temperature,
        metavar="T",
        help="temperature for max pooling (default: --temperature); 0 leaves pooling hard",
    )
    add_rules(add)


def add_rules(add: Any, more: str = "") -> None:
    """Adds the rules, with something more to be said of them."""
    add(
        "--rules",
        type=rules,
        metavar="RULES",
        help="what is held of each kind of gate: 'semantic' (the default; all kinds) or "
        "'excitation' (ReLU's family and max pools), and other readings after it, as in "
        "semantic,max_pool=differentiated,relu6=excited,gelu=none" + more,
    )


def add_seed(add: Any, of: str) -> None:
    """Adds the seed of something random."""
    add("--seed", type=seed, default=0, help=f"of {of} (default: 0)")


def add_figure(add: Any, default: str) -> None:
    """Adds where the figure goes."""
    add(
        "--out",
        type=name,
        default=default,
        metavar="FILE",
        help=f"the figure, PNG, PDF or SVG by its suffix (default: {default})",
    )
