"""What pages are made of: frame, tables, pictures. No network, no scripts, light and dark, readable on a phone.

Everything that comes from outside (a stranger's recipe, a signature, a path) passes through `html.escape`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from evaluate.report.pictures.colours import DARK, LIGHT
from evaluate.report.pictures.svg import ReportPicture, inline
from evaluate.report.table import Cell, Column, Group, Table

STYLE_FILE = Path(__file__).parent / "page.css"
SOURCES = ("sources", "Where each number comes from")
"""Id and title of the part of a page that its tables point to."""


def document(
    title: str, head: str, pictures: Sequence[ReportPicture], tables: Sequence[Table], tail: str, footer: str
) -> str:
    """Return a page; head, tail and footer are HTML: what stands under the title, after the tables, and at the end.

    The tail must hold a part with the id of SOURCES.
    """
    places = [(table.id, table.title) for table in tables] + [SOURCES]
    links = "".join(f'<li><a href="#{escape(i)}">{escape(name)}</a></li>' for i, name in places)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{head}"
        f'<nav aria-label="Tables"><ul>{links}</ul></nav>\n</header>\n<main>\n'
        f"{''.join(map(_figure, pictures))}{''.join(map(_table, tables))}{tail}"
        f'</main>\n<footer><p class="note">{footer}</p></footer>\n</body>\n</html>\n'
    )


def _style() -> str:
    style = STYLE_FILE.read_text(encoding="utf-8")
    for name, colours in (("%LIGHT%", LIGHT), ("%DARK%", DARK)):
        style = style.replace(name, " ".join(f"--{colour}: {value};" for colour, value in colours.items()))
    return style


def _figure(picture: ReportPicture) -> str:
    name = escape(picture.name)
    return (
        f'<h2 id="{name}">{escape(picture.title)}</h2>\n<figure>\n'
        f'<div class="box" tabindex="0" role="region" aria-label="{escape(picture.title)}">'
        f"{inline(picture.svg, picture.name, f'{picture.title}. {picture.caption}')}</div>\n"
        f"<figcaption>{escape(picture.caption)} Files: {name}.svg, {name}.png.</figcaption>\n</figure>\n"
    )


# --- tables ---


def _table(table: Table) -> str:
    title, name = escape(table.title), escape(table.id)
    made = f"Made by <code>{escape(table.command)}</code>; traced" if table.command else "Traced"
    notes = "".join(f'<p class="note">{escape(note)}</p>\n' for note in table.notes)
    return (
        f'<h2 id="{name}">{title}</h2>\n<p>{escape(table.caption)}</p>\n'
        f'<div class="box" tabindex="0" role="region" aria-label="{title}">\n<table aria-labelledby="{name}">\n'
        f'<caption><span>{made} under <a href="#sources">where each number comes from</a>.</span></caption>\n'
        f"{_head(table)}{''.join(_group(group, table.columns) for group in table.groups)}</table>\n</div>\n{notes}"
    )


def _head(table: Table) -> str:
    if not any(column.over for column in table.columns):
        cells = "".join(_heading(column) for column in table.columns)
        return f'<thead>\n<tr><th scope="col" class="head">{escape(table.head)}</th>{cells}</tr>\n</thead>\n'
    over, under = "", ""
    for name, columns in groupby(table.columns, key=lambda column: column.over):
        members = list(columns)
        if name:
            over += f'<th scope="colgroup" colspan="{len(members)}">{escape(name)}</th>'
            under += "".join(map(_heading, members))
        else:
            over += "".join(_heading(column, ' rowspan="2"') for column in members)
    first = f'<th scope="col" rowspan="2" class="head">{escape(table.head)}</th>'
    return f"<thead>\n<tr>{first}{over}</tr>\n<tr>{under}</tr>\n</thead>\n"


def _heading(column: Column, more: str = "") -> str:
    kind = ' class="text"' if column.text else ""
    return f'<th scope="col"{more}{kind}>{escape(column.title)}</th>'


def _group(group: Group, columns: Sequence[Column]) -> str:
    title = ""
    if group.title:
        span = len(columns) + 1
        title = f'<tr><th scope="rowgroup" colspan="{span}"><span>{escape(group.title)}</span></th></tr>\n'
    rows = "".join(
        f'<tr><th scope="row">{escape(row.head)}</th>'
        f"{''.join(_cell(cell, column) for cell, column in zip(row.cells, columns, strict=True))}</tr>\n"
        for row in group.rows
    )
    return f"<tbody>\n{title}{rows}</tbody>\n"


def _cell(cell: Cell, column: Column) -> str:
    kinds = [
        *(["text"] if column.text else []),
        *(["short"] if column.text and len(cell.text) < 24 else []),
        *(["best"] if cell.best else []),
        *(["missing"] if cell.missing and cell.value is None else []),
    ]
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    why = f' title="{escape(cell.missing, quote=True)}"' if cell.missing and cell.value is None else ""
    below = "".join(f"<small>{escape(text)}</small>" for text in (cell.interval, cell.beside) if text)
    return f"<td{kind}{why}><span>{escape(cell.shown)}</span>{below}</td>"
