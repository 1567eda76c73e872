"""Reading photographs: from any ordinary picture file to upright 8-bit RGB."""

from __future__ import annotations

import contextlib
import os
import stat
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["MAX_PIXELS", "MAX_SIDE", "SAMPLES", "PhotoError", "read_photo", "sample_photo"]

#: Pictures with more pixels than this are refused (Pillow's own limit at which it raises).
MAX_PIXELS = 178_956_970

#: The longer side to which larger photographs are reduced. Networks look at 64 to 600 pixels.
MAX_SIDE = 2048

#: Photographs in installed packages: the first is matplotlib's, the others scikit-image's.
SAMPLES = ("grace_hopper", "chelsea", "coffee", "rocket")

# A list of formats to try, and not all that Pillow knows: its EPS reader, for one, starts
# Ghostscript, which no photograph needs. The last two exist in some installations only.
_FORMATS: tuple[str, ...] = (
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
    "TIFF",
    "WEBP",
    "PPM",
    "TGA",
    "ICO",
    "JPEG2000",
)
_FORMATS += ("AVIF", "HEIF")

#: How HEIF files begin, after their first four bytes.
_HEIF = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1"))

# What to do for each value of EXIF's orientation tag.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PhotoError(ValueError):
    """A file that cannot be read as a photograph. The message is one line: what, and what to do."""


def read_photo(path: str | os.PathLike[str], *, max_side: int = MAX_SIDE) -> Image.Image:
    """Read a picture file as an upright RGB photograph with 8 bits per channel.

    It is turned as its EXIF orientation says. If there are several frames, the first one is read.
    Transparent parts become white. Gray, palette and CMYK are converted as Pillow converts them,
    without color profiles, which is how the networks' training pictures were read. 16-bit gray is
    divided by 257 and rounded, so that 65,535 becomes 255 (12-bit by 4095 / 255). Floating point is
    taken to be in [0, 1] if it fits; otherwise it, like 32-bit integers, is stretched from its own
    minimum and maximum, as there is no agreed white.

    Args:
        path: The file.
        max_side: Photographs longer than this many pixels are reduced to it, keeping their shape.

    Returns:
        An image in mode ``RGB`` that no longer depends on the file.

    Raises:
        PhotoError: Missing, a folder, empty, not a picture, broken, truncated, or more than
            ``MAX_PIXELS`` pixels.
    """
    name = os.fspath(path)
    _check_file(name)
    if _is_heif(name):
        _add_heif_reader()
    with warnings.catch_warnings():
        # Pillow warns about odd EXIF, palettes and bombs. The first two do no harm here and
        # the last has a limit, and an error, of its own below.
        warnings.simplefilter("ignore")
        try:
            with Image.open(name, formats=_formats()) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                # JPEG decodes at 1/2, 1/4 or 1/8 for next to nothing. At least twice the final
                # size, so that the reduction proper still has something to average.
                if image.format in ("JPEG", "MPO"):
                    image.draft(None, _fit(width, height, 2 * max_side))
                image.load()
                photo = _to_rgb(image)
                turn = _TURNS.get(_orientation(image))
        except Image.DecompressionBombError:
            raise PhotoError(
                f"{name}: has more than {MAX_PIXELS:,} pixels; reduce it first"
            ) from None
        except PhotoError:
            raise
        except Exception as error:  # whatever parsing untrusted bytes may raise
            raise PhotoError(_unreadable(name, error)) from error
    photo.info.clear()  # orientation and transparency have been applied
    if turn is not None:
        photo = photo.transpose(turn)
    if max(photo.size) > max_side:
        photo.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return photo


def sample_photo(name: str) -> Image.Image:
    """Read a photograph that comes with an installed package: nothing is downloaded.

    Args:
        name: ``grace_hopper`` (matplotlib's), or ``chelsea``, ``coffee`` or ``rocket``
            (scikit-image's); a suffix such as ``.jpg`` is allowed.

    Raises:
        PhotoError: No such sample, or scikit-image is not installed.
    """
    stem = Path(name).stem
    if stem not in SAMPLES:
        raise PhotoError(
            f"no sample photograph is called {name!r}; choose from {', '.join(SAMPLES)}"
        )
    if stem == "grace_hopper":
        from matplotlib import cbook

        return read_photo(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    try:
        from skimage import data
    except ImportError as error:
        raise PhotoError(
            f"the sample photograph {stem!r} comes with scikit-image; pip install scikit-image"
        ) from error
    return Image.fromarray(getattr(data, stem)()).convert("RGB")


def _check_file(name: str) -> None:
    try:
        status = os.stat(name)
    except FileNotFoundError:
        raise PhotoError(f"{name}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise PhotoError(f"{name!r}: cannot be opened ({_reason(error)})") from None
    if stat.S_ISDIR(status.st_mode):
        raise PhotoError(f"{name}: is a folder; give the photographs in it, as in {name}/*.jpg")
    if not stat.S_ISREG(status.st_mode):  # a pipe without a writer would wait forever
        raise PhotoError(f"{name}: is not a regular file; save the photograph to one first")
    if status.st_size == 0:
        raise PhotoError(f"{name}: is empty; get the photograph again")


def _is_heif(name: str) -> bool:
    try:
        with open(name, "rb") as file:
            return file.read(12)[4:12] in _HEIF
    except OSError:  # opening it below will say why
        return False


def _add_heif_reader() -> None:
    """Let Pillow read iPhones' HEIC, if pillow-heif is installed."""
    with contextlib.suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()


def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _fit(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the size of a width x height picture once its longer side is reduced to ``side``."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _unreadable(name: str, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{name}: cannot be read; change its permissions"
    if isinstance(error, UnidentifiedImageError):
        if _is_heif(name):
            return (
                f"{name}: is HEIC, which Pillow cannot read by itself; pip install pillow-heif, "
                "or save it as JPEG or PNG"
            )
        return f"{name}: is not a picture that Pillow can read; save it as JPEG or PNG"
    return f"{name}: is broken or truncated ({_reason(error)}); get the photograph again"


def _reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(text.split()) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block does not say which way is up
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any of Pillow's modes to RGB."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_levels(image)).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        paper = Image.new("RGBA", image.size, "white")
        paper.alpha_composite(image.convert("RGBA"))
        return paper.convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _levels(image: Image.Image) -> np.ndarray:
    """Reduce 16- or 32-bit gray to 8-bit levels, (H, W)."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    low, high = 0.0, 0.0
    if image.mode.startswith("I;16") or image.format == "PNG":
        # PNG: older Pillow reads 16-bit gray as 32-bit integers
        bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]
        high = 4095.0 if bits == 12 else 65535.0
    elif image.mode == "F" and values.min() >= 0 and values.max() <= 1:
        high = 1.0
    else:
        low, high = float(values.min()), float(values.max())
    scaled = (values - low) / max(high - low, 1e-300) * 255
    return np.floor(np.clip(scaled, 0, 255) + 0.5).astype(np.uint8)
