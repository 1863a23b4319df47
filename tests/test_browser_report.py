"""The HTML report in a real browser: drawn, offline, escaped, readable without scripts, light and dark."""

from __future__ import annotations

import re
import shutil
import time
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
        if script:
            self.page.add_init_script(script)
        self.page.goto(report.as_uri())

    def drawn(self) -> Visit:
        """Wait until all figures are interactive."""
        self.page.wait_for_selector("#figure-note", state="detached", timeout=60_000)
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


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_page(sample_tables()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tables = sample_tables(
        comm=HOSTILE, custom=(HOSTILE,), capture={"path": HOSTILE, "hostname": HOSTILE, "tool": HOSTILE}
    )
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    path.write_text(render_page(tables), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_drawn_and_nothing_is_asked_for(browser: Browser, report: Path, scheme: str) -> None:
    visit = Visit(browser, report, color_scheme=scheme).drawn()
    page = visit.page
    assert page.locator("#figure-iterations .plot .scatterlayer .points path").count() == 7
    assert page.locator("#figure-population .plot .scatterlayer .lines path.js-line").count() == 2
    page.wait_for_timeout(500)
    dots, lines = (visit.colours(f"#figure-{name} .plot") for name in ("iterations", "population"))
    space = visit.colours("#figure-space .plot")
    for colour in ("d55e00", "0072b2", "cc79a7", "009e73"):
        assert dots[colour] > 100
        assert space[colour] > 50
    assert lines["d55e00"] > 500
    paper = "14171b" if scheme == "dark" else "ffffff"
    assert max(dots, key=dots.__getitem__) == max(lines, key=lines.__getitem__) == paper
    assert visit.said == []
    assert visit.asked == [report.as_uri()]


def test_colours_follow_the_system_while_the_page_is_open(browser: Browser, report: Path) -> None:
    visit = Visit(browser, report, color_scheme="light").drawn()
    visit.page.emulate_media(color_scheme="dark")
    visit.page.wait_for_timeout(1000)
    dots = visit.colours("#figure-iterations .plot")
    assert max(dots, key=dots.__getitem__) == "14171b"


def test_no_button_sends_anything_anywhere(browser: Browser, report: Path) -> None:
    page = Visit(browser, report).drawn().page
    titles = page.eval_on_selector_all(
        ".modebar-btn", "all => all.map((one) => one.dataset.title || one.title)"
    )
    assert any(re.search("PNG", title) for title in titles)
    assert not [title for title in titles if re.search("share|cloud|plotly|edit", title, re.IGNORECASE)]
    assert page.locator(".modebar-btn--logo").count() == 0


def test_a_figure_can_be_saved_as_a_picture(browser: Browser, report: Path) -> None:
    page = Visit(browser, report).drawn().page
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


def test_text_of_the_capture_stays_text(browser: Browser, hostile: Path) -> None:
    visit = Visit(browser, hostile).drawn()
    page = visit.page
    assert page.locator("main b, main img, main [onclick], main a[href]").count() == 0
    assert page.locator("#walks td.wide").first.text_content() == HOSTILE_SHOWN
    assert page.locator("#strategies tbody th").last.text_content() == HOSTILE_SHOWN
    ticks = page.locator("#figure-iterations .plot .ytick text")
    # plotly draws the label without any element of its own inside: not bold, no link, no picture
    assert ticks.last.evaluate("tick => [tick.querySelectorAll('*').length, tick.textContent]") == [
        0,
        HOSTILE_SHOWN,
    ]
    assert page.title().endswith(HOSTILE_SHOWN)
    assert visit.said == []
    assert visit.asked == [hostile.as_uri()]


def test_without_scripts_tables_and_pictures_are_there(browser: Browser, report: Path) -> None:
    page = Visit(browser, report, java_script_enabled=False).page
    assert page.locator("#strategies tbody tr").count() == 5
    row = page.locator("#strategies tbody tr").nth(3)
    assert row.locator("th, td").all_text_contents()[:8] == [
        "vm_pgoff", "0.012", "1", "1", "0", "34", "30", "replayed",
    ]  # fmt: skip
    assert row.is_visible()
    assert page.locator("svg.static").count() == 3
    assert all(picture.is_visible() for picture in page.locator("svg.static").all())
    assert page.locator("#figure-iterations svg.static circle").count() == 5
    assert page.locator("button:visible").count() == 0
    assert page.locator("#figure-note").is_visible()


def test_a_browser_that_cannot_inflate_keeps_the_pictures_and_says_so(browser: Browser, report: Path) -> None:
    page = Visit(browser, report, script="delete window.DecompressionStream").page
    page.wait_for_function("document.getElementById('figure-note').textContent.includes('could not start')")
    assert all(picture.is_visible() for picture in page.locator("svg.static").all())


def test_copy_button_gives_the_text_of_the_report(browser: Browser, report: Path) -> None:
    visit = Visit(browser, report, permissions=["clipboard-read", "clipboard-write"])
    page = visit.drawn().page
    page.locator("#as-text summary").click()
    page.get_by_role("button", name="Copy as text").click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#text-form").text_content()
    assert "\nvm_pgoff     0.012      1      1      0     34     30  replayed\n" in copied


def test_figures_have_names_for_those_who_do_not_see_them(browser: Browser, report: Path) -> None:
    page = Visit(browser, report).drawn().page
    images = page.get_by_role("group", name=re.compile("Most iterations in one inner loop: observed 2,000"))
    assert images.count() == 1
    assert (
        page.get_by_role("group", name=re.compile("Most VMAs alive at once on one anon_vma: 2,000")).count()
        == 1
    )


def test_a_narrow_screen_does_not_scroll_sideways(browser: Browser, hostile: Path) -> None:
    page = Visit(browser, hostile, viewport={"width": 400, "height": 800}).drawn().page
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 400


def test_print_shows_the_pictures_on_light_paper(browser: Browser, report: Path) -> None:
    page = Visit(browser, report, color_scheme="dark").drawn().page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#figure-iterations svg.static").is_visible()
    assert not page.locator("#figure-iterations .plot").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_link_restores_what_was_zoomed_into(browser: Browser, report: Path) -> None:
    page = Visit(browser, report).drawn().page
    page.evaluate(
        "Plotly.relayout(document.querySelector('#figure-space .plot'), "
        "{'xaxis.range[0]': 2.1, 'xaxis.range[1]': 2.6})"
    )
    page.wait_for_function("location.hash === '#fig=space&x=2.1,2.6'")
    again = browser.new_context().new_page()
    again.goto(page.url)
    again.wait_for_function(
        "JSON.stringify(document.querySelector('#figure-space .plot').layout?.xaxis.range) === '[2.1,2.6]'"
    )


@pytest.mark.parametrize("link", ["#fig=nothing&x=1,2", "#fig=space&x=a,b", "#fig=<b>&x=1", "#fig=space&x=1"])
def test_a_link_that_names_nothing_does_nothing(browser: Browser, report: Path, link: str) -> None:
    visit = Visit(browser, report).drawn()
    visit.page.evaluate("link => { location.hash = link }", link)
    visit.page.wait_for_timeout(300)
    assert visit.said == []


def test_every_table_can_be_copied(browser: Browser, report: Path) -> None:
    visit = Visit(browser, report, permissions=["clipboard-read", "clipboard-write"])
    page = visit.drawn().page
    tables = page.locator("main table").count()
    assert page.get_by_role("button", name="Copy table as text", include_hidden=True).count() == tables
    page.locator("#strategies").get_by_role("button", name="Copy table as Markdown").click()
    page.get_by_role("button", name="Copied").wait_for()
    lines = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert lines[1].startswith("| --- | ---: | ---: |")
    assert lines[5].startswith("| vm_pgoff | 0.012 | 1 | 1 | 0 | 34 | 30 |")


def test_the_keyboard_reaches_every_button_and_shows_where_it_is(browser: Browser, report: Path) -> None:
    page = Visit(browser, report).drawn().page
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent"))
    assert {"Copy table as text", "Copy table as Markdown", "Plain text, for mail"} <= set(reached)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_a_million_loops_open_in_three_seconds(browser: Browser, tmp_path: Path) -> None:
    tables = sample_tables()
    copies = -(-1_000_000 // len(tables["loop"]))
    tables["loop"] = pa.concat_tables([tables["loop"]] * copies)
    path = tmp_path / "report.html"
    path.write_text(render_page(tables), encoding="utf-8")
    assert path.stat().st_size < 2_000_000
    begun = time.monotonic()
    Visit(browser, path).drawn()
    assert time.monotonic() - begun < 3
