"""Pages in a real browser without a network: Chromium of the system, driven by playwright.

Skipped where either is missing: `apt-get install chromium`, `pip install ".[browser]"`.
"""

import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from pages import compared, drawn

import hamshoot as hs

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or \
    shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

#: What is wider than the screen and does not scroll by itself.
TOO_WIDE = """() => [...document.querySelectorAll("body *")].filter((one) =>
    !one.closest(".scroll, svg, details:not([open])") &&
    one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map((one) => one.tagName + "." + one.className)"""
#: Contrast of every text with the background behind it, by the WCAG.
CONTRASTS = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const rgba = channels(getComputedStyle(one).backgroundColor);
      if (rgba.length < 4 || rgba[3] > 0) return rgba;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const one of document.querySelectorAll("p, li, td, th, dt, dd, h1, h2, h3, a, figcaption")) {
    const pair = [luminance(channels(getComputedStyle(one).color)), luminance(behind(one))];
    found.push((Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05));
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Pages of a classifier and of a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    problem = hs.TrainingProblem(
        rng.standard_normal((12, 2)), np.eye(2)[rng.integers(0, 2, 12)], effective_depth=2.0,
        weight_decay=1e-2, width=3, classes=("<b>yes</b>", "no"))
    drawn(problem).report(folder / "solution.html", title="<i>a title</i>")
    compared(test_samples=5).report(folder / "comparison.html")
    return folder


@contextmanager
def opened(browser, path, width=1400, **options):
    """A page without a network, that has nothing to complain of and asks for nothing."""
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    context.close()


def move(page, p):
    """Set the slider as a hand does."""
    page.locator("#slider").evaluate("(one, p) => { one.value = p; "
                                     "one.dispatchEvent(new Event('input')); }", str(p))


def until(page, expression):
    """Wait for it. (playwright's own waiting evaluates texts, which the page's policy forbids.)"""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {expression}")


def centres(page, panel="#w1"):
    """Where the samples of a panel are drawn."""
    script = "all => all.map(one => [one.getAttribute('cx'), one.getAttribute('cy')])"
    return np.array(page.eval_on_selector_all(f"{panel} .here", script), dtype=float)


def ways(page, panel="#w1"):
    """Points of the samples of a panel, (samples, K, 2)."""
    script = "all => all.map(one => one.getAttribute('points'))"
    return np.array([[pair.split(",") for pair in points.split()]
                     for points in page.eval_on_selector_all(f"{panel} .way", script)], dtype=float)


@pytest.mark.parametrize("name", ["solution", "comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_a_page_fits_and_can_be_read(browser, written, name, scheme, width):
    with opened(browser, written / f"{name}.html", width, color_scheme=scheme) as page:
        assert page.evaluate(TOO_WIDE) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 50
        assert min(contrasts) >= 4.5
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 30)"}[scheme]


def test_the_slider_moves_samples_bars_and_words(browser, written):
    with opened(browser, written / "solution.html") as page:
        points, heights = ways(page), []
        depths = [float(x) for x in page.get_attribute("#w1", "data-p").split()]
        for k in (0, 2, len(depths) - 1):
            move(page, depths[k])
            # The slider has steps of a thousandth.
            np.testing.assert_allclose(centres(page), points[:, k], atol=0.3)
            bars = page.eval_on_selector_all(
                ".bar", "all => all.map(one => [Number(one.getAttribute('height')), "
                "Number(one.dataset.h.split(' ')[0])])")
            heights.append(np.array(bars))
        np.testing.assert_allclose(heights[0][:, 0], heights[0][:, 1], atol=0.06)
        assert np.abs(heights[0][:, 0] - heights[2][:, 0]).max() > 1
        move(page, (depths[1] + depths[2]) / 2)
        np.testing.assert_allclose(centres(page), (points[:, 1] + points[:, 2]) / 2, atol=0.3)
        assert page.text_content("#slider-read") == "p = 0.25, layer 2 of 6"
        assert page.get_attribute("#slider", "aria-valuetext") == "p = 0.25, layer 2 of 6"
        assert "At p = 0.25: " in page.text_content("#w1 .reading")


def test_keys_move_the_slider(browser, written):
    with opened(browser, written / "solution.html") as page:
        page.focus("#slider")
        page.keyboard.press("End")
        np.testing.assert_allclose(centres(page), ways(page)[:, -1], atol=0.06)
        page.keyboard.press("Home")
        np.testing.assert_allclose(centres(page), ways(page)[:, 0], atol=0.06)


def test_play_goes_to_the_end_only_on_request(browser, written):
    with opened(browser, written / "solution.html") as page:
        page.wait_for_timeout(300)
        assert page.input_value("#slider") == "0"
        page.click("#play")
        until(page, "Number(document.getElementById('slider').value) > 0.01")
        assert page.text_content("#play") == "Pause"
        page.click("#play")
        held = page.input_value("#slider")
        page.wait_for_timeout(200)
        assert page.input_value("#slider") == held
        move(page, 0.98)
        page.click("#play")
        until(page, "document.getElementById('play').textContent === 'Play'")
        assert page.input_value("#slider") == "1"


def test_with_reduced_motion_the_button_goes_from_depth_to_depth(browser, written):
    with opened(browser, written / "solution.html", reduced_motion="reduce") as page:
        assert page.text_content("#play") == "Next"
        values = []
        for _ in range(8):
            page.click("#play")
            values.append(float(page.input_value("#slider")))
            page.wait_for_timeout(60)
            assert float(page.input_value("#slider")) == values[-1]  # nothing moves by itself
        np.testing.assert_allclose(values, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 0, 1 / 6],
                                   atol=1e-3)


def test_networks_are_shown_and_hidden(browser, written):
    with opened(browser, written / "comparison.html") as page:
        assert [page.is_visible(f"#w{k}") for k in (1, 2)] == [True, True]
        page.uncheck("#shown input[value=w1]")
        assert [page.is_visible(f"#w{k}") for k in (1, 2)] == [False, True]
        move(page, 1)
        page.check("#shown input[value=w1]")  # drawn where the slider is by now
        np.testing.assert_allclose(centres(page), ways(page)[:, -1], atol=0.06)


def test_without_scripts_everything_is_there_but_the_controls(browser, written):
    with opened(browser, written / "solution.html", java_script_enabled=False) as page:
        assert page.locator("#controls").is_hidden()
        assert page.locator("noscript p").is_visible()
        assert page.locator("#w1 .here").count() == 12


def test_names_are_shown_as_they_are(browser, written):
    with opened(browser, written / "solution.html") as page:
        assert page.text_content("h1") == "<i>a title</i>"
        assert page.locator("b").count() == 0
        assert "<b>yes</b>" in page.locator(".legend").inner_text()


def test_figures_have_names_for_those_who_do_not_see_them(browser, written):
    with opened(browser, written / "comparison.html") as page:
        images = page.get_by_role("img", name="Singular values of the weights: gradient descent")
        assert images.count() == 1
        assert images.evaluate("one => one.getBBox().width") > 100  # its glyphs and lines are drawn
        assert page.get_by_role("slider", name="Depth p").count() == 1


def test_print_is_dark_on_white_with_all_that_is_folded(browser, written):
    with opened(browser, written / "solution.html", color_scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == \
            "rgb(255, 255, 255)"
        assert page.locator("#controls").is_hidden()
        folded = page.locator("details:not([open])").count()
        assert folded >= 2
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert page.locator("details:not([open])").count() == folded
        assert page.pdf()[:5] == b"%PDF-"


def test_lines_have_the_colours_of_their_page(browser, written):
    """The first row is blue on both; on the dark page it is the lighter one."""
    seen = {}
    for scheme in ("light", "dark"):
        with opened(browser, written / "comparison.html", color_scheme=scheme) as page:
            seen[scheme] = page.eval_on_selector_all(
                "svg.figure path", "all => all.map(one => getComputedStyle(one).stroke)")
    assert "rgb(0, 114, 178)" in seen["light"]
    assert "rgb(77, 166, 238)" in seen["dark"]
    assert "rgb(0, 114, 178)" not in seen["dark"]
