"""The page in a real browser, at the width of a phone and of a desk."""

import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_draws_itself_alone(browser, built, width):
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.set_default_timeout(60_000)  # a busy machine is not a fault of the page
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else 0)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(built.as_uri())
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")  # draws every chart without scrolling
    page.wait_for_function("!document.querySelector('.chart:not([data-drawn])')")

    assert complaints == []
    assert requests == [built.as_uri()]
    drawn = ", ".join(f"svg .mark-{kind} path" for kind in ("line", "rect", "symbol"))
    marks = page.eval_on_selector_all(".chart", f"all => all.map(c => c.querySelectorAll('{drawn}').length)")
    assert len(marks) == 6 and min(marks) > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widths = page.eval_on_selector_all(".chart svg", "charts => charts.map(c => c.getBoundingClientRect().right)")
    assert max(widths) <= width

    # The legend speaks to all panels of its figure.
    faded = "document.querySelectorAll('#vision-error .mark-line path[opacity=\"0.1\"]').length"
    assert page.evaluate(faded) == 0
    page.click("#vision-error .legend button >> nth=0")
    page.wait_for_function(f"{faded} == 3")
    page.click("#vision-error .legend button >> nth=0")
    page.wait_for_function(f"{faded} == 0")

    # A point answers with its numbers.
    box = page.locator("#language-loss .chart svg").bounding_box()
    page.locator("#language-loss").scroll_into_view_if_needed()
    page.locator("#language-loss .chart svg").hover(position={"x": box["width"] / 2, "y": box["height"] / 2})
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "95 % interval" in page.inner_text("#vg-tooltip-element")
    page.close()


def test_a_dark_page_prints_dark_on_white_with_its_rules_and_seeds(browser, built):
    page = browser.new_page(color_scheme="dark")
    page.set_default_timeout(60_000)
    page.goto(built.as_uri())
    page.wait_for_function("!document.querySelector('.chart:not([data-drawn])')")  # without scrolling or printing
    ink = "getComputedStyle(document.body).color + getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ink) == "rgb(228, 231, 234)rgb(20, 23, 26)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ink) == "rgb(0, 0, 0)rgb(255, 255, 255)"
    opened = "document.querySelectorAll('details.evidence[open]').length"
    assert page.evaluate(opened) == 0
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(opened) == page.evaluate("document.querySelectorAll('details.evidence').length") > 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(opened) == 0
    # The first page of paper is not left empty: what follows the header may begin on it.
    assert page.evaluate("getComputedStyle(document.querySelector('section')).breakInside") == "auto"
    page.close()


def test_a_term_leads_to_its_meaning(browser, built):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(built.as_uri())
    assert page.locator(".claim a.term[href='#term-g']").first.get_attribute("title").startswith("g: Hedges' g")
    page.locator(".claim a.term[href='#term-g']").first.click()
    assert page.locator("#term-g").is_visible() and page.url.endswith("#term-g")
    page.close()
