"""Every kind of picture file, by the values of its pixels."""

from __future__ import annotations

import io
import os
import struct
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captum_pullback.zoo import photos
from captum_pullback.zoo.photos import PhotoError, read_photo, sample_photo

RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
)


def corners() -> Image.Image:
    """16 x 8, its quarters red (top left), green (top right), blue (bottom left) and white."""
    image = Image.new("RGB", (16, 8), WHITE)
    image.paste(RED, (0, 0, 8, 4))
    image.paste(GREEN, (8, 0, 16, 4))
    image.paste(BLUE, (0, 4, 8, 8))
    return image


def pixels(path: Path) -> np.ndarray:
    photo = read_photo(path)
    assert photo.mode == "RGB"
    return np.asarray(photo)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "tga", "gif", "webp"])
def test_rgb_comes_through_unchanged(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    corners().save(path, lossless=True) if suffix == "webp" else corners().save(path)
    np.testing.assert_array_equal(pixels(path), np.asarray(corners()))


def test_jpeg_within_its_loss(tmp_path: Path) -> None:
    corners().save(tmp_path / "a.jpg", quality=95, subsampling=0)
    difference = pixels(tmp_path / "a.jpg").astype(int) - np.asarray(corners())
    assert np.abs(difference).max() <= 6


def test_grey_and_bilevel_get_equal_channels(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    Image.fromarray(ramp).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(pixels(tmp_path / "gray.png"), np.stack([ramp] * 3, -1))
    Image.fromarray(ramp > 127).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(pixels(tmp_path / "bits.png")[0, [0, 255]], [BLACK, WHITE])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    # black, of opacity 0, 51 (a fifth), 255
    alpha = Image.fromarray(np.array([[0, 51, 255]], dtype=np.uint8))
    image = Image.new(mode, (3, 1))
    image.putalpha(alpha)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png")[0, :, 0], [255, 204, 0])
    assert (np.ptp(pixels(tmp_path / "a.png"), axis=-1) == 0).all()


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])], ids=["index", "bytes"])
def test_transparent_palette_entry_turns_white(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([*RED, *GREEN])
    image.save(tmp_path / "a.png", transparency=transparency)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png")[0], [RED, WHITE])


def test_transparent_colour_of_rgb_turns_white(tmp_path: Path) -> None:
    corners().save(tmp_path / "a.png", transparency=RED)
    got = pixels(tmp_path / "a.png")
    np.testing.assert_array_equal(got[[0, 0], [0, 15]], [WHITE, GREEN])


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    image.putpalette([*BLUE, *RED, 10, 20, 30])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png")[0], [BLUE, RED, (10, 20, 30)])


@pytest.mark.parametrize("suffix", ["tiff", "jpg"])
def test_cmyk_colours(tmp_path: Path, suffix: str) -> None:
    inks = [(0, 255, 255, 0), (255, 0, 255, 0), (0, 0, 0, 0), (0, 0, 0, 255), (255, 255, 0, 0)]
    image = Image.new("CMYK", (5 * 16, 16))
    for i, ink in enumerate(inks):
        image.paste(ink, (16 * i, 0, 16 * i + 16, 16))
    image.save(tmp_path / f"a.{suffix}")
    got = pixels(tmp_path / f"a.{suffix}")[8, 8::16].astype(int)
    assert np.abs(got - [RED, GREEN, WHITE, BLACK, BLUE]).max() <= (0 if suffix == "tiff" else 3)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65278, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    expected = [0, 0, 1, 1, 128, 254, 255]
    np.testing.assert_array_equal(pixels(tmp_path / f"a.{suffix}")[0, :, 1], expected)


def test_sixteen_bit_grey_big_endian_tiff(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 100, 65535]], dtype=">u2")
    Image.frombytes("I;16B", (3, 1), values.tobytes()).save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(pixels(tmp_path / "a.tiff")[0, :, 0], [0, 100, 255])


def test_sixteen_bit_rgb_png(tmp_path: Path) -> None:
    row = np.array([65535, 32896, 0, 0, 257 * 200, 65535], dtype=">u2").tobytes()
    data = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    data += png_chunk(b"IDAT", zlib.compress(b"\0" + row)) + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png")[0], [(255, 128, 0), (0, 200, 255)])


@pytest.mark.parametrize(
    ("values", "levels"),
    [([0.0, 0.2, 1.0], [0, 51, 255]), ([-5.0, 0.0, 15.0], [0, 64, 255])],
    ids=["unit range", "stretched"],
)
def test_floats(tmp_path: Path, values: list[float], levels: list[int]) -> None:
    Image.fromarray(np.array([values], dtype=np.float32)).save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(pixels(tmp_path / "a.tiff")[0, :, 0], levels)


def test_floats_that_are_not_finite(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(PhotoError, match="not finite"):
        read_photo(tmp_path / "a.tiff")


@pytest.mark.parametrize(
    ("orientation", "top_left", "size"),
    [
        (1, RED, (16, 8)),
        (2, GREEN, (16, 8)),
        (3, WHITE, (16, 8)),
        (4, BLUE, (16, 8)),
        (5, RED, (8, 16)),
        (6, BLUE, (8, 16)),
        (7, WHITE, (8, 16)),
        (8, GREEN, (8, 16)),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
def test_exif_orientation(
    tmp_path: Path,
    orientation: int,
    top_left: tuple[int, int, int],
    size: tuple[int, int],
    suffix: str,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    corners().save(tmp_path / f"a.{suffix}", exif=exif)
    photo = read_photo(tmp_path / f"a.{suffix}")
    assert photo.size == size
    assert np.abs(np.subtract(photo.getpixel((1, 1)), top_left)).max() < 60  # jpeg's loss
    assert photo.getexif().get(0x0112) is None  # or the next reader would turn it once more


def test_broken_exif_is_no_reason_to_refuse(tmp_path: Path) -> None:
    corners().save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0\0nonsense")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), np.asarray(corners()))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_animated_gives_the_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, GREEN, BLUE)]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (pixels(tmp_path / f"a.{suffix}") == RED).all()


def test_large_photographs_are_reduced(tmp_path: Path) -> None:
    large = corners().resize((4096, 1024), Image.Resampling.NEAREST)
    for suffix in ("jpg", "png"):
        large.save(tmp_path / f"a.{suffix}")
        photo = read_photo(tmp_path / f"a.{suffix}", max_side=256)
        assert photo.size == (256, 64)
        got = np.asarray(photo)[[16, 16, 48, 48], [64, 192, 64, 192]].astype(int)
        assert np.abs(got - [RED, GREEN, BLUE, WHITE]).max() <= 3
        assert read_photo(tmp_path / f"a.{suffix}").size == (2048, 512)


def test_a_very_thin_jpeg(tmp_path: Path) -> None:
    Image.new("RGB", (20000, 1), RED).save(tmp_path / "a.jpg")
    assert read_photo(tmp_path / "a.jpg", max_side=64).size == (64, 1)


def test_more_pixels_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of that size is needed: a header is what says how large a picture is."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0"))
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(PhotoError, match=r"bomb.png: has more than 178,956,970 pixels; reduce"):
        read_photo(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as some programs do
    with pytest.raises(PhotoError, match="178,956,970 pixels"):
        read_photo(tmp_path / "bomb.png")


def test_between_pillows_warning_and_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corners().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # warns above 100, raises above 200
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), np.asarray(corners()))


def broken_files(folder: Path) -> dict[str, Path]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    files = {}
    for suffix in ("png", "jpg", "gif", "bmp", "tiff", "webp"):
        whole = io.BytesIO()
        noise.save(whole, suffix.replace("jpg", "jpeg"))
        files[f"truncated {suffix}"] = folder / f"t.{suffix}"
        files[f"truncated {suffix}"].write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    for name, content in {
        "empty": b"",
        "text": b"not a photograph\n",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "signature only": b"\x89PNG\r\n\x1a\n",
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(64),
    }.items():
        files[name] = folder / f"{name}.bin"
        files[name].write_bytes(content)
    return files


def test_broken_files_say_so_in_one_line(tmp_path: Path) -> None:
    for path in broken_files(tmp_path).values():
        with pytest.raises(PhotoError) as caught:
            read_photo(path)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"{path}: ")
        assert "; " in message, f"{message!r} does not say what to do"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("truncated png", "broken or truncated"),
        ("truncated jpg", "broken or truncated"),
        ("empty", "is empty"),
        ("text", "not a picture"),
        ("postscript", "not a picture"),
        ("heic", "HEIC"),
    ],
)
def test_what_is_wrong_with_a_broken_file(tmp_path: Path, kind: str, says: str) -> None:
    with pytest.raises(PhotoError, match=says):
        read_photo(broken_files(tmp_path)[kind])


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no such file"):
        read_photo(tmp_path / "missing.jpg")
    with pytest.raises(PhotoError, match="is a folder"):
        read_photo(tmp_path)
    with pytest.raises(PhotoError, match="cannot be opened"):
        read_photo("null\0byte")
    with pytest.raises(PhotoError, match="cannot be opened"):
        read_photo("x" * 5000)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(PhotoError, match="not a regular file"):
            read_photo(tmp_path / "pipe")


def test_the_file_may_go_once_it_is_read(tmp_path: Path) -> None:
    corners().save(tmp_path / "a.tiff")
    photo = read_photo(tmp_path / "a.tiff")
    (tmp_path / "a.tiff").unlink()
    np.testing.assert_array_equal(np.asarray(photo), np.asarray(corners()))


def test_sample_photographs() -> None:
    assert sample_photo("grace_hopper.jpg").size == (512, 600)
    with pytest.raises(PhotoError, match="grace_hopper, chelsea, coffee, rocket"):
        sample_photo("lena")


@pytest.mark.parametrize(
    ("name", "size"), [("chelsea", (451, 300)), ("coffee", (600, 400)), ("rocket", (640, 427))]
)
def test_scikit_image_photographs(name: str, size: tuple[int, int]) -> None:
    pytest.importorskip("skimage")
    photo = sample_photo(name)
    assert (photo.mode, photo.size) == ("RGB", size)
    assert np.asarray(photo).std() > 30


def test_samples_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(PhotoError, match="pip install scikit-image"):
        sample_photo("coffee")
    assert photos.SAMPLES[0] == "grace_hopper"


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path, monkeypatch):
    """It registers itself with Pillow only when it is told to."""
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(64))
    with pytest.raises(PhotoError, match="pip install pillow-heif"):
        read_photo(path)

    def opener(file, name):
        return Image.new("RGB", (3, 2), (10, 20, 30))

    module = types.ModuleType("pillow_heif")
    module.register_heif_opener = lambda: Image.register_open("HEIF", opener)
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    photo = read_photo(path)
    assert photo.size == (3, 2)
    assert photo.getpixel((1, 1)) == (10, 20, 30)
