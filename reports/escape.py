"""Make text that came out of a capture harmless: terminals, Markdown, plotly labels, JSON inside HTML.

Task names, paths and marker texts are written by whoever ran the workload. HTML itself needs nothing from
here but `printable`: the page template escapes by itself (jinja2 autoescape).
"""

import json

from schemas.errors import printable


def ascii_only(text: str) -> str:
    r"""One printable line in ASCII, for mail and terminals; the rest becomes ``\xNN`` or ``\uNNNN``."""
    return printable(text).encode("ascii", "backslashreplace").decode("ascii")


def markdown(text: str) -> str:
    """Escape what Markdown, or HTML inside it, acts on; underscores in kernel names stay readable."""
    safe = _entities(text)
    for mark in "\\`*[]|~#":
        safe = safe.replace(mark, "\\" + mark)
    return safe


def plotly_label(text: str) -> str:
    """Escape for plotly.js, which acts on ``<b>``, ``<a>``, ``<br>`` and entities in every label."""
    return _entities(text)


def script_json(value: object) -> str:
    """JSON that cannot close, or open, a ``<script>`` element it stands in.

    Raises:
        ValueError: A number is not finite.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _entities(text: str) -> str:
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
