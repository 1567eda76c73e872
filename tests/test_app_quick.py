"""Quick hands at the app: whatever overtakes whatever, no picture contradicts what stands by it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_pages import MARKS, PATIENCE, RECORD, Visitor, use_embedded
from PIL import Image

pytestmark = MARKS

#: What the embedded network sees in the samples.
SEEN = {
    "grace_hopper": "military uniform",
    "chelsea": "tabby",
    "coffee": "espresso",
    "rocket": "projectile",
}


def at_the_embedded(visit: Any, **options: Any) -> Visitor:
    visitor: Visitor = visit(**options)
    use_embedded(visitor)
    visitor.settled()
    visitor.page.evaluate(RECORD)
    return visitor


def contradictions(visitor: Visitor) -> list[Any]:
    """Frames on which predictions and picture look current, and are of two photographs."""
    frames = visitor.page.evaluate("window.frames_")
    assert len(frames) > 1, "something was seen"
    return [
        frame
        for frame in frames
        if frame["current"] and SEEN.get(frame["photograph"], frame["predicted"])
        != frame["predicted"]
    ]  # fmt: skip


def on_screen(visitor: Visitor, photo: str) -> None:
    """Waits until all that is on the screen is of this sample."""
    visitor.page.wait_for_function(
        """([photo, seen]) => !document.querySelector('#cp-answers.cp-old, #cp-predictions.cp-old')
        && document.querySelector('#cp-answers header p').innerText.endsWith(photo)
        && document.querySelector('#cp-predictions li').innerText.startsWith(seen)""",
        arg=[photo, SEEN[photo]],
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("pause", [0, 0.05, 0.4, 1.8])
def test_two_quick_clicks_show_the_second_photograph(visit: Any, pause: float) -> None:
    visitor = at_the_embedded(visit)
    page = visitor.page
    page.locator('[data-pick="coffee"]').click()
    time.sleep(pause)
    page.locator('[data-pick="rocket"]').click()
    on_screen(visitor, "rocket")
    visitor.settled()
    on_screen(visitor, "rocket")
    assert page.locator("#cp-answers .cp-tile h4").last.inner_text() == "projectile"
    assert page.locator("#cp-targets .token").inner_text() == "projectile"
    assert not contradictions(visitor)


def test_what_is_clicked_is_dimmed_until_its_answer_comes(visit: Any) -> None:
    """At once, before any server has heard of it; and nothing that was there goes."""
    visitor = at_the_embedded(visit)
    page = visitor.page
    dimmed = page.evaluate(
        """() => { document.querySelector('[data-pick="coffee"]').click();
        return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(
          ['#cp-answers', '#cp-predictions'].map((s) => document.querySelector(s)).map((e) =>
            [e.classList.contains('cp-old'), e.getAttribute('aria-busy')]))))) }"""
    )
    assert dimmed == [[True, "true"], [True, "true"]]
    on_screen(visitor, "coffee")
    assert page.locator("#cp-answers").get_attribute("aria-busy") == "false"


def test_quick_hands_everywhere(visit: Any, tmp_path: Path) -> None:
    """Clicks, drags, keys and files, none of which waits for another."""
    visitor = at_the_embedded(visit)
    page = visitor.page
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "mine.png")
    slider = page.locator("#cp-temperature input[type=range]")
    box = slider.bounding_box()
    for photo in ("coffee", "chelsea", "rocket", "coffee"):
        page.locator(f'[data-pick="{photo}"]').click()
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + 20, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + 150, middle, steps=8)
        page.mouse.up()
        page.locator("#cp-show label").nth(1).click()
        page.locator("#cp-pin").click()
        page.locator("#cp-pin").click()
        page.locator("#cp-predictions button").nth(1).click()
        page.locator("input[type=file]").first.set_input_files(tmp_path / "mine.png")
        page.locator("#cp-show label").nth(2).click()
        page.locator("#cp-fit").click()
    page.locator("#cp-method input").click()
    page.get_by_role("option", name="Integrated Gradients").click()
    page.locator('[data-pick="chelsea"]').click()
    page.locator("#cp-method input").click()
    page.get_by_role("option", name="Excitation pullback").click()
    # Integrated Gradients has no temperature, so its box is disabled until the pullback is back.
    number = page.locator("#cp-temperature input[type=number]:enabled")
    number.wait_for(timeout=PATIENCE)
    number.press("Control+a")
    page.keyboard.type("0.75", delay=5)
    page.locator("#cp-show label").nth(0).click()
    on_screen(visitor, "chelsea")
    visitor.title("T = 0.75")
    visitor.settled()
    on_screen(visitor, "chelsea")
    # what the controls say is what is shown
    assert page.locator("#cp-answers h3").all_inner_texts() == [
        "Excitation pullback, T = 0.75 x mean output"
    ]
    assert page.locator("#cp-pin").inner_text() == "Pin to compare"
    assert page.locator("#cp-answers img.cp-exact").count() == 2
    assert page.locator("#cp-targets .token").all_inner_texts() == ["tabby"]
    assert page.locator("#cp-answers h4").all_inner_texts() == ["Photograph", "tabby"]
    assert not contradictions(visitor)


def test_a_setting_does_not_bring_the_photograph_before_back(visit: Any) -> None:
    """A request that starts before the photograph has come has to know of it."""
    visitor = at_the_embedded(visit)
    page = visitor.page
    page.evaluate(
        """() => { document.querySelector('[data-pick="rocket"]').click();
        const box = document.querySelector('#cp-temperature input[type=number]');
        box.value = '2'; box.dispatchEvent(new Event('input', {bubbles: true})); }"""
    )
    on_screen(visitor, "rocket")
    visitor.title("T = 2")
    assert page.locator("#cp-targets .token").all_inner_texts() == ["projectile"]
    assert not contradictions(visitor)


def test_quick_changes_of_network(visit: Any) -> None:
    visitor = at_the_embedded(visit)
    page = visitor.page
    for name in ("tiny:slow", "embedded", "tiny:slow", "embedded"):
        page.locator("#cp-network input").click()
        page.get_by_role("option", name=name).click()
    page.locator('[data-pick="coffee"]').click()
    on_screen(visitor, "coffee")
    visitor.settled()
    assert page.locator("#cp-answers header p").inner_text() == "embedded \u00b7 coffee"
    assert page.locator("#cp-network input").input_value() == "embedded"
    assert page.locator("#cp-temperature input[type=number]").input_value() == "1"
    frames = page.evaluate("window.frames_")
    names = {"one", "two", "three" * 30}
    assert not [
        frame for frame in frames
        if frame["current"] and (frame["network"] == "embedded") == (frame["predicted"] in names)
    ]  # fmt: skip


def test_typing_goes_on_while_answers_arrive(visit: Any) -> None:
    visitor = at_the_embedded(visit)
    page = visitor.page
    field = page.locator("#cp-targets input")
    field.click()
    for letters in ("lem", "piz", "bea"):
        page.keyboard.type(letters, delay=20)
        page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.wait_for_function(
        "() => document.querySelectorAll('#cp-answers:not(.cp-old) h4').length === 5",
        timeout=PATIENCE,
    )
    visitor.settled()
    tokens = page.locator("#cp-targets .token").all_inner_texts()
    assert tokens[:3] == ["military uniform", "lemon", "pizza"]
    assert page.locator("#cp-answers h4").all_inner_texts() == ["Photograph", *tokens]


def test_nothing_moves_and_nothing_vanishes(visit: Any) -> None:
    """Between a question and its answer, also where it takes long enough for a bar."""
    visitor = visit(viewport={"width": 1280, "height": 1400})
    page = visitor.page
    page.evaluate(
        """() => { window.shifts = [];
        new PerformanceObserver((list) => list.getEntries().forEach((e) =>
          window.shifts.push([e.value, e.sources.map((s) => s.node?.id || s.node?.className)])))
          .observe({type: 'layout-shift', buffered: true}); }"""
    )
    # the first answer too comes into a place that was kept for it; this network is the slow one
    page.locator(".cp-progress", has_text="Infidelity").wait_for(timeout=PATIENCE)
    building = sum(value for value, _ in page.evaluate("window.shifts"))
    assert building < 0.1, "which is called good; Gradio builds the page bit by bit"
    page.evaluate("window.shifts.length = 0")
    page.evaluate(RECORD)
    for method in ("Gradient", "Smooth pullback"):
        page.locator("#cp-method input").click()
        page.get_by_role("option", name=method, exact=method == "Gradient").click()
        visitor.title(method)
    page.locator("#cp-stop").click()
    page.locator(".cp-progress").wait_for(state="detached", timeout=PATIENCE)
    page.locator('[data-pick="coffee"]').click()
    page.locator("#cp-answers:not(.cp-old) header p", has_text="coffee").wait_for(timeout=PATIENCE)
    frames = page.evaluate("window.frames_")
    assert len(frames) > 4
    assert {frame["images"] for frame in frames} == {2}
    assert {frame["height"] for frame in frames} == {frames[0]["height"]}
    assert {tuple(frame["tops"]) for frame in frames} == {tuple(frames[0]["tops"])}
    shifts = page.evaluate("window.shifts")
    assert sum(value for value, _ in shifts) < 0.001, shifts


def test_the_ascent_says_when_it_is_old(visit: Any) -> None:
    visitor = at_the_embedded(visit)
    page = visitor.page
    page.get_by_role("tab", name="Ascend").click()
    page.locator("#cp-ascend").click()
    current = page.locator("#cp-ascents:not(.cp-old) .cp-curve")
    old = page.locator("#cp-ascents.cp-old .cp-curve")
    again = page.locator(".cp-again", has_text="Settings have changed: Ascend again")
    current.wait_for(timeout=PATIENCE)
    assert page.locator(".cp-again").inner_text() == ""
    # by keyboard: another temperature, and the one before
    slider = page.locator("#cp-temperature input[type=range]")
    slider.press("ArrowRight")
    again.wait_for(timeout=PATIENCE)
    old.wait_for(timeout=PATIENCE)
    slider.press("ArrowLeft")
    current.wait_for(timeout=PATIENCE)
    # an ascent's own settings draw it anew, by keyboard too
    page.get_by_label("range slider for Steps").press("ArrowRight")
    page.locator("#cp-ascents:not(.cp-old) header p", has_text="6 steps").wait_for(timeout=PATIENCE)
    # another photograph, class, pooling
    page.locator('[data-pick="coffee"]').click()
    again.wait_for(timeout=PATIENCE)
    visitor.settled()
    old.wait_for(timeout=PATIENCE)
    page.locator("#cp-ascend").click()
    page.locator("#cp-ascents:not(.cp-old) header p", has_text="coffee").wait_for(timeout=PATIENCE)
    page.locator("#cp-predictions button").nth(2).click()
    again.wait_for(timeout=PATIENCE)
    # how an explanation is drawn is nothing to it
    page.locator("#cp-ascend").click()
    current.wait_for(timeout=PATIENCE)
    page.get_by_role("tab", name="Explain").click()
    page.locator("#cp-show label").nth(2).click()
    visitor.settled()
    page.get_by_role("tab", name="Ascend").click()
    assert current.count() == 1


def test_only_what_has_an_effect_is_offered(visit: Any) -> None:
    visitor = at_the_embedded(visit)
    page = visitor.page
    on = page.locator("#cp-temperature input[type=range]:enabled")
    off = page.locator("#cp-temperature input[type=range]:disabled")
    page.locator("#cp-method input").click()
    page.get_by_role("option", name="Gradient", exact=True).click()
    visitor.title("Gradient")
    off.wait_for(timeout=PATIENCE)
    page.get_by_role("tab", name="Ascend").click()  # which goes along the pullback all the same
    on.wait_for(timeout=PATIENCE)
    assert not page.locator("#cp-method").is_visible()
    page.get_by_role("tab", name="Explain").click()
    off.wait_for(timeout=PATIENCE)
    page.get_by_text("Max pooling, neurons and layers").click()
    hidden = {"#cp-pool", "#cp-layer", "#cp-channel", "#cp-everywhere"}
    visible = {name for name in hidden if page.locator(name).is_visible()}
    assert not visible
    page.get_by_label("a neuron").click()
    page.locator("#cp-channel").wait_for(timeout=PATIENCE)
    assert not page.locator("#cp-targets").is_visible()
    page.get_by_label("a class, at a hidden layer").click()
    page.locator("#cp-channel").wait_for(state="hidden", timeout=PATIENCE)
    assert page.locator("#cp-layer").is_visible()
    page.get_by_role("tab", name="Ascend").click()
    page.locator("#cp-layer").wait_for(state="hidden", timeout=PATIENCE)
    page.get_by_label("Max pooling has the same temperature").click()
    page.locator("#cp-pool").wait_for(timeout=PATIENCE)


def test_box_and_map_agree_whatever_is_typed(visit: Any) -> None:
    """Nothing, too much, too little; nobody is told of internals, and nobody is refused."""
    visitor = at_the_embedded(visit)
    page = visitor.page
    box = page.locator("#cp-temperature input[type=number]")
    before = visitor.maps()
    box.fill("")
    box.press("Tab")
    page.wait_for_function(
        "document.querySelector('#cp-temperature input[type=number]').value === '1'",
        timeout=PATIENCE,
    )
    visitor.settled()
    visitor.title("T = 1")
    assert visitor.maps() == before
    for typed, counts in (("9", "5"), ("-3", "0"), ("0.5", "0.5"), ("1e300", "5")):
        box.fill(typed)
        box.press("Tab")
        visitor.title(f"T = {counts}")
        page.wait_for_function(
            "(value) => document.querySelector('#cp-temperature input[type=number]').value"
            " === value",
            arg=counts,
            timeout=PATIENCE,
        )
    visitor.settled()
    page.get_by_text("Max pooling, neurons and layers").click()
    page.get_by_label("a neuron").click()
    channel = page.locator("#cp-channel input")
    channel.fill("99999")
    message = page.locator(".cp-message", has_text="has no channel 99999")
    message.wait_for(timeout=PATIENCE)
    assert page.locator("#cp-answers.cp-old").count() == 1, "what is shown is not what is asked"
    channel.fill("")
    channel.press("Tab")
    channel.fill("3")
    page.locator("#cp-answers:not(.cp-old) h4", has_text="[3").wait_for(timeout=PATIENCE)
    visitor.settled()
    assert page.locator(".cp-message").inner_text() == ""
    assert page.locator(".toast-body").count() == 0


def test_a_file_that_is_no_photograph_takes_nothing_away(visit: Any, tmp_path: Path) -> None:
    """The question before it counts again, with its classes and its temperature."""
    visitor = at_the_embedded(visit)
    page = visitor.page
    page.locator("#cp-predictions button").nth(1).click()
    visitor.title("T = 1")
    visitor.temperature("2")
    (tmp_path / "notes.txt").write_bytes(b"no picture at all")
    page.locator("input[type=file]").first.set_input_files(tmp_path / "notes.txt")
    toast = page.locator(".toast-body", has_text="This photograph cannot be used")
    toast.first.wait_for(timeout=PATIENCE)
    on_screen(visitor, "grace_hopper")
    visitor.title("T = 2")
    assert page.locator("#cp-answers h4").all_inner_texts()[1:] == ["jellyfish"]
    assert page.locator("#cp-targets .token").all_inner_texts() == ["jellyfish"]
    visitor.settled()
