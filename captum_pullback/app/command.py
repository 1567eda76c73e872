"""The command ``app``: serves the page until it is stopped."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
import socket
import time
import urllib.parse
import webbrowser
from typing import Any, NoReturn

from captum_pullback.app import hidden
from captum_pullback.app.guard import LOOPBACK
from captum_pullback.app.question import RULES, Loaded, Photo
from captum_pullback.app.server import serving
from captum_pullback.app.work import private_copy
from captum_pullback.commands.terminal import complain, doing, say
from captum_pullback.study.errors import UsageError, blamed
from captum_pullback.study.loading import load_network
from captum_pullback.study.softness import read_rules, rules_text
from captum_pullback.zoo.photos import SAMPLES, PhotoError, sample_photo


def run(args: argparse.Namespace) -> int:
    """Serve the app until Ctrl-C.

    Raises:
        UsageError: Gradio is not installed, a network cannot be loaded, or the port is taken.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UsageError("the app needs Gradio: pip install 'captum-pullback[app]'")
    _check_address(args.host, args.port)
    networks = _networks(args)
    if args.host not in LOOPBACK:
        complain(f"anyone who can reach {args.host} can use the app")
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        for name in ("SIGTERM", "SIGHUP"):  # so that its folder is removed; Windows has no SIGHUP
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), _interrupt)
        others = _name_for_others(args.host)
        names = [*args.allow_host, others] if args.allow_host else []
        with doing("starting the page"):
            page = serving(networks, _samples(), args.host, args.port, names)
            url = stack.enter_context(page)
        say(f"the app is at {url} (Ctrl-C stops it)")
        if others:
            say(f"for other machines: http://{others}:{urllib.parse.urlsplit(url).port}/")
        if not args.no_browser:
            webbrowser.open(url)
        while True:
            time.sleep(3600)
    return 0


def _networks(args: argparse.Namespace) -> dict[str, Loaded]:
    """Load the networks that were asked for, and the embedded one.

    Raises:
        UsageError: There is no network of that name, it does not work, or the rules are unknown.
    """
    if args.weights is not None and len(args.model) != 1:
        raise UsageError("--weights needs exactly one --model")
    rules = RULES[0] if args.rules is None else rules_text(read_rules(args.rules))
    networks: dict[str, Loaded] = {}
    for name in dict.fromkeys([*args.model, "embedded"]):
        weights = args.weights if name in args.model else None
        with doing(f"loading {name}"):
            network = load_network(name, weights, args.device)
        try:
            layers = hidden.layers(private_copy(network))
            (outputs,) = layers.pop("")
        except Exception as error:  # anything at all: the module is the user's own
            raise blamed(error, f"{name} cannot be used") from error
        networks[name] = Loaded(
            network,
            name,
            weights,
            args.device,
            layers,
            outputs,
            rules,
        )
    return networks


def _samples() -> list[Photo]:
    found = []
    for name in SAMPLES:
        with contextlib.suppress(PhotoError):  # scikit-image is not installed
            sample_photo(name)
            found.append(Photo(name))
    return found


def _check_address(host: str, port: int | None) -> None:
    """Raise UsageError if the server cannot listen there."""
    try:
        kind, *_, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = host if port is None else f"{host}, port {port}"
        raise UsageError(f"cannot listen on {where}: {error.strerror or error}") from error


def _name_for_others(host: str) -> str:
    """Return this machine's address for others, if the server listens at all its addresses."""
    if host not in ("0.0.0.0", "::"):
        return ""
    # Connecting a datagram socket sends nothing; it only selects the address to send from.
    for kind, somewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(kind, socket.SOCK_DGRAM) as probe:
            probe.connect((somewhere, 9))
            address = str(probe.getsockname()[0])
            return f"[{address}]" if ":" in address else address
    return socket.gethostname()


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt
