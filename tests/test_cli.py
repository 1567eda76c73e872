"""The command line from outside: what it writes, what it says, and what it leaves behind."""

from __future__ import annotations

import os
import re
import stat
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captum_pullback.commands import cli, explain
from captum_pullback.outputs import OutputError, replacing, writable
from captum_pullback.study.methods import METHODS
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo import photos

ROOT = Path(__file__).parents[1]

TINY = """
import os, signal, time
from dataclasses import replace
import torch
from torch import nn
from captum_pullback.zoo.networks import Network, preprocessing

CLASSES = ("tench, Tinca tinca", "goldfish", "tabby, tabby cat", "espresso", "rocket")

def network(last=nn.Identity()):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(392, 5), last
    )
    return Network(model, CLASSES, preprocessing(16), input_size=16)

class Interrupt(nn.Module):
    calls = 0
    def forward(self, x):
        self.calls += 1
        if self.calls == 4:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # some shells take it away
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        return x

class Fail(nn.Module):
    def forward(self, x):
        if torch.is_grad_enabled():
            raise RuntimeError("this went\\nwrong")
        return x

def interrupting():
    return network(Interrupt())

def failing():
    return network(Fail())

def two_outputs():
    class Two(nn.Module):
        def forward(self, x):
            return x, x
    return network(Two())

def infinite():
    class Infinite(nn.Module):
        def forward(self, x):
            return x * float("inf")
    return network(Infinite())

def tempered():
    return replace(network(), meta={"temperature": 1.25})

def too_small():
    net = network()
    return Network(net.model, CLASSES, preprocessing(8), input_size=8)

def smooth():
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.Tanh())
    return Network(model, CLASSES, preprocessing(16), input_size=16)
"""


@pytest.fixture
def folder(working_folder: Path) -> Path:
    """The working folder, with a module of tiny networks."""
    (working_folder / "tiny.py").write_text(TINY)
    return working_folder


def command(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, in the current folder."""
    path = os.pathsep.join([str(ROOT), os.getcwd()])
    return subprocess.run(
        [sys.executable, "-m", "captum_pullback", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        **options,  # type: ignore[call-overload]
    )


def tiny(*arguments: str) -> int:
    """The command line in this process, on the tiny network."""
    return cli.main(["explain", "--model", "tiny:network", *arguments])


def new_files(folder: Path) -> set[str]:
    known = {"tiny.py", "noise.png", "other.png", "broken.jpg", "__pycache__"}
    return {path.name for path in folder.iterdir()} - known


def test_the_default_run_ends_in_a_picture(folder: Path) -> None:
    done = command("explain", "--coverage")
    assert (done.returncode, done.stderr) == (0, "")
    assert new_files(folder) == {"explanation.png"}
    with Image.open("explanation.png") as image:
        picture = np.asarray(image.convert("RGB")).astype(int)
    assert picture.shape[1] > 2.5 * picture.shape[0] > 1000
    # the photograph, at the left, is many-coloured; each of the three maps has white, red and blue
    for quarter in np.array_split(picture, 4, axis=1)[1:]:
        assert (quarter.min(axis=-1) == 255).mean() > 0.2
        assert (quarter[..., 0] - quarter[..., 2] > 100).any()
        assert (quarter[..., 2] - quarter[..., 0] > 100).any()
    assert "military uniform" in done.stdout
    assert "wrote explanation.png" in done.stdout
    for title in ("Gradient", "Integrated Gradients", r"Excitation pullback, T = [\d.]+"):
        row = re.search(rf"^  {title} +([\d.e+-]+) +([\d.e+-]+) +[\d.]+ m?s$", done.stdout, re.M)
        assert row, f"no row of figures for {title}"
        assert float(row[1]) > 0
        assert float(row[2]) > 0
    assert "layer4.1" in done.stdout, "the record names what was softened"


def test_the_arrays_are_the_attributions(folder: Path) -> None:
    from captum_pullback.attribution import ExcitationPullback

    code = tiny(
        "noise.png", "other.png", "--target", "espresso", "--target", "1", "--top-k", "1",
        "--methods", "pullback,saliency", "--temperature", "0.7", "--pool-temperature", "0.2",
        "--npz", "maps.npz",
    )  # fmt: skip
    assert code == 0
    network = zoo.load("tiny:network")
    with np.load("maps.npz", allow_pickle=False) as maps:
        assert set(maps["targets"][:2]) == {3, 1}
        assert set(maps["photographs"]) == {"noise.png", "other.png"}
        for i, name in enumerate(maps["photographs"]):
            inputs = network.preprocess(photos.read_photo(name))[None]
            np.testing.assert_array_equal(maps["inputs"][i], inputs[0])
            logits = network.model(inputs)
            np.testing.assert_allclose(maps["probabilities"][i], logits.softmax(1)[0].detach())
            pullback = ExcitationPullback(network.model, 0.7, pool_temperature=0.2)
            expected = pullback.attribute(inputs, target=int(maps["targets"][i]))
            np.testing.assert_array_equal(maps["pullback"][i], expected[0].numpy())
            inputs.requires_grad_()
            score = network.model(inputs)[0, int(maps["targets"][i])]
            gradient = torch.autograd.grad(score, inputs)[0][0]
            np.testing.assert_array_equal(maps["saliency"][i], gradient.numpy())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--top-k", "2"], None),
        ([], None),
        (["--target", "goldfish,tabby"], [1, 2]),
        (["--target", "tench, Tinca tinca"], [0]),
        (["--target", "Tench, tinca tinca", "--target", "4"], [0, 4]),
        (["--target", "4,0", "--target", "rocket"], [4, 0]),
    ],
)
def test_targets(folder: Path, options: list[str], expected: list[int] | None) -> None:
    assert (
        tiny("noise.png", "--no-scores", "--methods", "saliency", "--npz", "m.npz", *options) == 0
    )
    with np.load("m.npz") as maps:
        if expected is None:
            order = np.argsort(-maps["probabilities"][0])
            expected = order[: len(maps["targets"])].tolist()
            assert len(expected) == (2 if options else 1)
        assert maps["targets"].tolist() == expected


@pytest.mark.parametrize("suffix", ["png", "PDF", "svg"])
def test_figures_by_suffix(folder: Path, suffix: str) -> None:
    assert tiny("noise.png", "--no-scores", "--out", f"figure.{suffix}") == 0
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix.lower()]
    assert (folder / f"figure.{suffix}").read_bytes().startswith(start)
    if suffix == "svg":
        assert "Integrated Gradients</text>" in (folder / "figure.svg").read_text()


@pytest.mark.parametrize("show", ["heat_map", "blended_heat_map", "colors"])
def test_every_method_in_every_style(
    folder: Path, capsys: pytest.CaptureFixture[str], show: str
) -> None:
    assert tiny("noise.png", "--methods", ",".join(METHODS), "--show", show) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for method in METHODS.values():
        assert method.title in printed.out


def test_the_fitted_temperature_is_the_one_that_is_used(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from captum_pullback.attribution import ExcitationPullback

    options = ("--temperature", "fit", "--methods", "pullback", "--npz", "m.npz")
    assert tiny("noise.png", "other.png", *options) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    best = re.search(r"^ *([\d.]+) +[\d.]+ +<- best(, at the limit.*)?$", printed.out, re.M)
    assert best
    assert f"T = {float(best[1]):.3g}" in printed.out
    with np.load("m.npz") as maps:
        pullback = ExcitationPullback(zoo.load("tiny:network").model, float(best[1]))
        inputs = torch.from_numpy(maps["inputs"])
        expected = pullback.attribute(inputs, target=maps["targets"].tolist())
        np.testing.assert_allclose(maps["pullback"], expected, rtol=1e-3, atol=1e-7)


def test_the_default_temperature_is_the_networks_or_that_of_the_papers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny("noise.png", "--no-scores", "--methods", "pullback") == 0
    assert "T = 0.3 " in capsys.readouterr().out
    arguments = ("--model", "tiny:tempered", "--no-scores", "--methods", "pullback")
    assert tiny("noise.png", *arguments) == 0
    assert "T = 1.25 " in capsys.readouterr().out
    assert tiny("noise.png", *arguments, "--temperature", "0.5") == 0
    assert "T = 0.5 " in capsys.readouterr().out


def test_names_of_the_methods_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["explain", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in METHODS:
        assert re.search(rf"\b{name}\b", text)


def test_good_photographs_come_out_beside_bad_ones(folder: Path) -> None:
    done = command(
        "explain", "broken.jpg", "noise.png", "missing.png", "--model", "tiny:network",
        "--npz", "maps.npz",
    )  # fmt: skip
    assert done.returncode == 2
    assert [line.split(": ")[:3] for line in done.stderr.splitlines()] == [
        ["captum-pullback", "error", "broken.jpg"],
        ["captum-pullback", "error", "missing.png"],
    ]
    assert new_files(folder) == {"explanation.png", "maps.npz"}
    with np.load("maps.npz") as maps:
        assert maps["photographs"].tolist() == ["noise.png"]
    assert "noise.png: " in done.stdout


ERRORS: dict[str, tuple[list[str], str]] = {
    "missing": (["missing.png"], "missing.png: no such file"),
    "broken": (["broken.jpg"], "broken.jpg: is"),
    "folder": (["."], "is a folder"),
    "model": (["--model", "resnet5"], "no network is called 'resnet5'.*resnet50"),
    "weights": (["--weights", "none.pt"], "no file 'none.pt'"),
    "broken weights": (["--weights", "broken.jpg"], "no readable state dict"),
    "class": (["--target", "goldfsh"], "no class is called 'goldfsh'.*goldfish"),
    "one class of two": (["--target", "tabby,nothing"], "no class is called 'nothing'"),
    "class number": (["--target", "5"], "class 5 is not within 0 to 4"),
    "negative class": (["--target", "-1"], "class -1|expected one argument"),
    "nothing to explain": (["--top-k", "0"], "nothing to explain"),
    "negative top-k": (["--top-k", "-2"], "-2"),
    "method": (["--methods", "pullback,magic"], "no method is called 'magic'; there are pullback"),
    "temperature": (["--temperature", "-0.1"], "from 0 to inf, not '-0.1'|expected one argument"),
    "NaN": (["--temperature", "nan"], "from 0 to inf, not 'nan'"),
    "cold": (["--temperature", "cold"], "from 0 to inf, not 'cold'"),
    "pool": (["--pool-temperature", "fit"], "from 0 to inf, not 'fit'"),
    "device": (["--device", "abacus"], "no device 'abacus'"),
    "suffix": (["--out", "figure.docx"], "ends in .png or .pdf or .svg"),
    "no suffix": (["--out", "figure"], "ends in .png or .pdf or .svg"),
    "npz suffix": (["--npz", "maps.npy"], "ends in .npz"),
    "no folder": (["--out", "nowhere/a.png"], "no folder"),
    "out is a folder": (["--out", "folder.png"], "not a regular file"),
    "out is the photograph": (["--out", "noise.png"], "one of the photographs"),
    "option": (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    "no logits": (["--model", "tiny:two_outputs"], "tiny:two_outputs fails on noise.png: its out"),
    "wrong size": (["--model", "tiny:too_small"], "tiny:too_small fails on noise.png: .*72"),
    "infinite": (["--model", "tiny:infinite"], "noise.png: Gradient: .*NaN or infinite"),
    "nothing softened": (["--model", "tiny:smooth"], "noise.png: Excitation pullback: "),
    "fit without gates": (
        ["--model", "tiny:smooth", "--temperature", "fit"],
        "--temperature fit: ",
    ),
    "failing": (["--model", "tiny:failing"], "noise.png: Gradient: this went wrong"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_line_and_leave_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    (folder / "folder.png").mkdir()
    arguments, says = ERRORS[case]
    photo = [] if arguments[0].startswith(("missing", "broken", ".")) else ["noise.png"]
    assert tiny(*photo, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("captum-pullback: error: ")
    assert re.search(says, printed.err)
    assert new_files(folder) == {"folder.png"}


def test_no_command_and_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["explode"]):
        assert cli.main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_names_of_files_that_would_break_a_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "two\nlines $x^2$ \udcff.png"
    os.rename("noise.png", name)
    assert tiny(name, "a\nb.png", "--no-scores", "--out", "figure.svg") == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "two?lines $x^2$ ?.png: " in printed.out
    assert "two?lines $x^2$ ?.png" in (folder / "figure.svg").read_text()


def test_ctrl_c(folder: Path) -> None:
    done = command("explain", "noise.png", "--model", "tiny:interrupting", "--npz", "m.npz")
    assert done.returncode == 130
    assert (done.stdout, done.stderr) == ("", "captum-pullback: interrupted\n")
    assert new_files(folder) == set()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_write_keeps_the_old_file(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    def write(figure: object, file: object, format: str) -> None:
        file.write(b"half of it")  # type: ignore[attr-defined]
        raise error

    (folder / "explanation.png").write_bytes(b"the old one")
    monkeypatch.setattr(explain, "save_figure", write)
    assert tiny("noise.png", "--no-scores") == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert capsys.readouterr().err.count("\n") == 1
    assert (folder / "explanation.png").read_bytes() == b"the old one"
    assert new_files(folder) == {"explanation.png"}


def test_replacing_keeps_permissions_and_follows_links(tmp_path: Path) -> None:
    real, link = tmp_path / "real.png", tmp_path / "link.png"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    with replacing(writable(link, [".png"])) as file:
        file.write(b"new")
    assert real.read_bytes() == b"new"
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    if os.geteuid() != 0:  # root may write anywhere
        real.chmod(0o400)
        with pytest.raises(OutputError, match="permissions"):
            writable(real, [".png"])


def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "null.png").symlink_to(os.devnull)
    with pytest.raises(OutputError, match="not a regular file"):
        writable(tmp_path / "null.png", [".png", ""])
    assert not Path(os.devnull).is_file()


def test_help_needs_no_torch() -> None:
    """The command line's own modules do not; what the package itself imports is not asked here."""
    code = (
        "import sys, types\n"
        "package = sys.modules['captum_pullback'] = types.ModuleType('captum_pullback')\n"
        f"package.__path__ = [{str(ROOT / 'captum_pullback')!r}]\n"
        "from captum_pullback.commands.cli import main\n"
        "try: main(['explain', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--temperature" in done.stdout


def test_the_progress_bar_is_for_terminals(folder: Path) -> None:
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    assert command_to(writer, "explain", "noise.png", "--model", "tiny:network") == 0
    os.set_blocking(reader, False)
    written = os.read(reader, 1 << 16).decode()
    os.close(writer)
    os.close(reader)
    assert "3/3" in written
    assert "Integrated Gradients" in written


def command_to(stderr: int, *arguments: str) -> int:
    path = os.pathsep.join([str(ROOT), os.getcwd()])
    return subprocess.run(
        [sys.executable, "-m", "captum_pullback", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    ).returncode


def test_a_closed_pipe_is_no_error(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    path = os.pathsep.join([str(ROOT), os.getcwd()])
    done = subprocess.run(
        [sys.executable, "-m", "captum_pullback", "explain", "noise.png", "--no-scores",
         "--model", "tiny:network"],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "explanation.png").exists()
