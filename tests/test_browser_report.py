"""The HTML report in a real browser: drawn, offline, escaped, readable without scripts, light and dark."""

from __future__ import annotations

import re
import shutil
from base64 import b64encode
from html import unescape
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from playwright.sync_api import sync_playwright
from report_tables import sample_tables

from reports import render_page

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
HOSTILE = "</script><b onclick=alert(1)>x</b><img src=x onerror=alert(2)>&lt;%{x}\x1b[2J\u202e"
HOSTILE_SHOWN = "</script><b onclick=alert(1)>x</b><img src=x onerror=alert(2)>&lt;%{x}\\x1b[2J\\u202e"
TIMEOUT_MS = 180_000
"""Of what a page is waited for: how busy the machine is says nothing of the report."""

COUNT_COLOURS = """
async (source) => {
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const paint = canvas.getContext("2d");
  paint.drawImage(image, 0, 0);
  const bytes = paint.getImageData(0, 0, image.width, image.height).data;
  const found = {};
  for (let at = 0; at < bytes.length; at += 4) {
    const hex = [0, 1, 2].map((n) => bytes[at + n].toString(16).padStart(2, "0")).join("");
    found[hex] = (found[hex] || 0) + 1;
  }
  return found;
}
"""
PRESS = """
button => new Promise(said => {
  new MutationObserver(() => said(button.textContent)).observe(button, { childList: true });
  button.click();
})
"""
"""Press a button; gives what it says next, which it does not say for long."""

STRATEGIES = ("d55e00", "0072b2", "cc79a7", "009e73")
FIGURES = {
    "why": ("cc79a7",),
    "space": STRATEGIES,
    "iterations": STRATEGIES,
    "holds": STRATEGIES,
    "times": STRATEGIES,
    "population": ("d55e00",),
    "victims": ("0072b2", "d55e00"),
}
"""Every figure of the report, and colours that it shows beside those of paper and text."""

SECTIONS = ("strategies", "missed", "iterations", "times", "population", "victims", "walks", "quality")


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=ARGS)
        yield started
        started.close()


class Visit:
    """A page with the report open, and everything that it said or asked for."""

    def __init__(self, browser: Browser, report: Path, *, script: str = "", **context: Any) -> None:
        self.page: Page = browser.new_context(**context).new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.set_default_timeout(TIMEOUT_MS)
        if script:
            self.page.add_init_script(script)
        self.page.goto(report.as_uri())

    def drawn(self, name: str) -> Visit:
        """Go to a figure and wait until it is interactive."""
        self.page.locator(f"#figure-{name}").scroll_into_view_if_needed()
        self.page.wait_for_selector(f"#figure-{name}.drawn .plot .main-svg")
        return self

    def colours(self, selector: str) -> dict[str, int]:
        """Pixels by colour (six hexadecimal digits) of one element."""
        picture = self.page.locator(selector).screenshot()
        blank = self.page.context.browser.new_page()
        counted: dict[str, int] = blank.evaluate(
            COUNT_COLOURS, f"data:image/png;base64,{b64encode(picture).decode()}"
        )
        blank.close()
        return counted


def written(folder: Path, **changed: Any) -> Path:
    path = folder / "report.html"
    path.write_text(render_page(sample_tables(**changed)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    capture = {"path": HOSTILE, "hostname": HOSTILE, "tool": HOSTILE}
    return written(tmp_path_factory.mktemp("hostile"), comm=HOSTILE, custom=(HOSTILE,), capture=capture)


@pytest.fixture(scope="module")
def light(browser: Browser, report: Path) -> Visit:
    """One page for all tests that leave it as it was."""
    clipboard = ["clipboard-read", "clipboard-write"]
    visit = Visit(browser, report, color_scheme="light", permissions=clipboard)
    for name in FIGURES:
        visit.drawn(name)
    return visit


@pytest.fixture(scope="module")
def without_scripts(browser: Browser, report: Path) -> Visit:
    return Visit(browser, report, java_script_enabled=False)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shows_what_it_is_of(light: Visit, name: str) -> None:
    found = light.colours(f"#figure-{name} .plot")
    assert max(found, key=found.__getitem__) == "ffffff"
    assert all(found.get(colour, 0) > 40 for colour in (*FIGURES[name], "1b1f24"))


@pytest.mark.parametrize("name", FIGURES)
def test_a_static_picture_shows_the_same(without_scripts: Visit, name: str) -> None:
    found = without_scripts.colours(f"#figure-{name} svg.static")
    assert max(found, key=found.__getitem__) == "ffffff"
    assert all(found.get(colour, 0) > 40 for colour in (*FIGURES[name], "1b1f24"))


def test_nothing_is_said_and_nothing_is_asked_for(light: Visit, report: Path) -> None:
    assert light.page.locator("figure").count() == len(FIGURES)
    assert light.said == []
    assert light.asked == [report.as_uri()]


def test_every_section_has_something_to_read_and_a_link_to_it(light: Visit) -> None:
    sections = light.page.eval_on_selector_all("main section", "all => all.map((one) => one.id)")
    assert sections == [*SECTIONS, "provenance"]
    for name in sections:
        assert light.page.locator(f"nav a[href='#{name}']").count() == 1
        assert light.page.locator(f"#{name}").locator("table, figure").first.is_visible()


def test_no_button_sends_anything_anywhere(light: Visit) -> None:
    titles = light.page.eval_on_selector_all(
        ".modebar-btn", "all => all.map((one) => one.dataset.title || one.title)"
    )
    assert any(re.search("PNG", title) for title in titles)
    assert not [title for title in titles if re.search("share|cloud|plotly|edit", title, re.IGNORECASE)]
    assert light.page.locator(".modebar-btn--logo").count() == 0


def test_a_figure_can_be_saved_as_a_picture(browser: Browser, report: Path) -> None:
    page = Visit(browser, report).drawn("iterations").page
    page.locator("#figure-iterations .plot").hover()
    with page.expect_download() as download:
        page.locator("#figure-iterations .modebar-btn[data-title*=PNG]").click()
    assert download.value.suggested_filename == "iterations.png"
    assert download.value.path().read_bytes().startswith(b"\x89PNG")


def test_the_page_names_no_other_address(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href|action|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", text, re.IGNORECASE)
    assert "default-src 'none'" in unescape(text)
    assert "unsafe-eval" not in text


def test_hovering_a_vma_tells_the_call_that_made_it(light: Visit) -> None:
    light.page.locator("#figure-space .plot").scroll_into_view_if_needed()
    # a place in the second panel, after the split and between two lookups
    x, y = light.page.evaluate(
        """() => {
          const plot = document.querySelector("#figure-space .plot");
          const { xaxis, yaxis2 } = plot._fullLayout;
          const corner = plot.getBoundingClientRect();
          return [corner.x + xaxis._offset + xaxis.l2p(2.7), corner.y + yaxis2._offset + yaxis2.l2p(1000)];
        }"""
    )
    light.page.mouse.move(x, y)
    hover = light.page.locator("#figure-space .plot .hoverlayer .hovertext").first
    hover.wait_for()
    assert re.match(
        r"\d+ VMAs?, made by mprotect: pages \+[\d,]+ to \+[\d,]+, 2\.", hover.text_content() or ""
    )


def test_copy_buttons_give_what_they_stand_by(light: Visit) -> None:
    page = light.page
    page.locator("#as-text summary").click()
    assert page.get_by_role("button", name="Copy as text").evaluate(PRESS) == "Copied"
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#text-form").text_content()
    assert "\nvm_pgoff     0.012      1      1      0     34     30  replayed\n" in copied
    tables = page.locator("main table").count()
    assert page.get_by_role("button", name="Copy table as text", include_hidden=True).count() == tables
    page.locator("#strategies").get_by_role("button", name="Copy table as Markdown").click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()).startsWith('| strategy |')")
    lines = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert lines[1].startswith("| --- | ---: | ---: |")
    assert lines[5].startswith("| vm_pgoff | 0.012 | 1 | 1 | 0 | 34 | 30 |")


def test_figures_have_names_for_those_who_do_not_see_them(light: Visit) -> None:
    for finding in (
        "Most iterations of one inner loop: observed, full 2,000",
        "Most VMAs at once on one anon",
    ):
        assert light.page.get_by_role("group", name=re.compile(finding)).count() == 1


def test_the_keyboard_reaches_every_button_and_shows_where_it_is(light: Visit) -> None:
    light.page.locator("nav a").first.focus()
    reached = []
    for _ in range(16):
        light.page.keyboard.press("Tab")
        reached.append(light.page.evaluate("document.activeElement.textContent"))
    assert {"Missed mappings", "Dark", "Copy table as text", "This report as plain text, for mail"} <= set(
        reached
    )
    assert light.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_print_shows_the_pictures_on_light_paper(light: Visit) -> None:
    page = light.page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#figure-iterations svg.static").is_visible()
    assert not page.locator("#figure-iterations .plot").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.emulate_media(media="screen", color_scheme="light")


def test_colours_follow_the_system_and_the_button(browser: Browser, report: Path) -> None:
    visit = Visit(browser, report, color_scheme="dark").drawn("iterations")
    page = visit.page
    dots = visit.colours("#figure-iterations .plot")
    assert max(dots, key=dots.__getitem__) == "14171b"
    assert all(dots[colour] > 40 for colour in (*STRATEGIES, "e6e9ec"))
    has = "paper => document.querySelector('#figure-iterations .plot').layout.paper_bgcolor === paper"
    page.emulate_media(color_scheme="light")
    page.wait_for_function(has, arg="#ffffff")
    page.get_by_role("button", name="Dark").click()
    page.wait_for_function(has, arg="#14171b")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    page.get_by_role("button", name="Light").click()
    page.wait_for_function(has, arg="#ffffff")
    assert visit.said == []


def test_text_of_the_capture_stays_text(browser: Browser, hostile: Path) -> None:
    visit = Visit(browser, hostile, viewport={"width": 400, "height": 800})
    for name in FIGURES:
        visit.drawn(name)
    page = visit.page
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 400
    assert page.locator("main b, main img, main [onclick], main a[href]").count() == 0
    assert page.locator("#walks td.wide").first.text_content() == HOSTILE_SHOWN
    assert page.locator("#strategies tbody th").last.text_content() == HOSTILE_SHOWN
    ticks = page.locator("#figure-iterations .plot .ytick text")
    # plotly draws the label without any element of its own inside: not bold, no link, no picture
    assert ticks.last.evaluate("tick => [tick.querySelectorAll('*').length, tick.textContent]") == [
        0,
        HOSTILE_SHOWN[:24],
    ]
    assert page.title().endswith(HOSTILE_SHOWN)
    assert visit.said == []
    assert visit.asked == [hostile.as_uri()]


def test_without_scripts_tables_and_pictures_are_there(without_scripts: Visit) -> None:
    page = without_scripts.page
    assert page.locator("#strategies tbody tr").count() == 5
    row = page.locator("#strategies tbody tr").nth(3)
    assert row.locator("th, td").all_text_contents()[:8] == [
        "vm_pgoff", "0.012", "1", "1", "0", "34", "30", "replayed",
    ]  # fmt: skip
    assert row.is_visible()
    assert page.locator("svg.static").count() == len(FIGURES)
    assert all(picture.is_visible() for picture in page.locator("svg.static").all())
    assert page.locator("button:visible").count() == 0


def test_a_browser_that_cannot_inflate_keeps_the_pictures_and_says_so(browser: Browser, report: Path) -> None:
    page = Visit(browser, report, script="delete window.DecompressionStream").page
    page.locator("#figure-why").scroll_into_view_if_needed()
    page.locator("#not-drawn").wait_for(state="attached")
    assert "could not start" in (page.locator("#not-drawn").text_content() or "")
    assert all(picture.is_visible() for picture in page.locator("svg.static").all())


def test_a_link_restores_what_was_zoomed_into(browser: Browser, report: Path) -> None:
    visit = Visit(browser, report).drawn("space")
    visit.page.evaluate(
        "Plotly.relayout(document.querySelector('#figure-space .plot'), "
        "{'xaxis.range[0]': 2.1, 'xaxis.range[1]': 2.6})"
    )
    visit.page.wait_for_function("() => location.hash === '#fig=space&x=2.1,2.6'")
    again = browser.new_context().new_page()
    again.goto(visit.page.url)
    again.wait_for_function(
        "() => document.querySelector('#figure-space .plot').layout?.xaxis.range.join() === '2.1,2.6'"
    )
    for link in ("#fig=nothing&x=1,2", "#fig=space&x=a,b", "#fig=<b>&x=1", "#fig=space&x=1"):
        visit.page.evaluate("link => { location.hash = link }", link)
        visit.page.wait_for_timeout(50)
    assert visit.said == []


def elements(browser: Browser, tables: dict[str, pa.Table], path: Path) -> int:
    """Elements of the page of these tables when all its figures are drawn."""
    path.write_text(render_page(tables), encoding="utf-8")
    assert path.stat().st_size < 2_000_000
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(path.as_uri())
    page.wait_for_selector("#figure-why.drawn .plot .main-svg")
    for name in FIGURES:
        page.locator(f"#figure-{name}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#figure-{name}.drawn .plot .main-svg")
    return int(page.evaluate("document.querySelectorAll('*').length"))


def test_a_million_loops_draw_no_more_than_a_hundred_and_eighty_do(browser: Browser, tmp_path: Path) -> None:
    tables = sample_tables()
    few = elements(browser, tables, tmp_path / "few.html")
    tables["loop"] = pa.concat_tables([tables["loop"]] * -(-1_000_000 // len(tables["loop"])))
    assert elements(browser, tables, tmp_path / "many.html") == few
