"""What can be asked on the command line.

A command is a function here that adds its parser, and a module, of `captum_pullback.commands` or
the app's, whose ``run`` does it. Only that module imports torch, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from captum_pullback._version import __version__
from captum_pullback.commands.arguments import (
    add_figure,
    add_network,
    add_rules,
    add_seed,
    add_softness,
    count,
    name,
    port,
    positive,
    positive_count,
    side,
    temperature,
    temperature_or_fit,
)
from captum_pullback.commands.terminal import PROGRAM
from captum_pullback.study.errors import UsageError

__all__ = ["CODES", "parser"]

CODES = (
    "Exit codes: 0, all was done; 2, what was asked cannot be done, or not for every photograph "
    "(one that some methods cannot explain is done if any other can); "
    "1, a fault of the program itself; 130, stopped by Ctrl-C. What went wrong is said on stderr "
    "in one line; under it, where an error is your own module's, its lines."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help says more)")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets ``room``, the module whose ``run`` does it."""
    whole = _Parser(
        prog=PROGRAM,
        description="Excitation pullbacks: explanations of what a ReLU network sees.",
        epilog=CODES,
    )
    whole.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_explain(commands)
    _add_lens(commands)
    _add_ascend(commands)
    _add_app(commands)
    return whole


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
        type=name,
        metavar="PHOTO",
        default=["grace_hopper"],
        help="picture files, or sample photographs: grace_hopper (the default), chelsea, coffee, "
        "rocket",
    )
    add_network(add)
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
        "smoothgrad, smoothpullback, ascent, gradcam, guidedgradcam, fusiongrad, lrp (Captum's); "
        "epsilonplusflat, epsilongammabox (zennit's LRP, from the extra rivals); with commas "
        "between",
    )
    add(
        "--temperature",
        type=temperature_or_fit,
        metavar="T",
        help="of the pullback: 0 (gates as they are) to inf; '1 spread', in units of the spread "
        "of each gate's inputs; '0.3,gelu=1,attention=2', with others for kinds of gates or "
        "modules; 'fit' or 'fit spread', for that of the least infidelity (default: what is known "
        "to suit the network, or 0.3)",
    )
    add_softness(add)
    add_seed(add, "the scores' and SmoothGrad's noise")
    add(
        "--show",
        choices=["heat_map", "blended_heat_map", "colors"],
        default="heat_map",
        help="maps summed over channels (the default), the same over the photograph, or channels "
        "as colors around gray",
    )
    add(
        "--scores",
        choices=["quick", "full", "none"],
        default="quick",
        help="infidelity and max-sensitivity: within 20 s a photograph, over fewer samples where "
        "a network is slow (the default); over all samples, however long it takes; or none",
    )
    add("--no-scores", dest="scores", action="store_const", const="none", help="as --scores none")
    add("--coverage", action="store_true", help="print what was softened and what was left hard")
    add_figure(add, "explanation.png")
    add("--npz", type=name, metavar="FILE", help="the attributions themselves, as numpy arrays")
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
        type=name,
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
    add_network(add)
    add(
        "--temperature",
        type=temperature,
        metavar="T",
        help="of the pullback: 0 (gates as they are) to inf; '1 spread', in units of the spread "
        "of each gate's inputs; '0.3,gelu=1,attention=2', with others for kinds of gates or "
        "modules (default: what is known to suit the network, or 0.3)",
    )
    add_softness(add)
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
        help="what shares one color scale of perturbations (default: row)",
    )
    add_seed(add, "the random classes")
    add_figure(add, "ascent.png")
    add("--gif", type=name, metavar="FILE", help="an animation over the steps besides")
    parser.set_defaults(room="commands.ascend")


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
    add(
        "--checkpoints",
        type=name,
        metavar="DIR",
        help="folder of files whose names end in the step",
    )
    add(
        "--data",
        type=name,
        metavar="DIR",
        help="folder with val/<class>/ or <class>/ of pictures; or an .npz file with 'inputs' and "
        "'labels'",
    )
    add(
        "--out",
        type=name,
        default="lens",
        metavar="DIR",
        help="folder of the report (default: lens)",
    )
    add(
        "--model",
        type=name,
        metavar="NAME",
        help="the checkpoints' network: module:function, of an installed module or one in this "
        "folder, efficientnet_lite0, or one of torchvision's classifiers (default: the package's "
        "own, of any width)",
    )
    add(
        "--size",
        type=side,
        metavar="PIXELS",
        help="side of the pictures (default: the network's)",
    )
    add(
        "--per-class",
        type=positive_count,
        metavar="N",
        help="examples of each class (default: 5, or 20 digits)",
    )
    add(
        "--weights",
        choices=["all", "label"],
        default="all",
        help="record the weights of all classes, or of each example's own (faster)",
    )
    add_seed(add, "the training on digits")
    parser.set_defaults(room="commands.lens")


def _add_app(commands: Any) -> None:
    parser = commands.add_parser(
        "app",
        help="explore pullbacks in a browser",
        description="Opens a page on this machine in which photographs are explained while one "
        "moves the temperature. It works offline and sends nothing. Ctrl-C stops it.",
    )
    add = parser.add_argument
    add(
        "--model",
        action="append",
        type=name,
        default=[],
        metavar="NAME",
        help="a network besides the embedded one: efficientnet_lite0, one of torchvision's "
        "classifiers such as resnet50, or module:function, of an installed module or one in this "
        "folder; may be repeated",
    )
    add(
        "--weights",
        type=name,
        metavar="FILE",
        help="a state dict for the one --model, instead of its own",
    )
    add("--device", type=name, default="cpu", help="cpu (the default), cuda, cuda:1, mps")
    add_rules(add, "; what the page starts with")
    add(
        "--host",
        type=name,
        default="127.0.0.1",
        help="address to listen at (default: 127.0.0.1, for this machine alone)",
    )
    add(
        "--allow-host",
        action="append",
        type=name,
        default=[],
        metavar="NAME",
        help="with another --host: a name by which pages may call this server, and no other; may "
        "be repeated",
    )
    add("--port", type=port, metavar="N", help="default: the first free one from 7860 on")
    add("--no-browser", action="store_true", help="only say where the page is")
    parser.set_defaults(room="app.command")
