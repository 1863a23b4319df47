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

from reports import facts as report_facts
from reports import markdown, text, words
from reports.escape import script_json
from reports.sections import sections
from schemas.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from reports.figure import Figure
    from reports.section import Section

_ASSETS: Final = files("reports") / "assets"
COMMAND_KEY: Final = b"replay.command"


def render_page(tables: Mapping[str, pa.Table]) -> str:
    """Render the report as one self-contained HTML document; the same for the same tables.

    Args:
        tables: Result tables by name. The command that made them is taken from the schema metadata of table
            ``capture`` (key ``replay.command``), where it is.
    """
    facts = report_facts.gather(tables)
    return page_of(facts, sections(tables, facts), tables)


def page_of(facts: report_facts.Facts, parts: Sequence[Section], tables: Mapping[str, pa.Table]) -> str:
    """As `render_page`, from facts and sections already made."""
    views = [_section(part) for part in parts]
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


def _section(part: Section) -> dict[str, Any]:
    drawn = [figure for draw in part.draw if (figure := draw()) is not None]
    return {
        "name": part.name,
        "title": part.title,
        "sentences": part.sentences,
        "said": {figure.finding for figure in drawn},
        "figures": [_figure(figure) for figure in drawn],
        "grids": part.grids,
        "empty": part.empty if not drawn and not part.grids else "",
    }


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
