"""The app in a real headless Chromium, from a process of its own as a newcomer starts it."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from app_pages import MARKS, PATIENCE, Server, get, use_embedded
from command_line import ROOT, environment
from PIL import Image

pytestmark = MARKS


def test_explain_move_and_take_along(visit: Any, server: Server, tmp_path: Path) -> None:
    visitor = visit()
    use_embedded(visitor)
    visitor.settled()
    page = visitor.page
    assert "military uniform" in page.locator("#cp-predictions li").first.inner_text()
    assert page.locator("#cp-predictions li").count() == 5
    figures = visitor.figures()
    assert set(figures) == {"score", "probability", "infidelity", "sensitivity", "time"}
    # score and chance are told apart, in the list too
    assert page.locator(".cp-columns-head").inner_text().split() == [
        "class", "probability", "score",
    ]  # fmt: skip
    row = page.locator("#cp-predictions li").first.inner_text().split("\n")
    assert row[1:] == [figures["probability"], figures["score"]]
    assert float(figures["infidelity"]) > 0
    before = visitor.maps()
    # another temperature, another map, of the same photograph
    visitor.temperature("0.2")
    visitor.settled()
    after = visitor.maps()
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert visitor.figures()["infidelity"] != figures["infidelity"]
    # a class by search besides
    page.locator("#cp-targets input").click()
    page.keyboard.type("lem")
    page.keyboard.press("Enter")
    page.locator("#cp-answers h4", has_text="lemon").wait_for(timeout=PATIENCE)
    visitor.settled()
    assert visitor.maps()[:2] == after[:2]
    # taken along: the code gives the arrays, in a process of its own
    arrays = visitor.downloaded("#cp-explanation-npz", tmp_path)
    code = visitor.downloaded("#cp-explanation-py", tmp_path)
    picture = visitor.downloaded("#cp-explanation-png", tmp_path)
    assert (arrays.name, code.name) == ("explanation.npz", "explanation.py")
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
    source = code.read_text() + "\nimport numpy\nnumpy.save('again.npy', attributions.numpy())\n"
    code.write_text(source)
    subprocess.run(
        [sys.executable, str(code)], cwd=tmp_path, check=True,
        env=environment(),
    )  # fmt: skip
    with np.load(arrays) as saved:
        assert saved["attributions"].shape == (2, 3, 64, 64)
        assert np.array_equal(saved["attributions"], np.load(tmp_path / "again.npy"))
        assert f"{saved['infidelity'][1]:.3g}" == visitor.figures()["infidelity"]
    page.get_by_text("Coverage: 18 gate calls softened").first.click()
    assert "layer4.1" in page.locator(".cp-coverage pre").first.inner_text()


def test_the_map_follows_the_slider(visit: Any) -> None:
    """Who drags asks many times; the last answer is the one that stays."""
    visitor = visit()
    use_embedded(visitor)
    page = visitor.page
    slider = page.locator("#cp-temperature input[type=range]")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.2, middle)
    page.mouse.down()
    for tenth in range(3, 9):
        page.mouse.move(box["x"] + box["width"] * tenth / 10, middle, steps=3)
    page.mouse.up()
    value = float(slider.input_value())
    assert 3.5 < value < 4.5
    visitor.title(f"T = {value:.3g}")
    visitor.settled()
    assert page.locator("#cp-answers h3").inner_text() == (
        f"Excitation pullback, T = {value:.3g} x mean output"
    )


def test_pin_and_other_ways_of_drawing(visit: Any) -> None:
    visitor = visit()
    use_embedded(visitor)
    visitor.page.locator("#cp-pin").click()
    visitor.page.locator("#cp-pin", has_text="Unpin").wait_for(timeout=PATIENCE)
    visitor.temperature("3")
    visitor.settled()
    assert visitor.page.locator("#cp-answers .cp-answer").count() == 2
    assert visitor.page.locator("#cp-answers dd", has_text="\u2013").count() == 0
    left, right = (visitor.maps()[i] for i in (1, 3))
    assert left != right
    for number in (1, 2):
        shown = visitor.maps()
        visitor.page.locator("#cp-show label").nth(number).click()
        visitor.page.wait_for_function(
            "(old) => document.querySelectorAll('#cp-answers .cp-tile img')[1].src !== old",
            arg=shown[1],
            timeout=PATIENCE,
        )
        visitor.settled()
        assert visitor.maps()[0] == shown[0]


def test_ascend(visit: Any, tmp_path: Path) -> None:
    visitor = visit()
    use_embedded(visitor)
    page = visitor.page
    page.get_by_role("tab", name="Ascend").click()
    page.locator("#cp-ascend").click()
    page.locator("#cp-ascents .cp-curve").wait_for(timeout=PATIENCE)
    before, after = page.locator("#cp-ascents .cp-curve + figcaption h4").inner_text().split(" → ")
    assert float(after) > float(before)
    slider = page.locator("#cp-ascents .cp-compare input")
    slider.fill("80")
    cut = page.locator("#cp-ascents .cp-compare").get_attribute("style")
    assert "80%" in cut
    with np.load(visitor.downloaded("#cp-ascent-npz", tmp_path)) as arrays:
        assert arrays["perturbed"].shape == (1, 3, 64, 64)
        assert f"{arrays['scores'][0, -1]:.1f}" == after


def test_a_photograph_of_ones_own(visit: Any, tmp_path: Path) -> None:
    """Uploaded and pasted; and files that are none, after which all is as before."""
    visitor = visit()
    use_embedded(visitor)
    visitor.settled()
    page, noise = visitor.page, np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    chooser = page.locator("input[type=file]").first
    Image.fromarray(noise).save(tmp_path / "<b>my photo.tiff")
    chooser.set_input_files(tmp_path / "<b>my photo.tiff")
    page.locator("#cp-answers header p", has_text="my photo").wait_for(timeout=PATIENCE)
    assert page.locator("#cp-answers header b").count() == 0
    visitor.settled()
    before = visitor.maps()
    for name, content, message in (
        ("broken.jpg", b"\xff\xd8\xff\xe0 no photograph", "broken.jpg"),
        ("notes.txt", b"no picture at all", "not a picture"),
        ("empty.png", b"", "is empty"),
        ("huge.png", huge_png(), "more than 178,956,970 pixels"),
    ):
        (tmp_path / name).write_bytes(content)
        chooser.set_input_files(tmp_path / name)
        toast = page.locator(".toast-body", has_text=message)
        toast.first.wait_for(timeout=PATIENCE)
        assert str(Path("captum_pullback-")) not in toast.first.inner_text()
        assert visitor.maps() == before
    page.evaluate(PASTE)
    page.locator("#cp-answers header p", has_text="pasted.png").wait_for(timeout=PATIENCE)
    assert visitor.maps()[0] != before[0]


#: What a browser does when a green picture is pasted.
PASTE = """async () => {
  const canvas = Object.assign(document.createElement('canvas'), {width: 40, height: 40});
  const context = canvas.getContext('2d');
  context.fillStyle = 'green';
  context.fillRect(0, 0, 40, 40);
  const blob = await new Promise((done) => canvas.toBlob(done));
  const data = new DataTransfer();
  data.items.add(new File([blob], 'image.png', {type: 'image/png'}));
  dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}));
}"""


def huge_png() -> bytes:
    """A small file that says that it has 400 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99))


def test_two_people_at_once(visit: Any) -> None:
    one, two = visit(), visit()
    for visitor in (one, two):
        use_embedded(visitor)
    two.page.locator("#cp-method input").click()
    two.page.get_by_role("option", name="Gradient", exact=True).click()
    one.temperature("2.5")
    two.title("Gradient")
    one.page.locator('[data-pick="coffee"]').click()
    one.page.locator("#cp-answers header p", has_text="coffee").wait_for(timeout=PATIENCE)
    one.settled()
    two.settled()
    assert one.page.locator("#cp-answers h3").inner_text() == (
        "Excitation pullback, T = 2.5 x mean output"
    )
    assert one.page.locator("#cp-answers .cp-tile h4").last.inner_text() == "espresso"
    assert two.page.locator("#cp-answers h3").inner_text() == "Gradient"
    assert two.page.locator("#cp-answers header p").inner_text().endswith("grace_hopper")
    assert one.maps()[1] != two.maps()[1]


def test_progress_and_stopping(visit: Any) -> None:
    """On the slow network, which is there at the start, the scores take many seconds."""
    visitor = visit()
    page = visitor.page
    page.locator(".cp-progress", has_text="Infidelity").wait_for(timeout=PATIENCE)
    assert page.locator("#cp-answers .cp-wait").count() == 2
    start = time.monotonic()
    page.locator("#cp-stop").click()
    page.locator(".cp-progress").wait_for(state="detached", timeout=PATIENCE)
    assert time.monotonic() - start < 5
    assert page.locator("#cp-answers .cp-wait").count() == 0
    assert visitor.figures()["infidelity"] == "\u2013"
    # what is asked next takes its place at once
    page.locator("#cp-method input").click()
    page.get_by_role("option", name="Integrated Gradients").click()
    page.locator(".cp-progress", has_text="Integrated").wait_for(timeout=PATIENCE)
    use_embedded(visitor)
    visitor.title("Integrated Gradients")


def test_fit_it(visit: Any) -> None:
    visitor = visit()
    use_embedded(visitor)
    visitor.temperature("0.2")
    visitor.page.locator("#cp-fit").click()
    visitor.page.locator(".toast-body", has_text="Infidelity").wait_for(timeout=PATIENCE)
    visitor.page.wait_for_function(
        "() => document.querySelector('#cp-temperature input[type=number]').value !== '0.2'",
        timeout=PATIENCE,
    )
    box = visitor.page.locator("#cp-temperature input[type=number]")
    visitor.title(f"T = {float(box.input_value()):.3g}")


def test_rules_and_the_unit_of_the_temperature(visit: Any, tmp_path: Path) -> None:
    """They dim what is no longer the answer, map and ascent, and then are what is shown."""
    visitor = visit()
    use_embedded(visitor)
    visitor.settled()
    page, before = visitor.page, visitor.maps()
    page.get_by_role("tab", name="Ascend").click()
    page.locator("#cp-ascend").click()
    page.locator("#cp-ascents:not(.cp-old) .cp-curve").wait_for(timeout=PATIENCE)
    page.get_by_role("tab", name="Explain").click()
    for control, value, title in (
        ("#cp-unit", "spread", "Excitation pullback, T = 1 x spread"),
        ("#cp-rules", "excitation", "Excitation pullback, T = 1 x spread, rules excitation"),
    ):
        assert page.evaluate(DIMMED, f"{control} input[value='{value}']") == [True, True]
        visitor.title(title)
        visitor.settled()
        assert page.locator("#cp-answers h3").inner_text() == title
    assert page.locator("#cp-ascents.cp-old").count() == 1, "it was of other rules"
    assert visitor.maps()[0] == before[0]
    assert visitor.maps()[1] != before[1]
    source = visitor.downloaded("#cp-explanation-py", tmp_path).read_text()
    assert "temperature=Spread(1.0), rules=EXCITATION" in source
    # a temperature stays with another network, in its unit
    visitor.temperature("2")
    page.locator("#cp-network input").click()
    page.get_by_role("option", name="tiny:slow").click()
    page.locator("#cp-answers:not(.cp-old) header p", has_text="slow").wait_for(timeout=PATIENCE)
    visitor.title("T = 2 x spread, rules excitation")
    # what softens nothing has neither
    page.locator("#cp-method input").click()
    page.get_by_role("option", name="Gradient", exact=True).click()
    for control in ("#cp-unit", "#cp-rules"):
        page.locator(f"{control} input:disabled").first.wait_for(timeout=PATIENCE)


#: Clicks, and says whether map and ascent are dimmed at once.
DIMMED = """(control) => {
  document.querySelector(control).click();
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(
    ['#cp-answers', '#cp-ascents'].map((s) =>
      document.querySelector(s).classList.contains('cp-old'))))));
}"""


def test_on_a_narrow_screen_nothing_hangs_over(visit: Any) -> None:
    visitor = visit(viewport={"width": 360, "height": 740})
    visitor.title("Excitation pullback")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_map_and_slider_are_in_view_together_on_a_telephone(visit: Any) -> None:
    visitor = visit(viewport={"width": 390, "height": 844})
    use_embedded(visitor)
    visitor.settled()
    page = visitor.page
    slider = page.locator("#cp-temperature input[type=range]")
    image = page.locator("#cp-answers .cp-tile img").nth(1)

    def together() -> bool:
        boxes = [image.bounding_box(), slider.bounding_box()]
        for _ in range(50):  # a newer map may just be taking its place
            if None not in boxes:
                break
            page.wait_for_timeout(100)
            boxes = [image.bounding_box(), slider.bounding_box()]
        (top, bottom), (above, below) = ((box["y"], box["y"] + box["height"]) for box in boxes)
        return 0 <= top < bottom <= above < below <= 844

    page.evaluate("scrollTo(0, 0)")
    assert together()
    before = visitor.maps()
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
    page.wait_for_function(
        "(old) => document.querySelectorAll('#cp-answers .cp-tile img')[1].src !== old",
        arg=before[1],
        timeout=PATIENCE,
    )
    assert together()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_no_other_file_is_served(server: Server) -> None:
    secret = server.folder.parent / "secret.txt"
    secret.write_text("do not tell")
    for path in ("/etc/hostname", secret, ROOT / "setup.cfg", server.folder / "../secret.txt"):
        for route in ("/gradio_api/file=", "/file=", "/static/", "/assets/"):
            status, body = get(server, f"{route}{path}")
            assert status in (403, 404), (route, path)
            assert b"do not tell" not in body


def test_no_other_name_leads_here(server: Server) -> None:
    """A page elsewhere whose name is turned towards this machine would read along."""
    assert get(server, "/")[0] == 200
    assert get(server, "/", Host="attacker.example")[0] == 400
