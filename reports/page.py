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

from reports import excerpts, markdown, node_words, text, words
from reports import facts as report_facts
from reports.escape import script_json
from reports.figures import figures
from schemas.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from reports.figure import Figure

_ASSETS: Final = files("reports") / "assets"
COMMAND_KEY: Final = b"replay.command"


def render_page(tables: Mapping[str, pa.Table]) -> str:
    """Render the report as one self-contained HTML document; the same for the same tables.

    Args:
        tables: Result tables by name. The command that made them is taken from the schema metadata of table
            ``capture`` (key ``replay.command``), where it is.
    """
    return page_of(report_facts.gather(tables), tables)


def page_of(facts: report_facts.Facts, tables: Mapping[str, pa.Table]) -> str:
    """As `render_page`, from facts already gathered."""
    drawn = figures(tables, facts)
    packed = (_ASSETS / "plotly-cartesian.min.js.gz").read_bytes()
    script = _asset("page.js")
    return (
        _environment()
        .get_template("page.html")
        .render(
            facts=facts,
            policy=_policy(script.encode(), gzip.decompress(packed)),
            css=Markup(_asset("page.css")),
            verdict=words.verdict(facts),
            strategies=excerpts.strategies(facts),
            measures=words.measures(facts),
            evidence=words.evidence(facts),
            text_form=escape(text.text_of(facts)),
            markdown_form=escape(markdown.markdown_of(facts)),
            figures=[_view(figure) for figure in drawn],
            causes=excerpts.causes(facts),
            missed=excerpts.missed(tables["miss"], facts),
            longest=excerpts.longest_walks(facts),
            quality=excerpts.quality(facts),
            nodes=excerpts.nodes(facts),
            nodes_title=node_words.TITLE,
            nodes_measures=node_words.MEASURES,
            provenance=excerpts.origin(facts),
            command=_command(tables["capture"], facts),
            specs=Markup(script_json([{"name": figure.name, "spec": figure.spec} for figure in drawn])),
            plotly=b64encode(packed).decode(),
            script=Markup(script),
        )
    )


def figure_page(figure: Figure) -> str:
    """One figure as a self-contained HTML document, as safe as the report."""
    packed = (_ASSETS / "plotly-cartesian.min.js.gz").read_bytes()
    script = _asset("page.js")
    return (
        _environment()
        .get_template("figure.html")
        .render(
            policy=_policy(script.encode(), gzip.decompress(packed)),
            css=Markup(_asset("page.css")),
            figure=_view(figure),
            specs=Markup(script_json([{"name": figure.name, "spec": figure.spec}])),
            plotly=b64encode(packed).decode(),
            script=Markup(script),
        )
    )


def _view(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "title": figure.title,
        "alt": figure.alt,
        "picture": Markup(figure.picture),
        "caption": figure.caption,
        "table": excerpts.grid(figure.header, figure.rows),
    }


def _command(capture: pa.Table, facts: report_facts.Facts) -> str:
    recorded = (capture.schema.metadata or {}).get(COMMAND_KEY)
    return recorded.decode() if recorded else f"replay analyze {shlex.quote(facts.capture['path'])}"


def _policy(*scripts: bytes) -> str:
    hashes = " ".join(f"'sha256-{b64encode(sha256(script).digest()).decode()}'" for script in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"


def _environment() -> Environment:
    """Escapes every value, and makes every string printable first (no control or direction characters)."""
    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_asset),
        finalize=lambda value: printable(value) if type(value) is str else value,
    )


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
