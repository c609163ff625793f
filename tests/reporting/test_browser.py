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
