"""benchmarks.compare's data, store, table, statistics and command line, each by itself."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

from benchmarks import intervals
from benchmarks.compare import __main__ as compare
from benchmarks.compare import data, statistics, table
from benchmarks.compare.methods import METHODS
from benchmarks.compare.metrics import METRICS
from benchmarks.compare.scoring import Score, derive, mosaic
from benchmarks.compare.store import Store, StoreError
from benchmarks.compare.workers import Workers
from captum_pullback.zoo.networks import Network, preprocessing
from captum_pullback.zoo.photos import PhotoError

PROVENANCE = dict.fromkeys(table.PROVENANCE, "some, with a comma")


def network(folders: tuple[str, ...] = (), classes: tuple[str, ...] = ()) -> Network:
    meta = {"folders": list(folders)} if folders else {}
    return Network(nn.Identity(), classes, preprocessing(8), input_size=8, name="net", meta=meta)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ant", "bee"):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "val" / name / "1.png")
    return tmp_path


# Data


def test_boxes_of_the_split(folder: Path) -> None:
    boxes = folder / "boxes.csv"
    boxes.write_text(
        "split,wnid,file,x0,y0,x1,y1\ntrain,ant,1.png,0,0,1,1\n"
        "val,bee,1.png,1,2,3,4\nval,bee,1.png,5,5,6,7\nval,bee,2.png,5,5,6,7\n"
    )
    photos = data.load(str(folder / "val"), boxes)
    assert list(photos.names) == ["ant/1.png", "bee/1.png"]
    assert photos.boxes == {"bee/1.png": [(1, 2, 3, 4), (5, 5, 6, 7)]}
    assert photos.read(1)[1] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wnid,file,x0,y0,x1\nant,1.png,0,0,1\n", "y1"),
        ("wnid,file,x0,y0,x1,y1\nant,1.png,5,0,1,1\n", "ends before it begins"),
        ("wnid,file,x0,y0,x1,y1\nant,1.png,a,0,1,1\n", "could not convert"),
    ],
)
def test_bad_boxes(folder: Path, text: str, said: str) -> None:
    (folder / "boxes.csv").write_text(text)
    with pytest.raises(data.DataError, match=said):
        data.load(str(folder / "val"), folder / "boxes.csv")


@pytest.mark.parametrize("kind", ["imagenet", "imagenette", "cifar10"])
def test_torchvisions_sets_that_are_not_there(tmp_path: Path, kind: str) -> None:
    with pytest.raises(data.DataError, match=f"had from {kind}:"):
        data.load(f"{kind}:{tmp_path}")


def test_cifar10_from_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        classes = ("airplane", "frog")

        def __init__(self, root: str, train: bool) -> None:
            assert (root, train) == (str(tmp_path), False)

        def __len__(self) -> int:
            return 3

        def __getitem__(self, number: int) -> tuple[Image.Image, int]:
            return Image.new("L", (32, 32), 10 * number), number % 2

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    photos = data.load(f"cifar10:{tmp_path}")
    assert photos.names == ["cifar10/000000", "cifar10/000001", "cifar10/000002"]
    picture, label = photos.read(1)
    assert (picture.getpixel((0, 0)), label) == ((10, 10, 10), 1)


def test_classes_by_folder_by_number_and_by_name(folder: Path) -> None:
    photos = data.load(str(folder / "val"))
    assert data.targets(network(folders=("bee", "cow", "ant")), 3, photos) == [2, 0]
    assert data.targets(network(), 2, photos) == [0, 1]
    named = network(classes=("bee", "cow", "ant, pismire"))
    assert data.targets(named, 3, photos) == [2, 0]
    with pytest.raises(data.DataError, match=r"knows no class ant.*--target predicted"):
        data.targets(network(classes=("cow", "dog", "elk")), 3, photos)


def test_unreadable_pictures_of_torchvision_s_sets_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Damaged:
        classes = ("plane", "car")

        def __init__(self, root: str, train: bool) -> None: ...

        def __len__(self) -> int:
            return 2

        def __getitem__(self, number: int) -> tuple[Image.Image, int]:
            raise OSError("image file is truncated\n(4 bytes not processed)")

    monkeypatch.setattr(data.torchvision.datasets, "CIFAR10", Damaged)
    photos = data.load(f"cifar10:{tmp_path}")
    with pytest.raises(PhotoError, match=r"cifar10/000001: cannot be read \(.* truncated \(4 b"):
        photos.read(1)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("emu", "dog", "cat"), [2, 1, 0]),  # names say another order than the folders
        (("Emu", "dog, hound", "CAT"), [2, 1, 0]),
        ((), [0, 1, 2]),  # nothing but the order to go by
        (("n1", "n2", "n3"), [0, 1, 2]),
        (("cat", "hound", "bird"), [0, 1, 2]),  # what is known of the names agrees
        (("tabby cat", "prairie dog", "emu"), [0, 1, 2]),  # parts of names are no names
        (("cat", "cat", "emu"), [0, 1, 2]),  # and a name that two classes bear is none either
        (("emu", "hound", "cat"), None),
        (("bird", "cat", "hound"), None),
    ],
)
def test_names_go_before_numbers_and_do_not_disagree_with_them(
    tmp_path: Path, classes: tuple[str, ...], expected: list[int] | None
) -> None:
    for name in ("cat", "dog", "emu"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    photos = data.load(str(tmp_path))
    if expected is None:
        with pytest.raises(data.DataError, match="by its name, and not all classes are known"):
            data.targets(network(classes=classes), 3, photos)
    else:
        assert data.targets(network(classes=classes), 3, photos) == expected


def test_more_photographs_begin_with_fewer() -> None:
    assert sorted(data.choose(20, 20)) == list(range(20))
    assert data.choose(20, 5) == data.choose(20, 12)[:5]
    with pytest.raises(data.DataError, match="20 photographs, fewer than 21"):
        data.choose(20, 21)


def test_a_list_says_the_network_s_own_classes(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    lines = "file,index,wnid,name\na.png,7,n7,emu\nb.png,2,n2,crane\nc.png,7,n7,emu\n"
    (tmp_path / "classes.csv").write_text(lines)
    photos = data.load(str(tmp_path))
    assert list(photos.names) == ["a.png", "b.png", "c.png"]
    numbers = data.targets(network(classes=("crane",) * 8), 8, photos)  # whatever it calls them
    assert [numbers[photos.read(k)[1]] for k in range(3)] == [7, 2, 7]
    with pytest.raises(data.DataError, match="has 7 classes, and the photographs' go to number 7"):
        data.targets(network(), 7, photos)
    (tmp_path / "classes.csv").write_text("file,index\na.png,seven\n")
    with pytest.raises(data.DataError, match=r"cannot read .*classes\.csv"):
        data.load(str(tmp_path))


def test_a_mosaic_has_each_photograph_at_its_place() -> None:
    pictures = [torch.full((1, 3, 4, 4), float(value)) for value in range(4)]
    for place in range(4):
        made, inside = mosaic(pictures, place)
        assert made.shape == (1, 3, 4, 4)
        assert (made[0, 0][inside] == 0).all()  # the first picture's
        assert int(inside.sum()) == 4
        corners = made[0, 0, ::2, ::2].flatten().tolist()
        assert [value for k, value in enumerate(corners) if k != place] == [1, 2, 3]
        assert corners[place] == 0


# Store and table


def test_torn_line_is_done_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    score = Score("ig", "infidelity", "", 0, 1 / 3)
    with store.writer(0) as write:
        write(("net", "a"), [score])
    path = tmp_path / "work" / "scores_0.jsonl"
    whole = path.read_bytes()
    for end in range(1, len(whole)):  # killed after each byte
        path.write_bytes(whole + whole[:end])
        assert list(store.done()) == [("net", "a")]
    with store.writer(0) as write:
        write(("net", "b"), [score._replace(value=math.nan)])
    found = store.done()
    assert found["net", "a"] == [score]
    assert math.isnan(found["net", "b"][0].value)


def test_counted_twice_and_damaged_are_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for rank in (0, 1):
        with store.writer(rank) as write:
            write(("net", "a"), [])
    with pytest.raises(StoreError, match=r"net, a is in .* twice"):
        store.done()
    (tmp_path / "scores_1.jsonl").write_bytes(b"nonsense\n")
    with pytest.raises(StoreError, match="damaged at byte 0"):
        store.done()


def test_one_run_at_a_time_and_with_the_same_settings(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.locked(), pytest.raises(StoreError, match="another run"), Store(tmp_path).locked():
        pass
    store.describe("settings", {"images": 3, "seeds": (0, 1)})
    store.describe("settings", {"images": 3, "seeds": [0, 1]})
    with pytest.raises(StoreError, match="other images"):
        store.describe("settings", {"images": 4, "seeds": [0, 1]})


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_tables_keep_every_digit(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    rows = [
        ("net", "0abc", "a", "ig", "infidelity", "", 0, 0.1 + 0.2),
        ("net", "0abc", 'a "b", c', "ig", "time", "load 1", 2, math.nan),
        ("net", "0012", "nan", "ig", "infidelity", "", 1, 1e-300),
    ]
    path = tmp_path / f"t{suffix}"
    assert table.write(path, iter(rows), PROVENANCE) == 3
    first = path.read_bytes()
    found = table.read(path)
    pd.testing.assert_frame_equal(
        found[list(table.SCORES)], pd.DataFrame(rows, columns=list(table.SCORES)),
        check_exact=True, check_dtype=False, check_column_type=False,
    )  # fmt: skip
    assert set(found["command"]) == {"some, with a comma"}
    table.write(path, iter(rows), PROVENANCE)
    assert path.read_bytes() == first


def test_table_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    def rows():
        yield ("net", "0", "a", "ig", "infidelity", "", 0, 1.0)
        raise KeyError("a")

    with pytest.raises(KeyError):
        table.write(tmp_path / "t.csv", rows(), PROVENANCE)
    assert list(tmp_path.iterdir()) == []


def test_derived_seeds_differ() -> None:
    seeds = {derive(s, image, m) for s in (0, 1) for image in ("a", "b") for m in ("x", "y")}
    assert len(seeds) == 8
    assert derive(0, "a", "x") == derive(0, "a", "x")


def test_one_process_needs_nobody() -> None:
    here = Workers()
    here.wait("nothing")
    assert here.from_first([1]) == [1]
    assert here.total(7) == 7


# Statistics


def test_interval_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = intervals.resampled(np.mean, values)
    half = stats.norm.ppf(0.975) * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert all(map(math.isnan, intervals.resampled(np.mean, values[:1])))


def test_pairs_are_resampled_together() -> None:
    base = np.random.default_rng(1).normal(0, 100, 50)
    low, high = intervals.resampled(statistics.mean_difference, base + 1, base)
    assert (low, high) == (pytest.approx(1), pytest.approx(1))
    low, high = intervals.resampled(statistics.ratio_of_means, 3 * abs(base), abs(base))
    assert (low, high) == (pytest.approx(3), pytest.approx(3))


def rows_of(values: dict[str, list[list[float]]], metric: str) -> list[tuple]:
    """Values by method, photograph and seed."""
    return [
        ("net", "0", f"p{image}", method, metric, "", seed, value)
        for method, images in values.items()
        for image, seeds in enumerate(images)
        for seed, value in enumerate(seeds)
    ]


def test_summary_by_hand() -> None:
    values = {
        "ig": [[1.0, 3.0], [4.0, 4.0], [6.0, 6.0]],  # 2, 4, 6 over seeds
        "pullback": [[1.0, 1.0], [1.0, 3.0], [3.0, 3.0]],  # 1, 2, 3
        "noise": [[2.0, 2.0], [9.0, 9.0], [math.nan, math.nan]],
    }
    frames = [
        pd.DataFrame(rows_of(values, metric), columns=list(table.SCORES))
        for metric in ("infidelity", "box_share")
    ]
    found = statistics.summary(pd.concat(frames))
    other = found[found["reference"] == "pullback"].set_index(["metric", "method"])
    assert other.loc["infidelity", "ig"]["verdict"] == "worse"
    assert other.loc["infidelity", "ig"]["difference"] == 2
    assert other.loc["infidelity", "pullback"][["verdict", "pairs"]].isna().all()
    found = found[found["reference"] == "ig"].set_index(["metric", "method"])
    ours = found.loc["infidelity", "pullback"]
    assert (ours["mean"], ours["difference"], ours["ratio"]) == (2, -2, 0.5)
    assert (ours["ratio_low"], ours["ratio_high"]) == (0.5, 0.5)
    assert (ours["better"], ours["verdict"], ours["images"]) == (1, "better", 3)
    assert found.loc["box_share", "pullback"]["verdict"] == "worse"  # there more is better
    noise = found.loc["infidelity", "noise"]
    assert (noise["images"], noise["mean"], noise["difference"]) == (2, 5.5, 2.5)
    assert (noise["verdict"], noise["better"]) == ("tie", 0.25)  # one tie, one worse
    assert noise["pairs"] == 2


def test_notes_are_in_the_order_of_their_numbers() -> None:
    assert (
        statistics.first_to_last(["load 10.2", "load 9.5", "load 9.6"]) == "load 9.5 to load 10.2"
    )
    assert statistics.first_to_last(["", ""]) == ""


def test_every_metric_and_method_is_declared() -> None:
    for metric in METRICS.values():
        assert metric.better in ("lower", "higher")
        assert metric.unit
        assert metric.source or metric.of_machine
        assert metric.meaning
    kinds = [method.kind for method in METHODS.values()]
    assert kinds.count("control") == 2
    assert kinds[0] == "pullback"  # the untuned default first


# The command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "beauty"], "no method is called 'beauty'"),
        (["--metrics", "beauty"], "no metric is called 'beauty'"),
        (["--without", "beauty"], "no method is called 'beauty'"),
        (["--device", "abacus"], "device 'abacus' is not available"),
        (["--out", "{}/scores.txt"], "the name must end in"),
        (["--on", "{}/none", "reference"], "no photographs could be had"),
        (["--on", "{}/val"], "--on takes photographs and then networks"),
        (["--on", "{}/val", "resnet5"], "no network is called 'resnet5'"),
        (["--on", "{}/val", "reference"], "two networks have the name reference"),
        (["--images", "3"], "there are 2 photographs, fewer than 3"),
        (["--images", "1", "1"], "--images takes one number, or one for each --on, not 2"),
        (["--boxes", "{}/boxes.csv"], "boxes.csv has a box for none of the photographs"),
    ],
)
def test_refused_before_anything_begins(folder, capsys, words, said) -> None:
    (folder / "boxes.csv").write_text("wnid,file,x0,y0,x1,y1\ncat,1.png,0,0,1,1\n")
    given = [word.format(folder) for word in words]
    start = ["--on", str(folder / "val"), "reference", "--out", str(folder / "out" / "scores.csv")]
    assert compare.main([*start, "--images", "1", *given]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert len(errors.splitlines()) == 1
    assert not list(folder.glob("out/*"))


def test_command_names_no_folder_of_this_machine(folder: Path) -> None:
    words = ["--on", f"{folder}/val", "reference", "resnet50", "--boxes", f"{folder}/boxes.csv"]
    args = compare.parser().parse_args([*words, "--out", "/x/y/s.parquet", "--images", "5"])
    assert compare.command(args) == (
        f"python -m benchmarks.compare --on {folder.name}/val reference resnet50 "
        f"--boxes {folder.name}/boxes.csv --out y/s.parquet --images 5"
    )
