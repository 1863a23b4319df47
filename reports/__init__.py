"""Result tables in, documents out: text, Markdown, JSON, one HTML page. Computes no result."""

from reports.figures_by_name import figures_of
from reports.markdown import render_markdown
from reports.page import render_page
from reports.summary_json import json_summary
from reports.text import render_text
from reports.writer import ReportPaths, write_reports

__all__ = [
    "ReportPaths",
    "figures_of",
    "json_summary",
    "render_markdown",
    "render_page",
    "render_text",
    "write_reports",
]
