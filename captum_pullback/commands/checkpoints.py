"""What the command ``lens`` watches: saved checkpoints and pictures, or a small run of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from captum_pullback.engine.models import on_copies
from captum_pullback.lens.trajectories import scikit_learn
from captum_pullback.perturbations import seeded
from captum_pullback.study.errors import UsageError, reason
from captum_pullback.study.loading import load_network
from captum_pullback.zoo import networks as zoo
from captum_pullback.zoo import statefiles
from captum_pullback.zoo.network import Network
from captum_pullback.zoo.photos import PhotoError, read_photo
from captum_pullback.zoo.reference import ReferenceNet

__all__ = [
    "Examples",
    "check_classes",
    "checkpoints",
    "digits_run",
    "examples",
    "fill",
    "network_for",
    "read_state",
]

_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_WANTED = f"saved by Lightning or with names that end in the step, and {', '.join(_SUFFIXES)}"

# Lightning appends this to a name that is taken: it is not a step.
_VERSION = re.compile(r"-v\d+$")
# The step, if the name says which number it is, as in "epoch=1-step=8-val_loss=0.52"; otherwise any
# whole number, but not the digits of a decimal number.
_NAMED = re.compile(r"(?<![a-z])(?:global_)?step[=_-]?(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<!\d)(?<!\d\.)\d+(?!\.?\d)")


@dataclass(frozen=True)
class Examples:
    """The examples that a lens watches.

    Attributes:
        inputs: Shape (N, ...).
        labels: Shape (N,).
        classes: The classes' names.
    """

    inputs: Tensor
    labels: Tensor
    classes: list[str]


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints of a folder by step: the step that Lightning saved, or the name's.

    If two files of one step have the same weights, like Lightning's ``last.ckpt`` and the
    checkpoint before it, one is used.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder of checkpoints")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        step = _step(path) if path.suffix in _SUFFIXES else None
        if step is None:
            continue
        if step in found:
            if not _same(read_state(path), read_state(found[step])):
                raise UsageError(
                    f"{path}: has the same step {step} as {found[step].name}, but other weights: "
                    "are these two training runs? Move one of them to another folder"
                )
            continue
        found[step] = path
    if len(found) < 2:
        raise UsageError(
            f"{folder}: contains {len(found)} checkpoints; at least two are needed, {_WANTED}"
        )
    return sorted(found.items())


def _step(path: Path) -> int | None:
    """Return the step of a checkpoint; None if neither the file nor its name has one."""
    try:
        saved = statefiles.load(path)
    except zoo.ZooError:
        saved = None  # if its name has a step, `read_state` will say what is wrong
    if isinstance(saved, dict) and isinstance(saved.get("global_step"), int):
        return int(saved["global_step"])
    name = _VERSION.sub("", path.stem)
    numbers = _NAMED.findall(name) or _NUMBER.findall(name)
    return int(numbers[-1]) if numbers else None


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a checkpoint, alone in the file or under a usual name."""
    try:
        return statefiles.read_state(path)
    except zoo.ZooError as error:
        raise UsageError(str(error)) from error


def network_for(state: dict[str, Tensor], name: str | None) -> Network:
    """Return an untrained network that the state fits, with its preprocessing.

    Args:
        state: The state of one of the checkpoints.
        name: The network's name for `zoo.load`; None for the package's `ReferenceNet` of any width.
    """
    if name is not None:
        own = ":" in name and name.partition(":")[0] not in zoo.HUBS
        return load_network(name, None if own else "random")
    try:
        widths = [state[f"layer{k}.0.conv1.weight"].shape[0] for k in (1, 2, 3, 4)]
        model = ReferenceNet(len(state["fc.bias"]), widths, "bn1.weight" in state)
    except KeyError as error:
        raise UsageError(
            "the checkpoints are not of the package's own network: name theirs with --model "
            "package.module:function"
        ) from error
    mean, std = zoo.IMAGENET_MEAN, zoo.IMAGENET_STD
    return Network(model, (), zoo.preprocessing(64, None, mean, std), mean, std, 64)


def fill(model: nn.Module, path: Path) -> nn.Module:
    """Load a checkpoint's state into the model, and return it."""
    try:
        statefiles.fill(model, path)
    except zoo.ZooError as error:
        raise UsageError(str(error)) from error
    return model.eval()


def examples(data: Path, preprocess: Callable[[Image.Image], Tensor], per_class: int) -> Examples:
    """Return the first pictures of each class of a folder, or the arrays of a file.

    Args:
        data: A folder with ``val/<class>/*`` or ``<class>/*``; or an .npz file with ``inputs``
            (N, ...) and ``labels`` (N,), as the network takes them.
        preprocess: Maps a picture to the network's input.
        per_class: The number of examples of each class.
    """
    if data.suffix == ".npz":
        return _arrays(data, per_class)
    root = data / "val" if (data / "val").is_dir() else data
    if not root.is_dir():
        raise UsageError(f"{data}: is neither a folder of pictures nor an .npz file")
    inputs: list[Tensor] = []
    labels: list[int] = []
    classes: list[str] = []
    folders = (path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    for folder in sorted(folders):
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
        if not files:
            raise UsageError(
                f"{folder}: contains no pictures, but each folder stands for a class: "
                "add some, or move the folder elsewhere"
            )
        try:
            inputs += [preprocess(read_photo(path)) for path in files[:per_class]]
        except PhotoError as error:
            raise UsageError(str(error)) from error
        labels += [len(classes)] * len(files[:per_class])
        classes.append(folder.name)
    if len(classes) < 2:
        raise UsageError(
            f"{root}: contains {len(classes)} folders of pictures; expected one for each class"
        )
    return Examples(torch.stack(inputs), torch.tensor(labels), classes)


def check_classes(model: nn.Module, watched: Examples) -> None:
    """Check that the folders of pictures, numbered in their order, can be the classes.

    Raises:
        UsageError: The network has more outputs, or fewer.
    """
    with torch.no_grad():
        outputs = on_copies(model.eval(), watched.inputs[:1]).shape[-1]
    if outputs != len(watched.classes):
        raise UsageError(
            f"there are {len(watched.classes)} folders of pictures for a network of {outputs} "
            "classes: give one folder for each class, in the order of the classes, or an "
            ".npz file with 'inputs' and 'labels'"
        )


def _arrays(path: Path, per_class: int) -> Examples:
    inputs, labels = _read_arrays(path)
    kinds = (inputs.dtype.kind, labels.dtype.kind)
    if kinds[0] not in "fiub" or kinds[1] not in "fiub":
        raise UsageError(f"{path}: 'inputs' and 'labels' must be numbers")
    if labels.ndim != 1 or inputs.ndim < 2 or len(inputs) != len(labels) or not inputs.size:
        raise UsageError(
            f"{path}: has inputs of shape {inputs.shape} and labels of shape {labels.shape}; "
            "expected (N, ...) and (N,), N above 0"
        )
    for name, array in (("inputs", inputs), ("labels", labels)):
        if not np.isfinite(array).all():
            raise UsageError(f"{path}: {name} are NaN or infinite in places")
    if (labels < 0).any() or (labels != np.floor(labels)).any() or labels.max() >= 2**31:
        raise UsageError(f"{path}: labels must be whole numbers of 0 or more")
    numbers = torch.from_numpy(labels.astype(np.int64))
    names = torch.unique(numbers)
    if len(names) < 2:
        raise UsageError(f"{path}: has only one class; at least two are needed")
    chosen = torch.cat([torch.nonzero(numbers == c)[:per_class, 0] for c in names])
    kept = torch.from_numpy(inputs[chosen.numpy()].astype(np.float32))
    return Examples(kept, numbers[chosen], [f"class {c}" for c in names.tolist()])


def _read_arrays(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            missing = [name for name in ("inputs", "labels") if name not in arrays]
            if missing:
                found = ", ".join(arrays) or "none"
                raise UsageError(f"{path}: has no array {missing[0]!r} (its arrays: {found})")
            return arrays["inputs"], arrays["labels"]
    except UsageError:
        raise
    except Exception as error:  # whatever parsing untrusted bytes may raise
        raise UsageError(f"{path}: cannot be read as an .npz file ({reason(error)})") from error


DIGITS_STEPS = 960
_DIGITS_RECORDED = (0, 1, 2, 4, 8, 16, 32, 64, 128, 192, 256, *range(320, DIGITS_STEPS + 1, 64))


def digits_network() -> nn.Module:
    """Return a perceptron with two hidden layers, 64 - 128 - 128 - 10."""
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def digits_run(seed: int, per_class: int) -> tuple[Examples, Iterator[tuple[int, nn.Module]]]:
    """Train on scikit-learn's handwritten digits (8 x 8 pixels, 1,797 of them).

    Returns:
        Held out examples, and the model at each step to record.
    """
    bunch = scikit_learn("datasets").load_digits()
    pictures = torch.from_numpy(bunch.data).float()
    pictures = (pictures - pictures.mean()) / pictures.std()
    labels = torch.from_numpy(bunch.target).long()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    held_out, training = order[:450], order[450:]
    few = [held_out[labels[held_out] == c][:per_class] for c in range(10)]
    chosen = torch.cat(few)

    def run() -> Iterator[tuple[int, nn.Module]]:
        with seeded(seed):
            model = digits_network()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        step = 0
        while True:
            for batch in torch.split(torch.randperm(len(training), generator=generator), 64):
                if step in _DIGITS_RECORDED:
                    yield step, model
                if step == DIGITS_STEPS:
                    return
                picked = training[batch]
                loss = F.cross_entropy(model(pictures[picked]), labels[picked])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                step += 1

    return Examples(pictures[chosen], labels[chosen], [str(c) for c in range(10)]), run()
