"""Numbers on the command line, as argparse wants them: from text, or with an error."""

from __future__ import annotations

import argparse
import math


def port(text: str) -> int:
    """From 1 to 65535."""
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)


def count(text: str) -> int:
    """Whole, and 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def positive_count(text: str) -> int:
    """Whole, and 1 or more."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is wanted, not {text!r}")
    return int(text)


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


def temperature(text: str) -> float:
    """From 0 to inf."""
    value = _float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"a temperature is a number from 0 to inf, not {text!r}")
    return value


def temperature_or_fit(text: str) -> float | str:
    """A temperature, or the word 'fit'."""
    return text if text == "fit" else temperature(text)
