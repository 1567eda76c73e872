"""The command line: what can be asked, and how what goes wrong is said.

A subcommand is a function here that adds its parser, and a room, of `captum_pullback.commands` or
the app's, whose ``run`` does it; torch is imported by the second only.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from captum_pullback._version import __version__
from captum_pullback.commands.arguments import (
    count,
    port,
    positive,
    positive_count,
    temperature,
    temperature_or_fit,
)
from captum_pullback.commands.terminal import PROGRAM, UsageError, complain


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: the arguments; None: the process's own.

    Returns:
        0, or 2 after an error (said on stderr, in a line), or 130 after Ctrl-C.
    """
    try:
        args = _parser().parse_args(argv)
        command = importlib.import_module(f"captum_pullback.{args.room}")
        return int(command.run(args))
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except BrokenPipeError:  # as by ``| head``; what is still buffered must not raise at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UsageError, OSError) as error:
        complain(f"error: {error}")
        return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help says more)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM, description="Excitation pullbacks: explanations of what a ReLU network sees."
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_explain(commands)
    _add_lens(commands)
    _add_ascend(commands)
    _add_app(commands)
    return parser


def _add_explain(commands: Any) -> None:
    parser = commands.add_parser(
        "explain",
        help="explain photographs: maps of several methods side by side, with scores",
        description="Explains photographs by several methods side by side, with each method's "
        "infidelity, max-sensitivity and time, in a figure and on the terminal.",
    )
    add = parser.add_argument
    add(
        "photos",
        nargs="*",
        metavar="PHOTO",
        default=["grace_hopper"],
        help="picture files, or sample photographs: grace_hopper (the default), chelsea, coffee, "
        "rocket",
    )
    _add_network(add)
    add(
        "--target",
        action="append",
        default=[],
        metavar="CLASS",
        help="class to explain, by name or number; several with commas between, or repeated",
    )
    add(
        "--top-k",
        type=count,
        metavar="K",
        help="explain the K most probable classes (1 where there is no --target)",
    )
    add(
        "--methods",
        default="saliency,ig,pullback",
        metavar="NAMES",
        help="of pullback, saliency (the plain gradient), ig, inputxgradient, guidedbackprop, "
        "smoothgrad, smoothpullback; with commas between",
    )
    add(
        "--temperature",
        type=temperature_or_fit,
        metavar="T",
        help="of the pullback: 0 (the plain gradient) to inf, or 'fit', for that of the least "
        "infidelity (default: what is known to suit the network, or 0.3)",
    )
    _add_pool_temperature(add)
    _add_seed(add, "the scores' and SmoothGrad's noise")
    add(
        "--show",
        choices=["heat_map", "blended_heat_map", "colors"],
        default="heat_map",
        help="maps summed over channels (the default), the same over the photograph, or channels "
        "as colours around grey",
    )
    add("--no-scores", action="store_true", help="maps only: no infidelity, no max-sensitivity")
    add("--coverage", action="store_true", help="print what was softened and what was left hard")
    _add_figure(add, "explanation.png")
    add("--npz", metavar="FILE", help="the attributions themselves, as numpy arrays")
    parser.set_defaults(room="commands.explain")


def _add_ascend(commands: Any) -> None:
    parser = commands.add_parser(
        "ascend",
        help="draw on photographs what classes ask for, by a few steps along the pullback",
        description="Takes a few steps in pixel space along the pullback of each class, and shows "
        "what they drew: a grid of photographs and classes, each photograph's own class framed.",
    )
    add = parser.add_argument
    add(
        "photos",
        nargs="*",
        metavar="PHOTO",
        help="picture files, or sample photographs: grace_hopper, chelsea, coffee, rocket (the "
        "default is all four)",
    )
    add(
        "--targets",
        action="append",
        default=[],
        metavar="CLASSES",
        help="the columns: classes by name or number, 'self' (each photograph's own) and 'random', "
        "with commas between (default: the photographs' own classes)",
    )
    _add_network(add)
    add(
        "--temperature",
        type=temperature,
        metavar="T",
        help="of the pullback: 0 (the plain gradient) to inf (default: what is known to suit the "
        "network, or 0.3)",
    )
    _add_pool_temperature(add)
    add("--steps", type=positive_count, default=5, metavar="K", help="how many (default: 5)")
    add(
        "--step-size",
        type=positive,
        default=0.1,
        metavar="S",
        help="length of a step, as a fraction of the photograph's norm (default: 0.1)",
    )
    add(
        "--radius",
        type=positive,
        default=0.5,
        metavar="R",
        help="greatest distance from the photograph, likewise (default: 0.5)",
    )
    add("--unbounded", action="store_true", help="let pixels leave the range from black to white")
    add("--compare", action="store_true", help="the plain gradient's grid beside it")
    add(
        "--show",
        choices=["both", "perturbation", "photograph"],
        default="both",
        help="the perturbed photograph and the perturbation under it (the default), or one of them",
    )
    add(
        "--scale",
        choices=["row", "cell", "figure"],
        default="row",
        help="what shares one colour scale of perturbations (default: row)",
    )
    _add_seed(add, "the random classes")
    _add_figure(add, "ascent.png")
    add("--gif", metavar="FILE", help="an animation over the steps besides")
    parser.set_defaults(room="commands.ascend")


def _add_network(add: Any) -> None:
    add(
        "--model",
        default="embedded",
        metavar="NAME",
        help="'embedded' (the default), one of torchvision's classifiers such as resnet50, or "
        "package.module:function",
    )
    add("--weights", metavar="FILE", help="a state dict instead of the network's own weights")
    add("--device", default="cpu", help="cpu (the default), cuda, cuda:1, mps")


def _add_pool_temperature(add: Any) -> None:
    add(
        "--pool-temperature",
        type=temperature,
        metavar="T",
        help="of max pooling, where another is wanted; 0 leaves pooling hard",
    )


def _add_seed(add: Any, of: str) -> None:
    add("--seed", type=count, default=0, help=f"of {of} (default: 0)")


def _add_figure(add: Any, default: str) -> None:
    add(
        "--out",
        default=default,
        metavar="FILE",
        help=f"the figure, PNG, PDF or SVG by its suffix (default: {default})",
    )


def _add_lens(commands: Any) -> None:
    parser = commands.add_parser(
        "lens",
        help="watch a training run: its effective weights and its gates, in figures and a page",
        description="Reports on a training run from its checkpoints: effective weights within "
        "and between classes, gates that settle, and the temperatures that fit them. Without "
        "--checkpoints it trains a small perceptron on scikit-learn's handwritten digits. Started "
        "again, it goes on where it was stopped.",
    )
    add = parser.add_argument
    add("--checkpoints", metavar="DIR", help="folder of files whose names end in the step")
    add(
        "--data",
        metavar="DIR",
        help="folder with val/<class>/ or <class>/ of pictures; or an .npz file with 'inputs' and "
        "'labels'",
    )
    add("--out", default="lens", metavar="DIR", help="folder of the report (default: lens)")
    add(
        "--model",
        metavar="NAME",
        help="the checkpoints' network: package.module:function, or one of torchvision's "
        "classifiers (default: the package's own, of any width)",
    )
    add(
        "--size",
        type=count,
        metavar="PIXELS",
        help="side of the pictures (default: the network's)",
    )
    add(
        "--per-class",
        type=count,
        metavar="N",
        help="examples of each class (default: 5, or 20 digits)",
    )
    add(
        "--weights",
        choices=["all", "label"],
        default="all",
        help="record the weights of all classes, or of each example's own (faster)",
    )
    _add_seed(add, "the training on digits")
    parser.set_defaults(room="commands.lens")


def _add_app(commands: Any) -> None:
    parser = commands.add_parser(
        "app",
        help="explore pullbacks in a browser",
        description="Opens a page on this machine in which photographs are explained while one "
        "moves the temperature. It needs no network and tells nobody. Ctrl-C stops it.",
    )
    add = parser.add_argument
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="a network besides the embedded one: one of torchvision's classifiers such as "
        "resnet50, or package.module:function; may be repeated",
    )
    add("--weights", metavar="FILE", help="a state dict for the one --model, instead of its own")
    add("--device", default="cpu", help="cpu (the default), cuda, cuda:1, mps")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen at (default: 127.0.0.1, for this machine alone)",
    )
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="with another --host: a name by which pages may call this server, and no other; may "
        "be repeated",
    )
    add("--port", type=port, metavar="N", help="default: the first free one from 7860 on")
    add("--no-browser", action="store_true", help="only say where the page is")
    parser.set_defaults(room="app.command")
