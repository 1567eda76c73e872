"""What commands that cannot be done name: photographs, weights, modules, runs and records."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from captum_pullback import TrainingLens
from captum_pullback.commands.checkpoints import examples
from captum_pullback.zoo.network import preprocessing

TINY = Path(__file__).with_name("tiny.py")


def picture_of(width: int, height: int) -> bytes:
    """The beginning of a PNG that says it has so many pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT" + bytes(13)


def make_photographs() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(noise).save("noise.png")
    whole = Path("noise.png").read_bytes()
    for name, content in {
        "truncated.png": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "broken.jpg": b"\xff\xd8\xff\xe0 no photograph",
        "text.txt": b"a text",
        "page.jpg": b"<html>not found</html>",
        "bomb.png": picture_of(100_000, 100_000),
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(64),
        "vector.svg": b"<svg/>",
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    }.items():
        Path(name).write_bytes(content)
    Path("folder").mkdir()
    Path("folder.png").mkdir()
    os.symlink("loop.png", "loop.png")
    os.symlink("/nowhere/at/all.png", "dangling.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe.png")


def make_weights(tiny: object) -> None:
    state = tiny.network().model.state_dict()  # type: ignore[attr-defined]
    for name, saved in {
        "list": [torch.zeros(2)],
        "tensor": torch.zeros(2),
        "number": 3,
        "no_tensors": {"epoch": 3, "loss": 0.5},
        "empty_dict": {},
        "empty_state": {"state_dict": {}, "epoch": 1},
        "renamed": {f"part{i}.x": value for i, value in enumerate(state.values())},
        "fewer": dict(list(state.items())[:-1]),
        "more": {**state, "9.weight": torch.zeros(1)},
        "reshaped": {**state, "4.bias": torch.zeros(7)},
        "nan": {**state, "4.bias": torch.full((5,), torch.nan)},
        "whole": nn.Linear(2, 2),
    }.items():
        torch.save(saved, f"{name}.pt")
    Path("garbage.pt").write_bytes(b"PK\x03\x04 garbage")
    Path("zero.pt").write_bytes(b"")
    Path("garbage.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")


def make_modules() -> None:
    shutil.copy(TINY, "tiny.py")
    Path("syntax.py").write_text("def make(:\n    pass\n")
    Path("needs_more.py").write_text("import a_module_that_is_not_there\n")
    Path("fails.py").write_text("raise RuntimeError('this module does not want to')\n")
    Path("divides.py").write_text("value = 1 / 0\n")
    Path("leaves.py").write_text("import sys\nsys.exit(3)\n")
    Path("inner.py").write_text("import torch\ntorch.no_such_name\n")


def make_runs(tiny: object) -> None:
    """Folders of checkpoints, data, and records, for the command lens."""
    model = tiny.perceptron()  # type: ignore[attr-defined]
    good = model.state_dict()

    def checkpoints(name: str, **files: object) -> None:
        Path(name).mkdir()
        for file, saved in files.items():
            torch.save(saved, f"{name}/{file}.pt")

    checkpoints("run", step_1=good, step_2=good, step_3=good)
    checkpoints("run_one", step_1=good)
    checkpoints("run_unnumbered", first=good, second=good)
    checkpoints("run_same", a_1=good, b_1=good)
    checkpoints("run_nan", step_1={k: v * torch.nan for k, v in good.items()}, step_2=good)
    checkpoints("run_later_nan", step_1=good, step_2={k: v * torch.nan for k, v in good.items()})
    checkpoints("run_other", step_1={"other": torch.zeros(1)}, step_2=good)
    checkpoints("run_reshaped", step_1=good, step_2={**good, "0.bias": torch.zeros(9)})
    checkpoints("run_whole", step_1=model, step_2=model)
    Path("run_garbage").mkdir()
    for step in (1, 2):
        Path(f"run_garbage/step_{step}.pt").write_bytes(b"nothing")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    y = np.arange(8) % 2
    for name, arrays in {
        "good": {"inputs": x, "labels": y},
        "no_labels": {"inputs": x},
        "no_inputs": {"labels": y},
        "none": {},
        "fewer_labels": {"inputs": x, "labels": y[:5]},
        "wide_labels": {"inputs": x, "labels": np.eye(2)[y]},
        "no_examples": {"inputs": x[:0], "labels": y[:0]},
        "flat_inputs": {"inputs": x[:, 0], "labels": y},
        "one_number": {"inputs": np.float32(1), "labels": np.int64(1)},
        "empty_inputs": {"inputs": x[:, :0], "labels": y},
        "nan_inputs": {"inputs": x * np.nan, "labels": y},
        "nan_labels": {"inputs": x, "labels": y * np.nan},
        "infinite_labels": {"inputs": x, "labels": np.where(y, np.inf, 0)},
        "half_labels": {"inputs": x, "labels": y + 0.5},
        "negative_labels": {"inputs": x, "labels": y - 1},
        "large_labels": {"inputs": x, "labels": y * 7},
        "huge_labels": {"inputs": x, "labels": y * 2**40},
        "text_labels": {"inputs": x, "labels": y.astype(str)},
        "text_inputs": {"inputs": x.astype(str), "labels": y},
        "complex_inputs": {"inputs": x.astype(complex), "labels": y},
        "object_inputs": {"inputs": x.astype(object), "labels": y},
        "one_class": {"inputs": x, "labels": y * 0},
        "other_width": {"inputs": x[:, :3], "labels": y},
        "deep_inputs": {"inputs": x[:, None, :, None], "labels": y},
    }.items():
        np.savez(f"{name}.npz", **arrays)
    Path("zero.npz").write_bytes(b"")
    Path("garbage.npz").write_bytes(b"PK\x03\x04 garbage")
    good_bytes = Path("good.npz").read_bytes()
    Path("cut.npz").write_bytes(good_bytes[: len(good_bytes) // 2])
    np.save("array.npy", x)
    os.rename("array.npy", "array.npz")
    for name in ("a", "b"):
        Path(f"pictures_bad/{name}").mkdir(parents=True)
        Path(f"pictures_bad/{name}/1.png").write_bytes(b"no picture")
        Path(f"pictures_empty/{name}").mkdir(parents=True)
    Path("pictures_one/a").mkdir(parents=True)
    os.link("noise.png", "pictures_one/a/1.png")


def make_records(tiny: object) -> None:
    """Records of the run, good but for one file."""
    watched = examples(Path("good.npz"), preprocessing(224), 4)
    lens = TrainingLens(watched.inputs, watched.labels, "record_good/record")
    for step in (1, 2, 3):
        lens.record(tiny.perceptron(), step)  # type: ignore[attr-defined]
    for name, file, content in (
        ("text", "lens.json", b"no json"),
        ("list", "lens.json", b"[1, 2]"),
        ("bytes", "lens.json", b"\xff\xfe\x00"),
        ("other", "lens.json", json.dumps({"format": 1, "inputs": "others"}).encode()),
        ("step", "step_000000002.npz", b"no archive"),
        ("empty", "step_000000002.npz", b""),
        ("cut", "step_000000002.npz", None),
    ):
        folder = Path(f"record_{name}/record")
        folder.mkdir(parents=True)
        for path in Path("record_good/record").iterdir():
            os.link(path, folder / path.name)
        part = (folder / file).read_bytes()
        (folder / file).unlink()
        (folder / file).write_bytes(part[: len(part) // 2] if content is None else content)
