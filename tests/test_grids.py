"""Grids of perturbations by what is in them: colors, scales, frames of the animation."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from captum_pullback.figures.ascents import perturbation_scales, plot_ascent, save_animation

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
GREEN = (0x1B, 0x78, 0x37)


def drawn(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def inside(figure: Figure, index: int, size: int = 4) -> np.ndarray:
    """The colors at the centers of the pixels of an image in an axis, (size, size, 3)."""
    pixels, box = drawn(figure), figure.axes[index].get_window_extent()
    centers = (np.arange(size) + 0.5) / size
    rows = (len(pixels) - box.y1 + centers * box.height).astype(int)
    columns = (box.x0 + centers * box.width).astype(int)
    return pixels[rows[:, None], columns[None]]


def image(value: float = 0.0) -> Tensor:
    return torch.full((3, 4, 4), value)


def perturbation(strength: float) -> Tensor:
    """Half of it up and half of it down, by this much of the pixels' range in each channel."""
    sign = torch.tensor([1.0, -1.0]).repeat_interleave(2).expand(3, 4, 4)
    return sign * strength / torch.tensor(STD).view(3, 1, 1)


def grid(*rows: Sequence[Tensor], **options: object) -> Figure:
    return plot_ascent(
        [image()] * len(rows), {"": [list(row) for row in rows]}, mean=MEAN, std=STD, **options
    )


def test_the_cells_are_the_photograph_the_sum_and_the_difference() -> None:
    figure = grid([perturbation(0.1), perturbation(0.2)])
    mean = np.array(MEAN)
    photograph, strong = inside(figure, 0), inside(figure, 2)
    np.testing.assert_allclose(photograph / 255, np.broadcast_to(mean, (4, 4, 3)), atol=0.005)
    np.testing.assert_allclose(
        strong[:, :2] / 255, np.broadcast_to(mean + 0.2, (4, 2, 3)), atol=5e-3
    )
    np.testing.assert_allclose(
        strong[:, 2:] / 255, np.broadcast_to(mean - 0.2, (4, 2, 3)), atol=5e-3
    )
    below = inside(figure, 5)
    assert (below[:, :2] >= 254).all()
    assert (below[:, 2:] <= 1).all()


def test_channels_may_come_last_in_either() -> None:
    expected = grid([perturbation(0.1), perturbation(0.2)])
    last = plot_ascent(
        [image().permute(1, 2, 0)],
        {"": [[perturbation(0.1).permute(1, 2, 0), perturbation(0.2)]]},
        mean=MEAN,
        std=STD,
    )
    np.testing.assert_array_equal(drawn(last), drawn(expected))
    with pytest.raises(ValueError, match="put one image alone in a list"):
        plot_ascent(image(), {"": [[perturbation(0.1)]] * 3})


@pytest.mark.parametrize(
    ("scale", "expected"),
    [("row", [0.5, 1.0, 1.0, 0.5]), ("cell", [1, 1, 1, 1]), ("figure", [0.25, 0.5, 1.0, 0.5])],
)
def test_what_shares_a_scale(scale: str, expected: list[float]) -> None:
    rows = [[perturbation(0.1), perturbation(0.2)], [perturbation(0.4), perturbation(0.2)]]
    figure = grid(*rows, scale=scale, show="perturbation")
    found = [inside(figure, i)[0, 0, 0] / 255 * 2 - 1 for i in (1, 2, 4, 5)]
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_methods_share_the_scale_of_their_row() -> None:
    grids = {"one": [[perturbation(0.1)]], "other": [[perturbation(0.2)]]}
    figure = plot_ascent([image()], grids, mean=MEAN, std=STD, show="perturbation")
    found = [inside(figure, i)[0, 0, 0] / 255 * 2 - 1 for i in (1, 2)]
    np.testing.assert_allclose(found, [0.5, 1.0], atol=0.01)
    texts = [text.get_text() for text in figure.texts]
    assert "one" in texts
    assert "other" in texts


@pytest.mark.parametrize("scale", ["row", "cell", "figure"])
def test_no_perturbation_is_grey(scale: str) -> None:
    figure = grid([image()], scale=scale, show="perturbation")
    assert np.isin(inside(figure, 1), (127, 128)).all()


def test_tiny_and_negative_perturbations_have_full_colour() -> None:
    for strength in (-0.3, 1e-30):
        figure = grid([perturbation(strength)], show="perturbation")
        colors = inside(figure, 1)
        assert set(np.unique(colors)) <= {0, 1, 254, 255}
        assert (colors[0, 0, 0] > 128) == (strength > 0)


def test_own_cells_are_framed() -> None:
    cells = [perturbation(0.1), perturbation(0.2)]
    figure = grid(cells, cells, own=[(0, 1), (1, 0)], show="photograph")

    def framed(index: int) -> bool:
        pixels, box = drawn(figure), figure.axes[index].get_window_extent()
        row = pixels[int(len(pixels) - (box.y0 + box.y1) / 2)]
        edge = row[int(box.x0) - 2 : int(box.x0) + 3]
        return bool((np.abs(edge - GREEN).sum(axis=-1) < 40).any())

    assert [framed(i) for i in range(6)] == [False, False, True, False, True, False]


def test_texts_say_what_it_is() -> None:
    figure = grid(
        [perturbation(0.1), perturbation(0.2)],
        titles=["cat", "dog"],
        labels=["a photograph"],
        captions={"": [["1 to 2", "3 to 4"]]},
    )
    texts = [t.get_text() for t in [*figure.texts, *(t for a in figure.axes for t in a.texts)]]
    for text in ("cat", "dog", "1 to 2", "3 to 4"):
        assert text in texts
    label = next(text for text in texts if "a photograph" in text)
    assert "±0.2" in label, "the scale is said"


def test_scales_are_in_units_of_pixels() -> None:
    grids = {"": [[perturbation(0.1), perturbation(0.2)]]}
    assert perturbation_scales(grids, STD, "cell")[0] == pytest.approx([0.1, 0.2])
    assert perturbation_scales(grids, STD, "row")[0] == pytest.approx([0.2, 0.2])


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="a row for each of 1 images"):
        plot_ascent([image()], {"": [[image()], [image()]]}, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_ascent([], {}, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="scale must be row, cell or figure"):
        grid([image()], scale="column")
    with pytest.raises(ValueError, match="NaN or infinite"):
        grid([image(float("nan"))])


def test_an_animation_has_all_its_frames() -> None:
    file = io.BytesIO()
    scales = [[0.4]]
    figures = (grid([perturbation(s)], show="perturbation", scales=scales) for s in (0.0, 0.2, 0.4))
    save_animation(figures, file, dpi=60)
    with Image.open(file) as animation:
        assert animation.format == "GIF"
        assert animation.n_frames == 3
        assert animation.info["loop"] == 0
        found = []
        for number in range(3):
            animation.seek(number)
            frame = np.asarray(animation.convert("RGB")).astype(int)
            middle = frame[frame.shape[0] // 3, int(frame.shape[1] * 0.6)]
            found.append(middle[0])
    np.testing.assert_allclose(found, [127, 191, 255], atol=6)
    with pytest.raises(ValueError, match="at least one frame"):
        save_animation([], io.BytesIO())
