"""The app for everybody: without a mouse, without eyes for it, in the dark, on a telephone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from app_pages import MARKS, PATIENCE, Visitor, use_embedded
from PIL import Image

spec = importlib.util.find_spec("axe_playwright_python")
pytestmark = MARKS
needs_axe = pytest.mark.skipif(
    spec is None, reason="axe-playwright-python is not installed: pip install '.[browser]'"
)


def violations(visitor: Visitor) -> list[str]:
    """What axe has to complain of, but for what it counts as minor."""
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8")
    visitor.page.evaluate(source)
    # Transitions between colors would be taken for colors.
    visitor.page.add_style_tag(content="* { transition: none !important; }")
    found = visitor.page.evaluate("axe.run()")
    return [
        f"{rule['id']}: {node['html'][:150]} {node['failureSummary'][:200]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(visit: Any, scheme: str, width: int) -> None:
    """Names, roles, and contrast of 4.5 to 1: with all that can be opened open."""
    visitor = visit(color_scheme=scheme, viewport={"width": width, "height": 900})
    use_embedded(visitor)
    visitor.settled()
    page = visitor.page
    page.get_by_text("Max pooling, neurons and layers").click()
    page.get_by_text("Coverage: 18 gate calls").click()
    page.get_by_text("The same in Python").first.click()
    page.locator("#cp-what").wait_for(timeout=PATIENCE)
    page.get_by_label("Max pooling has the same temperature").click()
    page.get_by_label("a neuron").click()
    page.locator("#cp-answers:not(.cp-old) h4", has_text="layer4").wait_for(timeout=PATIENCE)
    visitor.settled()
    assert not violations(visitor)
    page.get_by_label("a class", exact=True).click()
    page.locator("#cp-method input").click()
    page.get_by_role("option", name="Gradient", exact=True).click()
    visitor.title("Gradient")
    visitor.settled()
    page.locator("#cp-pin").click()
    visitor.settled()
    assert not violations(visitor)
    page.get_by_role("tab", name="Ascend").click()
    page.locator("#cp-ascend").click()
    page.locator("#cp-ascents:not(.cp-old) .cp-curve").wait_for(timeout=PATIENCE)
    assert not violations(visitor)


@needs_axe
def test_axe_finds_nothing_while_it_computes(visit: Any) -> None:
    visitor = visit()
    visitor.page.locator(".cp-progress", has_text="Infidelity").wait_for(timeout=PATIENCE)
    assert not violations(visitor)


#: The element that has the focus, and whether one sees that it has.
FOCUS = """() => {
  const element = document.activeElement;
  const seen = (e) => e && getComputedStyle(e).outlineStyle !== 'none'
    && parseFloat(getComputedStyle(e).outlineWidth) >= 2;
  return [element.outerHTML.slice(0, 160), element === document.body,
          seen(element) || seen(element.closest('label')) || seen(element.closest('.cp-compare'))];
}"""


@pytest.mark.parametrize("tab", ["Explain", "Ascend"])
def test_the_focus_is_always_seen(visit: Any, tab: str) -> None:
    visitor = visit()
    use_embedded(visitor)
    visitor.settled()
    page = visitor.page
    if tab == "Ascend":
        page.get_by_role("tab", name="Ascend").click()
        page.locator("#cp-ascend").click()
        page.locator("#cp-ascents:not(.cp-old) .cp-curve").wait_for(timeout=PATIENCE)
    page.locator(".cp-theme").focus()
    met = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        html, ended, seen = page.evaluate(FOCUS)
        if ended or html in met:
            break
        met.add(html)
        assert seen, html
    assert len(met) > 20, "all controls were visited"


def test_names(visit: Any) -> None:
    visitor = visit()
    use_embedded(visitor)
    visitor.settled()
    page = visitor.page
    assert page.get_by_role("group", name="How maps are drawn").count() == 1
    assert page.get_by_role("button", name="Remove military uniform").count() == 1
    assert page.get_by_role("button", name="Remove all classes").count() == 1
    explain = page.get_by_role("button", name="Explain military uniform")
    assert "probability 76" in explain.get_attribute("aria-label")
    assert "score 4.6" in explain.get_attribute("aria-label")
    assert page.get_by_role("button", name="Explain the sample photograph rocket").count() == 1
    fit = page.get_by_role("button", name="Fit it")
    hint = page.locator(f"#{fit.get_attribute('aria-describedby')}")
    assert "the lowest infidelity), among those whose maps tell this class" in hint.inner_text()
    # what has come is said
    page.locator('[data-pick="coffee"]').click()
    page.locator("#cp-announce", has_text="espresso").wait_for(state="attached", timeout=PATIENCE)


def test_light_or_dark_is_remembered_and_said(visit: Any) -> None:
    visitor = visit(color_scheme="light")
    page = visitor.page
    button = page.get_by_role("button", name="Dark colors")
    button.wait_for(timeout=PATIENCE)
    dark = "document.body.classList.contains('dark')"
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert page.evaluate(dark)
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator("#cp-announce").inner_text() == "Dark colors"
    for chosen in (dark, f"!{dark}"):  # what the system has does not count any more
        again = page.context.new_page()
        again.goto(page.url)
        again.locator("#cp-answers .cp-figures").first.wait_for(timeout=PATIENCE)
        again.wait_for_function(chosen, timeout=PATIENCE)
        button = again.get_by_role("button", name="Dark colors")
        assert button.get_attribute("aria-pressed") == str(chosen == dark).lower()
        button.click()


def test_long_names_are_cut_and_can_be_read_in_full(visit: Any, tmp_path: Path) -> None:
    visitor = visit(viewport={"width": 390, "height": 844})
    page = visitor.page
    visitor.title("Excitation pullback")  # of the slow network, which has a class of a long name
    row = page.locator("#cp-predictions button", has_text="threethree")
    name = row.locator("span:not(.cp-bar)")
    assert name.evaluate("e => e.scrollWidth > e.clientWidth")
    assert row.bounding_box()["height"] == page.locator(
        "#cp-predictions button", has_text="one"
    ).first.bounding_box()["height"]  # fmt: skip
    assert row.get_attribute("title") == "Explain " + "three" * 30
    use_embedded(visitor)
    Image.new("RGB", (8, 8), "green").save(tmp_path / f"{'long' * 40}.png")
    page.locator("input[type=file]").first.set_input_files(tmp_path / f"{'long' * 40}.png")
    about = page.locator("#cp-answers:not(.cp-old) header p", has_text="longlong")
    about.wait_for(timeout=PATIENCE)
    # The answer may be replaced by a later one meanwhile, so it is looked up each time.
    page.wait_for_function(
        """() => [...document.querySelectorAll("#cp-answers:not(.cp-old) header p")].some(
            (e) => e.textContent.includes("longlong") && e.scrollWidth > e.clientWidth)""",
        timeout=PATIENCE,
    )
    assert about.get_attribute("title").endswith(f"{'long' * 40}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
