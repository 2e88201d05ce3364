"""Render HTML pages from Jinja templates: self-contained, without network or scripts, light and dark.

Every value is escaped: recipes, signatures and paths are untrusted input.
"""

from __future__ import annotations

import functools
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluate.report.pictures.palettes import DARK, LIGHT
from evaluate.report.pictures.render import ReportPicture
from evaluate.report.table import Table

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One figure at the top of a page."""

    name: str
    value: str
    details: tuple[str, ...] = ()
    """Lines below the value."""


@functools.cache
def environment() -> Environment:
    """Return the Jinja environment of the pages: escapes every value, and refuses undefined ones."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["data_uri"] = data_uri
    return made


def data_uri(svg: str) -> str:
    """Return an SVG as an address that holds the image itself."""
    return f"data:image/svg+xml;base64,{b64encode(svg.encode('utf-8')).decode('ascii')}"


def render_page(
    template: str,
    *,
    title: str,
    facts: Sequence[Fact],
    pictures: Sequence[ReportPicture],
    tables: Sequence[Table],
    **content: object,
) -> str:
    """Return a page; template: a file that extends `page.html.jinja`; content: its own variables."""
    return (
        environment()
        .get_template(template)
        .render(title=title, facts=facts, pictures=pictures, tables=tables, light=LIGHT, dark=DARK, **content)
    )
