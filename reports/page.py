"""The report as one HTML file that needs no other: no request is made, nothing is fetched, nothing is sent.

The page carries plotly.js as base64 of gzip (0.66 MB instead of 1.5 MB) and inflates it in the browser. A
content security policy names the hashes of the page's two scripts, so no text of a capture can become a
script even if it slipped through the escaping; and it forbids every connection. Without JavaScript all
tables and static pictures are there.
"""

from __future__ import annotations

import gzip
import shlex
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from reports import markdown, text
from reports.escape import script_json
from reports.facts import all as report_facts
from reports.sections import sections
from reports.words import sentences as words
from schemas.errors import OutputError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from reports.figures.figure import Figure
    from reports.section import Section

_ASSETS: Final = files("reports") / "assets"
COMMAND_KEY: Final = b"replay.command"
MAX_BYTES: Final = 2_000_000
"""Largest page, unless another size is asked for."""

DETAILS: Final = (8, 4, 2, 1, 1 / 2, 1 / 4, 1 / 8)
"""Factors on the parts that figures have, tried until the page is small enough."""


def render_page(tables: Mapping[str, pa.Table]) -> str:
    """Render the report as one self-contained HTML document; the same for the same tables.

    Args:
        tables: Result tables by name. The command that made them is taken from the schema metadata of table
            ``capture`` (key ``replay.command``), where it is.
    """
    facts = report_facts.gather(tables)
    return page_of(facts, sections(tables, facts), tables)


def page_of(
    facts: report_facts.Facts,
    parts: Sequence[Section],
    tables: Mapping[str, pa.Table],
    max_bytes: int = MAX_BYTES,
) -> str:
    """As `render_page`, from facts and sections already made.

    The figures have fewer parts than usual where the page would be larger than ``max_bytes``, and more where
    more than `MAX_BYTES` is asked for; the page says so.

    Raises:
        OutputError: The page is larger whatever the figures show.
    """
    for detail in DETAILS:
        if detail <= max(1, max_bytes / MAX_BYTES):
            page = _page(facts, parts, tables, detail, max_bytes)
            if len(page.encode()) <= max_bytes:
                return page
    raise OutputError(
        f"the page takes {len(page.encode()):,} bytes or more",
        path="report.html",
        hint=f"--max-size asked for at most {max_bytes:,}: allow more",
    )


def _page(
    facts: report_facts.Facts,
    parts: Sequence[Section],
    tables: Mapping[str, pa.Table],
    detail: float,
    max_bytes: int,
) -> str:
    views = [_section(part, detail) for part in parts]
    drawn = [figure for view in views for figure in view["figures"]]
    return _render(
        "page.html",
        [view["figure"] for view in drawn],
        facts=facts,
        verdict=words.verdict(facts),
        counts=words.counts(facts),
        sections=views,
        measures=words.measures(facts) if facts.rows else [],
        evidence=words.evidence(facts),
        text_form=escape(text.text_of(facts, parts)),
        markdown_form=escape(markdown.markdown_of(facts, parts)),
        command=_command(tables["capture"], facts),
        detail=_detail(detail, max_bytes),
    )


def figure_page(figure: Figure) -> str:
    """One figure as a self-contained HTML document, as safe as the report."""
    return _render("figure.html", [figure], figure=_figure(figure))


def _render(template: str, drawn: Sequence[Figure], **values: Any) -> str:
    """Fill a template; it carries plotly.js only where there is something to draw."""
    packed = (_ASSETS / "plotly-cartesian.min.js.gz").read_bytes()
    script = _asset("page.js")
    return (
        environment()
        .get_template(template)
        .render(
            policy=_policy(script.encode(), gzip.decompress(packed)),
            css=Markup(_asset("page.css")),
            specs=Markup(script_json([{"name": figure.name, "spec": figure.spec} for figure in drawn])),
            plotly=b64encode(packed).decode() if drawn else "",
            script=Markup(script),
            **values,
        )
    )


def _section(part: Section, detail: float) -> dict[str, Any]:
    drawn = [figure for draw in part.draw if (figure := draw(detail)) is not None]
    return {
        "name": part.name,
        "title": part.title,
        "sentences": part.sentences,
        "said": {figure.finding for figure in drawn},
        "figures": [_figure(figure) for figure in drawn],
        "grids": part.grids,
        "empty": part.empty if not drawn and not part.grids else "",
    }


def _detail(detail: float, max_bytes: int) -> str:
    """What was done to the figures for the size of the page; empty: nothing."""
    if detail == 1:
        return ""
    times = f"{detail} times" if detail > 1 else f"1/{round(1 / detail)} of"
    return f"Figures show up to {times} the usual number of parts: this page may have {max_bytes:,} bytes."


def _figure(figure: Figure) -> dict[str, Any]:
    return {"figure": figure, "picture": Markup(figure.picture)}


def _command(capture: pa.Table, facts: report_facts.Facts) -> str:
    recorded = (capture.schema.metadata or {}).get(COMMAND_KEY)
    return recorded.decode() if recorded else f"replay analyze {shlex.quote(facts.capture['path'])}"


def _policy(*scripts: bytes) -> str:
    hashes = " ".join(f"'sha256-{b64encode(sha256(script).digest()).decode()}'" for script in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"


def environment() -> Environment:
    """Escapes every value, and makes every string printable first (no control or direction characters)."""
    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_asset),
        finalize=lambda value: printable(value) if type(value) is str else value,
    )


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
