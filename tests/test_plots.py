"""Figures by what is in them: colors at known places, scales, and what must be refused."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from captum.attr import visualization
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from captum_pullback.figures import comparison as plots

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


def rendered(figure: Figure) -> np.ndarray:
    """The figure as it is drawn, (H, W, 3) in 0 to 255."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(100)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def cells(figure: Figure, index: int, shape: tuple[int, int]) -> np.ndarray:
    """The colors at the centers of the pixels of an image of that shape in the axis, (H, W, 3)."""
    drawn = rendered(figure)
    box = figure.axes[index].get_window_extent()
    rows = np.round(len(drawn) - box.y1 + (np.arange(shape[0]) + 0.5) * box.height / shape[0])
    columns = np.round(box.x0 + (np.arange(shape[1]) + 0.5) * box.width / shape[1])
    return drawn[rows.astype(int)[:, None], columns.astype(int)[None]]


def four_values() -> torch.Tensor:
    """(3, 2, 2), whose sums over channels are +6, -6, 0 and +3."""
    return torch.tensor([[6.0, -6.0], [0.0, 3.0]]).expand(3, 2, 2) / 3


def colours_of(attribution: torch.Tensor, **options: object) -> np.ndarray:
    figure = plots.plot_attribution(attribution, outlier_percent=0, **options)
    return cells(figure, 0, tuple(attribution.shape[-2:]))


def test_positive_is_red_negative_blue_and_zero_white() -> None:
    (positive, negative), (zero, half) = colours_of(four_values())
    np.testing.assert_array_equal(zero, [255, 255, 255])
    np.testing.assert_array_equal(positive, [0x67, 0x00, 0x1F])
    np.testing.assert_array_equal(negative, [0x05, 0x30, 0x61])
    assert half[0] > half[1]
    assert half[0] > half[2]
    assert half[0] > positive[0], "half as strong a value must be paler"


def test_opposite_values_are_equally_far_from_white() -> None:
    ramp = torch.linspace(-1, 1, 21)[None, None]
    luminance = colours_of(ramp)[0] @ [0.299, 0.587, 0.114]
    assert (np.diff(luminance[:11]) > 0).all()
    assert (np.diff(luminance[10:]) < 0).all()
    assert np.abs(luminance - luminance[::-1]).max() < 20


@pytest.mark.parametrize("sign", ["all", "positive", "negative", "absolute_value"])
@pytest.mark.parametrize("method", ["heat_map", "blended_heat_map"])
def test_an_all_zero_map_is_white_or_the_grey_photograph(sign: str, method: str) -> None:
    zeros, image = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.5)
    figure = plots.plot_attribution(zeros, image, sign=sign, method=method)
    expected = [255] if method == "heat_map" else [127, 128]
    assert np.isin(cells(figure, 1, (4, 4)), expected).all()


def test_signs_that_are_not_there_give_white() -> None:
    assert (colours_of(-torch.rand(1, 4, 4), sign="positive") == 255).all()
    assert (colours_of(torch.rand(1, 4, 4), sign="negative") == 255).all()


def test_an_all_negative_map_is_blue() -> None:
    red, _, blue = colours_of(-torch.rand(1, 4, 4) - 0.5).reshape(-1, 3).T
    assert (blue > red).all()


@pytest.mark.parametrize("sign", ["positive", "negative", "absolute_value"])
def test_one_signed_maps_are_white_at_zero_and_dark_at_the_peak(sign: str) -> None:
    (positive, negative), (zero, _) = colours_of(four_values(), sign=sign).sum(axis=-1)
    assert zero == 3 * 255
    dark = {"positive": [True, False], "negative": [False, True], "absolute_value": [True, True]}
    assert [positive < 300, negative < 300] == dark[sign]


@pytest.mark.parametrize("factor", [1e-320, 1e-30, 1e-8, 1e8, 1e300])
def test_the_unit_of_a_map_does_not_matter(factor: float) -> None:
    small = four_values().double() * factor
    np.testing.assert_array_equal(colours_of(small), colours_of(four_values()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    attribution = torch.zeros(3, 4, 4)
    attribution[1, 2, 3] = value
    with pytest.raises(ValueError, match="1 of the attribution's 48 values are NaN or infinite"):
        plots.plot_attribution(attribution)
    with pytest.raises(ValueError, match="1 of the image's 48 values"):
        plots.plot_attribution(torch.zeros(3, 4, 4), attribution)


def test_all_the_forms_of_one_attribution_look_the_same() -> None:
    attribution = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = colours_of(attribution)
    summed = attribution.double().sum(0)
    for form in (attribution[None], attribution.requires_grad_(), summed, summed[None]):
        np.testing.assert_array_equal(colours_of(form), expected)
    figure = plots.plot_attribution(summed.numpy(), outlier_percent=0)
    np.testing.assert_array_equal(cells(figure, 0, (4, 4)), expected)
    np.testing.assert_array_equal(
        colours_of(attribution.bfloat16()), colours_of(attribution.bfloat16().float())
    )


def test_the_scale_is_captums() -> None:
    """Where Captum can draw the map, it draws the same colors from the raw attribution."""
    attribution = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1)) ** 3
    _, axis = visualization.visualize_image_attr(
        attribution.permute(1, 2, 0).numpy(),
        sign="all",
        outlier_perc=2,
        cmap=plots.COLORS["all"],
        use_pyplot=False,
    )
    captums = axis.images[0]
    ours = plots.plot_attribution(attribution).axes[0].images[0]
    np.testing.assert_allclose(
        captums.norm(captums.get_array()), ours.norm(ours.get_array()), atol=1e-6
    )


def test_scale_of_by_hand() -> None:
    values = np.array([1.0, -2.0, 3.0, -94.0])
    assert plots.scale_of(values, outlier_percent=0) == 94
    assert plots.scale_of(values, outlier_percent=94.5) == 3  # 1 + 2 + 3 are 6 % of 100
    assert plots.scale_of(values, outlier_percent=97.5) == 2
    assert plots.scale_of(np.zeros(3), np.array([0.5])) == 0.5
    assert plots.scale_of(np.zeros(3)) == 0
    with pytest.raises(ValueError, match="outlier_percent"):
        plots.scale_of(values, outlier_percent=100)


def test_a_scale_shared_between_maps() -> None:
    figure, axes = plots.image_grid(1, 2)
    strong, weak = four_values(), four_values() / 2
    scale = plots.scale_of(plots.to_map(strong), plots.to_map(weak), outlier_percent=0)
    for axis, attribution in zip(axes[0], (strong, weak), strict=True):
        plots.draw_attribution(axis, attribution, scale=scale)
    assert (cells(figure, 1, (2, 2))[0, 0] == cells(figure, 0, (2, 2))[1, 1]).all()
    assert (cells(figure, 1, (2, 2))[0, 0] != cells(figure, 0, (2, 2))[0, 0]).any()


def test_colors_are_the_channels_around_grey() -> None:
    attribution = torch.zeros(3, 2, 2)
    attribution[0, 0, 0], attribution[2, 0, 1], attribution[:, 1, 0] = 1.0, -1.0, 0.5
    (red, not_blue), (light, gray) = colours_of(attribution, method="colors")
    np.testing.assert_allclose(red, [255, 128, 128], atol=1)
    np.testing.assert_allclose(not_blue, [128, 128, 0], atol=1)
    np.testing.assert_allclose(light, [191, 191, 191], atol=1)
    np.testing.assert_allclose(gray, [128, 128, 128], atol=1)


def test_to_picture_undoes_the_normalisation() -> None:
    pixels = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    normalized = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    for image in (normalized, normalized[None], normalized.numpy()):
        picture = plots.to_picture(image, MEAN, torch.tensor(STD))
        np.testing.assert_allclose(picture, pixels.permute(1, 2, 0), atol=1e-6)
    np.testing.assert_array_equal(
        plots.to_picture(torch.tensor([[[0, 51, 255]]], dtype=torch.uint8)),
        np.array([[[0.0] * 3, [0.2] * 3, [1.0] * 3]]),
    )
    assert plots.to_picture(normalized + 100, MEAN, STD).max() == 1


def test_images_that_cannot_be_shown() -> None:
    with pytest.raises(ValueError, match="pass the network's mean and std"):
        plots.to_picture(torch.full((3, 2, 2), 2.0))
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        plots.to_picture(torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match=r"not \(2, 3, 4, 4\)"):
        plots.plot_attribution(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match="sign must be one of all, positive"):
        plots.plot_attribution(torch.zeros(3, 4, 4), sign="both")
    with pytest.raises(ValueError, match=r"LayerAttribution\.interpolate"):
        plots.plot_attribution(
            torch.zeros(1, 2, 2), torch.zeros(3, 4, 4), method="blended_heat_map"
        )


def test_channels_may_come_last() -> None:
    """Pictures as numpy, matplotlib and TensorFlow have them."""
    generator = torch.Generator().manual_seed(0)
    for channels in (1, 3):
        image = torch.rand(channels, 20, 16, generator=generator)
        expected = plots.to_picture(image, [0.1], [0.5])
        for given in (image.permute(1, 2, 0), image.permute(1, 2, 0).numpy()[None]):
            np.testing.assert_array_equal(plots.to_picture(given, [0.1], [0.5]), expected)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    np.testing.assert_array_equal(
        plots.to_picture(image.permute(1, 2, 0), mean, std), plots.to_picture(image, mean, std)
    )
    for shape in ((3, 20, 16), (1, 16, 16)):
        attribution = torch.randn(shape, generator=generator)
        expected = attribution.double().sum(0).numpy()
        np.testing.assert_allclose(plots.to_map(attribution.permute(1, 2, 0)), expected)
        np.testing.assert_allclose(plots.to_map(attribution.permute(1, 2, 0)[None]), expected)
    attribution = torch.randn(3, 20, 16, generator=generator)
    first = plots.plot_attribution(attribution, image, method="colors")
    last = plots.plot_comparison(
        [image.permute(1, 2, 0)], {"Attribution": [attribution.permute(1, 2, 0)]}, method="colors"
    )
    for index in (0, 1):
        shown = (cells(figure, index, (20, 16)) for figure in (first, last))
        np.testing.assert_array_equal(*shown)


@pytest.mark.parametrize("shape", [(64, 7, 3), (64, 3, 3), (64, 32, 1), (3, 16, 3), (2, 12, 3)])
def test_channels_of_a_layer_are_still_summed(shape: tuple[int, ...]) -> None:
    attribution = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(plots.to_map(attribution), attribution.double().sum(0).numpy())


def test_shapes_that_are_none_of_a_picture_are_named() -> None:
    with pytest.raises(ValueError, match=r"not \(1, 1, 8, 16, 16\): of a volume or a video, give"):
        plots.to_map(torch.zeros(1, 1, 8, 16, 16))
    with pytest.raises(ValueError, match=r"not \(4, 8, 16, 16\): of a batch, give one"):
        plots.to_map(torch.zeros(4, 8, 16, 16))
    with pytest.raises(ValueError, match=r"not 16: .* and its shape is \(1, 16, 20, 20\)"):
        plots.to_picture(torch.zeros(1, 16, 20, 20))
    one = torch.rand(3, 16, 16)
    with pytest.raises(ValueError, match=r"shape \(3, 16, 16\): put one image alone in a list"):
        plots.plot_comparison(one, {"m": one})


def test_a_comparison_puts_each_thing_in_its_place() -> None:
    colors = torch.tensor([[0.0, 0.2, 1.0], [1.0, 1.0, 0.0]])
    images = colors[:, :, None, None].expand(2, 3, 4, 4)
    maps = {"up": torch.ones(2, 3, 4, 4), "down": [-torch.ones(3, 4, 4)] * 2}
    figure = plots.plot_comparison(
        images, maps, labels=["first", "second"], captions={"down": ["a $5 b", "c\nd"]}
    )
    centers = [cells(figure, i, (4, 4))[2, 2].tolist() for i in range(6)]
    red, blue = [0x67, 0x00, 0x1F], [0x05, 0x30, 0x61]
    assert centers == [[0, 51, 255], red, blue, [255, 255, 0], red, blue]
    texts = [text.get_text() for text in figure.texts if text.get_text()]
    assert texts == ["Photograph", "first", "up", "down", "a $5 b", "second", "c\nd"]


def test_a_layers_map_of_lower_resolution_fills_the_same_space() -> None:
    figure = plots.plot_comparison(torch.rand(1, 3, 8, 8), {"layer": torch.ones(1, 1, 2, 2)})
    first, second = (axis.get_window_extent() for axis in figure.axes[:2])
    assert (first.width, first.height, first.y0) == (second.width, second.height, second.y0)


@pytest.mark.parametrize("shape", [(3, 40, 80), (3, 80, 40)])
def test_pixels_are_square(shape: tuple[int, int, int]) -> None:
    figure = plots.plot_comparison(torch.rand(1, *shape), {"map": torch.rand(1, *shape)})
    rendered(figure)
    for axis in figure.axes[:2]:
        box = axis.get_window_extent()
        assert box.width / box.height == pytest.approx(shape[2] / shape[1], rel=0.01)


def test_numbers_of_things_that_differ() -> None:
    with pytest.raises(ValueError, match="'m': 1 for 2 images"):
        plots.plot_comparison(torch.rand(2, 3, 4, 4), {"m": torch.rand(1, 3, 4, 4)})
    with pytest.raises(ValueError, match="'labels': 1 for 2 images"):
        plots.plot_comparison(torch.rand(2, 3, 4, 4), {}, labels=["only one"])
    with pytest.raises(ValueError, match="no images"):
        plots.plot_comparison([], {})


def test_no_text_overlaps_another_or_leaves_the_figure() -> None:
    long = "a class with a very long name, longer than any cell is wide, Felis catus 99.9 %"
    figure = plots.plot_comparison(
        torch.rand(2, 3, 8, 8),
        {f"{long} {i}": torch.rand(2, 3, 8, 8) for i in range(3)},
        labels=[f"{long}\n{long}\n{long}", "W" * 100],
        captions={f"{long} {i}": ["one\ntwo\nthree", "four"] for i in range(3)},
    )
    drawn = rendered(figure)
    boxes = [t.get_window_extent() for t in figure.texts if t.get_text()]
    boxes += [axis.get_window_extent() for axis in figure.axes[:-1]]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= drawn.shape[1]
        assert box.y1 <= drawn.shape[0]
        for other in boxes[i + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across <= 0 or down <= 0


@pytest.mark.parametrize("format", ["png", "pdf", "svg"])
def test_saved_figures(format: str) -> None:
    def saved() -> bytes:
        figure = plots.plot_attribution(
            four_values(), torch.rand(3, 2, 2).round(), title="A title", caption="\N{SNOWMAN} 猫"
        )
        file = io.BytesIO()
        torch.manual_seed(0)
        plots.save_figure(figure, file, format, dpi=50)
        return file.getvalue()

    torch.manual_seed(0)
    before = dict(mpl.rcParams)
    data = saved()
    torch.manual_seed(0)
    assert saved() == data, "the same figure gives the same file"
    assert dict(mpl.rcParams) == before
    assert data.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[format])
    if format == "svg":
        assert ">A title</text>" in data.decode()
    if format == "png":
        assert np.asarray(Image.open(io.BytesIO(data))).std() > 10


def test_many_photographs_still_fit_a_png(tmp_path: Path) -> None:
    figure, _ = plots.image_grid(200, 1)
    plots.save_figure(figure, tmp_path / "tall.png", "png")
    with Image.open(tmp_path / "tall.png") as image:
        assert image.size[1] > 10 * image.size[0]


def test_pyplots_state_is_left_alone() -> None:
    code = """
import matplotlib, torch
matplotlib.use("agg")
from matplotlib import pyplot
from captum_pullback.figures import comparison as plots
figure, axis = pyplot.subplots()
plots.plot_comparison(torch.rand(1, 3, 4, 4), {"a": torch.rand(1, 3, 4, 4)})
assert pyplot.get_fignums() == [1] and pyplot.gcf() is figure and pyplot.gca() is axis
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
