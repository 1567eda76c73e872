"""Numbers and names on the command line, and the options that commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from captum_pullback.study.spelling import amounts, readings

#: Words that ask for a fitted temperature: the best number, or the best multiple of a unit.
FITS = ("fit", "fit spread", "fit output")

_LARGEST = 2**31 - 1


def port(text: str) -> int:
    """Read a port, from 1 to 65535."""
    if not (text.isdecimal() and len(text) < 6 and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 65535, not {text!r}")
    return int(text)


def name(text: str) -> str:
    """Read the name of a file, a network or the like; it must not be empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def count(text: str) -> int:
    """Read a whole number of at least 0."""
    return _whole(text, 0, _LARGEST)


def positive_count(text: str) -> int:
    """Read a whole number of at least 1."""
    return _whole(text, 1, _LARGEST)


def side(text: str) -> int:
    """Read the side of a picture, in pixels: a whole number from 1 to 8192."""
    return _whole(text, 1, 8192)


def seed(text: str) -> int:
    """Read a whole number of at most 64 bits."""
    return _whole(text, 0, 2**64 - 1)


def _whole(text: str, least: int, most: int) -> int:
    digits = text.strip()
    if digits.isdecimal() and len(digits) <= 20 and least <= int(digits) <= most:
        return int(digits)
    limits = f"of at least {least}" if most == _LARGEST else f"from {least} to {most}"
    raise argparse.ArgumentTypeError(f"must be a whole number {limits}, not {text!r}")


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def positive(text: str) -> float:
    """Read a finite number above 0."""
    value = _float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def temperature(text: str) -> str:
    """Check the spelling of one or several temperatures, and return the text."""
    return _spelled(amounts, text)


def temperature_or_fit(text: str) -> str:
    """Check the spelling of a temperature, or of one of `FITS`, and return the text."""
    words = " ".join(text.split())
    return words if words in FITS else temperature(text)


def rules(text: str) -> str:
    """Check the form of rules, and return the text; only torch knows which readings exist."""
    return _spelled(readings, text)


def _spelled(read: Callable[[str], object], text: str) -> str:
    try:
        read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def add_network(add: Any) -> None:
    """Add the options that choose the network and its device."""
    add(
        "--model",
        type=name,
        default="embedded",
        metavar="NAME",
        help="'embedded' (the default), efficientnet_lite0 (ImageNet's classes), one of "
        "torchvision's classifiers such as resnet50, timm:NAME, hf:NAME, or module:function, from "
        "an installed module or one in the current folder",
    )
    add(
        "--weights",
        type=name,
        metavar="FILE",
        help="a state dict to load into the network: a .safetensors file, or a file written by "
        "torch.save, with the state dict on its own or under 'state_dict', 'model_state_dict', "
        "'model', 'model_state', 'network', 'net' or 'weights'",
    )
    add("--device", type=name, default="cpu", help="cpu (the default), cuda, cuda:1, mps")


def add_softness(add: Any, *, fits: bool = False) -> None:
    """Add the temperatures and the rules; ``fits`` adds the words of `FITS`."""
    fit = (
        "; or 'fit', 'fit spread' or 'fit output', for the one with the lowest infidelity among "
        "those whose maps tell classes apart"
    )
    add(
        "--temperature",
        type=temperature_or_fit if fits else temperature,
        metavar="T",
        help="the pullback's temperature, from 0 (gates as they are) to inf; '1 spread' or "
        "'1 output', in units of the spread of each gate's input or of its mean output; "
        "'0.3,gelu=1,attention=2', with others for some kinds of gates or modules"
        f"{fit if fits else ''} (default: 1 output)",
    )
    add(
        "--pool-temperature",
        type=temperature,
        metavar="T",
        help="temperature for max pooling (default: --temperature); 0 leaves pooling hard",
    )
    add_rules(add)


def add_rules(add: Any, more: str = "") -> None:
    """Add the rules; ``more`` ends their help."""
    add(
        "--rules",
        type=rules,
        metavar="RULES",
        help="what is held of each kind of gate: 'semantic' (the default; all kinds) or "
        "'excitation' (the ReLU family and max pools), optionally with other readings, as in "
        "semantic,max_pool=differentiated,relu6=excited,gelu=none" + more,
    )


def add_seed(add: Any, of: str) -> None:
    """Add the seed of something random."""
    add("--seed", type=seed, default=0, help=f"seed of {of} (default: 0)")


def add_figure(add: Any, default: str) -> None:
    """Add the file of the figure."""
    add(
        "--out",
        type=name,
        default=default,
        metavar="FILE",
        help=f"the figure; its suffix selects PNG, PDF or SVG (default: {default})",
    )
