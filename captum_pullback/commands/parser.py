"""The command line's options.

Each command has a function here that adds its parser, and a module in `captum_pullback.commands` or
the app whose ``run`` carries it out. Only that module imports torch, so that ``--help`` is fast.
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
)
from captum_pullback.commands.terminal import PROGRAM
from captum_pullback.study.errors import UsageError

__all__ = ["CODES", "parser"]

CODES = (
    "Exit codes: 0, everything was done; 2, the request cannot be carried out, or not for every "
    "photograph (one that some methods cannot explain counts as done if any other method can); "
    "1, a bug in this program; 130, stopped by Ctrl-C. One line on stderr says what went wrong; if "
    "the error came from your own module, its traceback follows."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """Make the parser of all commands; each sets ``module``, the module whose ``run`` does it."""
    whole = _Parser(
        prog=PROGRAM,
        description="Excitation pullbacks: explanations of what an image classifier looks at.",
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
        description="Explain photographs by several methods side by side, with each method's "
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
        help="class to explain, by name or number; separate several by commas, or repeat this",
    )
    add(
        "--top-k",
        type=count,
        metavar="K",
        help="explain the K most probable classes (default: 1 if there is no --target)",
    )
    add(
        "--methods",
        default="saliency,ig,pullback",
        metavar="NAMES",
        help="any of pullback, saliency (the plain gradient), ig, inputxgradient, guidedbackprop, "
        "smoothgrad, smoothpullback, ascent, gradcam, guidedgradcam, fusiongrad, lrp (Captum's), "
        "epsilonplusflat, epsilongammabox (zennit's LRP, extra rivals), attn_lrp (needs lxt too), "
        "separated by commas",
    )
    add_softness(add, fits=True)
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
        help="infidelity and max-sensitivity: quick, within 20 s per photograph, over fewer "
        "samples if the network is slow (the default); full, over all samples; or none",
    )
    add("--no-scores", dest="scores", action="store_const", const="none", help="--scores none")
    add(
        "--coverage", action="store_true", help="print which gates were softened, held or left hard"
    )
    add_figure(add, "explanation.png")
    add("--npz", type=name, metavar="FILE", help="save the attributions as NumPy arrays")
    parser.set_defaults(module="commands.explain")


def _add_ascend(commands: Any) -> None:
    parser = commands.add_parser(
        "ascend",
        help="change photographs so that a class's score rises, in a few steps along the pullback",
        description="Take a few steps in pixel space along the pullback of each class, and show "
        "the result: a grid of photographs and classes, with each photograph's own class framed.",
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
        "separated by commas (default: the photographs' own classes)",
    )
    add_network(add)
    add_softness(add)
    add("--steps", type=positive_count, default=5, metavar="K", help="number of steps (default: 5)")
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
        help="greatest distance from the photograph, as a fraction of its norm (default: 0.5)",
    )
    add("--unbounded", action="store_true", help="let pixels go beyond black and white")
    add("--compare", action="store_true", help="add the same grid for the plain gradient")
    add(
        "--show",
        choices=["both", "perturbation", "photograph"],
        default="both",
        help="show the perturbed photograph above the perturbation (the default), or one of them",
    )
    add(
        "--scale",
        choices=["row", "cell", "figure"],
        default="row",
        help="which perturbations share one color scale (default: row)",
    )
    add_seed(add, "the random classes")
    add_figure(add, "ascent.png")
    add("--gif", type=name, metavar="FILE", help="also save an animation over the steps")
    parser.set_defaults(module="commands.ascend")


def _add_lens(commands: Any) -> None:
    parser = commands.add_parser(
        "lens",
        help="report on a training run: its effective weights and its gates, in figures and a page",
        description="Report on a training run from its checkpoints: effective weights within "
        "and between classes, gates that settle, and temperatures fitted to them. Without "
        "--checkpoints it trains a small perceptron on scikit-learn's handwritten digits. If it "
        "was interrupted, start it again to continue.",
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
        help="folder of pictures in val/<class>/ or <class>/, or an .npz file with 'inputs' and "
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
        help="the checkpoints' network: module:function, from an installed module or one in the "
        "current folder, efficientnet_lite0, or one of torchvision's classifiers (default: the "
        "architecture of the package's own network, of any width)",
    )
    add(
        "--size",
        type=side,
        metavar="PIXELS",
        help="side of the pictures, in pixels (default: the network's)",
    )
    add(
        "--per-class",
        type=positive_count,
        metavar="N",
        help="number of examples of each class (default: 5, or 20 digits)",
    )
    add(
        "--weights",
        choices=["all", "label"],
        default="all",
        help="record the weights of all classes, or of each example's own class (faster)",
    )
    add_seed(add, "the training on digits")
    parser.set_defaults(module="commands.lens")


def _add_app(commands: Any) -> None:
    parser = commands.add_parser(
        "app",
        help="explore pullbacks in a browser",
        description="Open a page on this machine that explains photographs and follows the "
        "temperature slider. It works offline and sends nothing. Ctrl-C stops it.",
    )
    add = parser.add_argument
    add(
        "--model",
        action="append",
        type=name,
        default=[],
        metavar="NAME",
        help="a network in addition to the embedded one: efficientnet_lite0, one of torchvision's "
        "classifiers such as resnet50, or module:function, from an installed module or one in the "
        "current folder; may be repeated",
    )
    add(
        "--weights",
        type=name,
        metavar="FILE",
        help="a state dict to load into the network, if there is a single --model",
    )
    add("--device", type=name, default="cpu", help="cpu (the default), cuda, cuda:1, mps")
    add_rules(add, "; the page starts with these")
    add(
        "--host",
        type=name,
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, reachable from this machine only)",
    )
    add(
        "--allow-host",
        action="append",
        type=name,
        default=[],
        metavar="NAME",
        help="with another --host: a host name that requests may use; all others are refused; may "
        "be repeated",
    )
    add("--port", type=port, metavar="N", help="default: the first free port from 7860 up")
    add("--no-browser", action="store_true", help="only print the page's address")
    parser.set_defaults(module="app.command")
