"""Temperatures and rules as given on the command line."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from captum_pullback.commands.arguments import FITS
from captum_pullback.commands.terminal import complain
from captum_pullback.engine.softness import Softness
from captum_pullback.study.methods import coverage
from captum_pullback.study.softness import (
    UNUSED,
    read_rules,
    read_temperature,
)
from captum_pullback.zoo.networks import Network

__all__ = ["asked", "complain_of_unused"]


def asked(args: argparse.Namespace) -> Softness:
    """Return the temperatures and rules of the arguments.

    Raises:
        UsageError: Rules name an unknown kind of gate, or an unknown reading of a kind.
    """
    softness = Softness(rules=None if args.rules is None else read_rules(args.rules))
    if args.temperature is not None and args.temperature not in FITS:
        softness = replace(softness, temperature=read_temperature(args.temperature))
    if args.pool_temperature is not None:
        softness = replace(softness, pool_temperature=read_temperature(args.pool_temperature))
    return softness


def complain_of_unused(network: Network, inputs: Tensor, softness: Softness) -> None:
    """Warn, once for all photographs, of entries of temperatures that had no effect."""
    if not any(isinstance(t, Mapping) for t in (softness.temperature, softness.pool_temperature)):
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        coverage(network, inputs, softness)
    for each in caught:
        if str(each.message).startswith(UNUSED):
            complain(f"warning: {each.message}")
