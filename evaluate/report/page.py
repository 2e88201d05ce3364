"""The report as one HTML page: no network, no scripts, light and dark, readable on a phone.

Everything that comes from outside (a stranger's recipe, a signature, a path) passes through `html.escape`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from evaluate.report.colours import DARK, LIGHT
from evaluate.report.paper import Paper
from evaluate.report.results import Measured, Results, Score
from evaluate.report.svg import Picture, inline
from evaluate.report.table import Cell, Column, Group, Table, score_cell
from evaluate.report.tables import SHOWN
from evaluate.report.text import MINIATURE
from submission.sizes import GB, GIB, in_unit

STYLE_FILE = Path(__file__).parent / "page.css"
KEY_DIGITS = 12
"""Digits of a key or digest that the page shows; the files have them whole."""


def page(results: Results, tables: Sequence[Table], pictures: Sequence[Picture]) -> str:
    """Return the page."""
    title = escape(f"{results.edition}: report")
    places = [(t.id, t.title) for t in tables] + [("sources", "Where each number comes from")]
    links = "".join(f'<li><a href="#{escape(i)}">{escape(name)}</a></li>' for i, name in places)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{title}</h1>\n{_label(results)}{_facts(results)}"
        f'<nav aria-label="Tables"><ul>{links}</ul></nav>\n</header>\n<main>\n'
        f"{''.join(map(_figure, pictures))}{''.join(map(_table, tables))}{_sources(results)}"
        f'</main>\n<footer><p class="note">{_footer(results)}</p></footer>\n</body>\n</html>\n'
    )


def _style() -> str:
    style = STYLE_FILE.read_text(encoding="utf-8")
    for name, colours in (("%LIGHT%", LIGHT), ("%DARK%", DARK)):
        style = style.replace(name, " ".join(f"--{colour}: {value};" for colour, value in colours.items()))
    return style


def _label(results: Results) -> str:
    return f'<p class="label">{escape(MINIATURE)}</p>\n' if results.miniature else ""


def _facts(results: Results) -> str:
    """Return the uploaded systems at a glance: bytes against the limit, scores on the open set."""
    keys = {system.stages.get("quantize"): system for system in results.systems}
    cards = ""
    for upload in results.uploads:
        size = upload.size_bytes
        margin = results.limits[results.size_limit] - size
        room = f"{abs(margin):,} bytes {'under' if margin >= 0 else 'OVER'} {results.size_limit}"
        lines = [f"{in_unit(size, GB)} GB, {in_unit(size, GIB)} GiB; {room}"]
        system = keys.get(upload.stages.get("quantize"))  # the same packed model, measured on the open set
        for pair in results.pairs:
            outcome = system.outcome(pair, results.open_testset) if system else None
            figures = [_told(score) for score in outcome.scores.values() if score.metric in SHOWN] if outcome else []
            lines += [f"{results.open_testset} {pair}: {', '.join(figures)}"] if figures else []
        small = "".join(f"<small>{escape(line)}</small>" for line in lines)
        cards += f"<div><dt>{escape(upload.name)}: model folder</dt><dd>{size:,} bytes{small}</dd></div>\n"
    return f'<dl class="facts">\n{cards}</dl>\n' if cards else ""


def _told(score: Score) -> str:
    cell = score_cell(score)
    return f"{score.metric} {cell.shown}" + (f" ({cell.interval})" if cell.interval else "")


def _figure(picture: Picture) -> str:
    name = escape(picture.name)
    return (
        f'<h2 id="{name}">{escape(picture.title)}</h2>\n<figure>\n'
        f'<div class="box" tabindex="0" role="region" aria-label="{escape(picture.title)}">'
        f"{inline(picture.svg, picture.name, f'{picture.title}. {picture.reading}')}</div>\n"
        f"<figcaption>{escape(picture.reading)} Files: {name}.svg, {name}.png.</figcaption>\n</figure>\n"
    )


# --- tables ---


def _table(table: Table) -> str:
    title, name = escape(table.title), escape(table.id)
    made = f"Made by <code>{escape(table.command)}</code>; traced" if table.command else "Traced"
    notes = "".join(f'<p class="note">{escape(note)}</p>\n' for note in table.notes)
    return (
        f'<h2 id="{name}">{title}</h2>\n<p>{escape(table.reading)}</p>\n'
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


# --- where each number comes from ---


def _sources(results: Results) -> str:
    about = (
        "A figure is made by stages; a stage's folder lies in the store under objects/ and its key, whose first "
        f"{KEY_DIGITS} digits stand here (whole in report.json). Its artifact.json names its options, its inputs and "
        "every file with its digest. The signature holds the metric's settings and version."
    )
    parts = (
        ("Tables 1, 4, 5 and the pictures", results.systems, results.commands.get("systems", "")),
        ("Table 6", results.uploads, results.commands.get("uploads", "")),
        ("Segmentation methods", results.segmentations, results.commands.get("segmentations", "")),
    )
    blocks = "".join(
        f"<details>\n<summary>{escape(title)}: {len(systems)} systems</summary>\n"
        f'<p class="note">Made by <code>{escape(command)}</code></p>\n{_sources_table(title, systems)}</details>\n'
        for title, systems, command in parts
        if systems
    )
    ranked = ""
    if results.layers:
        key = escape(str(results.layers_about["stage"])[:KEY_DIGITS])
        ranked = (
            f'<p class="note">Sensitivity by layer: ranking.json of the stage sensitivity, <code>{key}</code>.</p>\n'
        )
    return (
        f'<h2 id="sources">Where each number comes from</h2>\n<p>{escape(about)}</p>\n{ranked}{blocks}'
        f"<details>\n<summary>Signatures</summary>\n{_signatures(results)}</details>\n"
    )


def _sources_table(title: str, systems: Sequence[Measured]) -> str:
    heads = ("system", "pair", "test set", "stages", "references", "reference file", "hypotheses")
    head = "".join(
        f'<th scope="col" class="{"head" if n == 0 else "text"}">{escape(h)}</th>' for n, h in enumerate(heads)
    )
    rows = "".join(f"<tr>{row}</tr>\n" for system in systems for row in _source_rows(system))
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="Sources: {escape(title)}">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )


def _source_rows(system: Measured) -> Iterator[str]:
    name = f'<th scope="row">{escape(system.name)}</th>'
    if system.losses:
        pairs = ", ".join(system.losses)
        yield f"{name}{_source_cells(pairs, 'dev (loss)', _stage_list(system.stages), '–', '–', '–')}"
    if system.cuts:
        keys = {f"segment:{cut.testset}": cut.stage for cut in system.cuts}
        yield f"{name}{_source_cells('–', 'segments, speech', _stage_list(keys), '–', '–', '–')}"
    for outcome in system.outcomes:
        score = next(iter(outcome.scores.values()), None)
        stages = _stage_list(outcome.stages) if outcome.stages else escape(outcome.missing)
        count = f"{score.references:,}{' resegmented' if score.resegmented else ''}" if score else "–"
        digests = (score.data_sha256[:KEY_DIGITS], score.hypotheses_sha256[:KEY_DIGITS]) if score else ("–", "–")
        yield f"{name}{_source_cells(outcome.pair, outcome.testset, stages, count, *digests)}"


def _source_cells(pair: str, testset: str, stages: str, *others: str) -> str:
    """Return the cells of a row; stages is HTML already."""
    plain = [f'<td class="text short">{escape(text)}</td>' for text in (pair, testset)]
    rest = [f'<td class="text short">{escape(text)}</td>' for text in others]
    return "".join([*plain, f'<td class="text">{stages}</td>', *rest])


def _stage_list(stages: dict[str, str]) -> str:
    return "<br>".join(f"{escape(stage)} <code>{escape(key[:KEY_DIGITS])}</code>" for stage, key in stages.items())


def _signatures(results: Results) -> str:
    found: dict[tuple[str, str], set[str]] = {}
    for system in (*results.systems, *results.uploads, *results.segmentations):
        for outcome in system.outcomes:
            for score in outcome.scores.values():
                found.setdefault((score.metric, score.signature), set()).add(outcome.pair)
    rows = "".join(
        f"<li>{escape(metric)} ({escape(', '.join(sorted(pairs)))}): <code>{escape(signature)}</code></li>\n"
        for (metric, signature), pairs in sorted(found.items())
    )
    return f"<ul>\n{rows}</ul>\n"


def _footer(results: Results) -> str:
    source = Paper(results.campaign).source
    beside = f" The paper: {escape(source)}." if source else ""
    same = "The same figures: report.md, report.csv, report.json."
    return f"Campaign <code>{escape(results.campaign)}</code>. {same}{beside}"
