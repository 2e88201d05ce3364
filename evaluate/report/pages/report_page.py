"""The report as one HTML page: the uploads at a glance, pictures, tables, and where each number comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from evaluate.report.pages.html import SOURCES, document
from evaluate.report.paper import Paper
from evaluate.report.pictures.svg import ReportPicture
from evaluate.report.results import ReportedScore, Results, SystemResult
from evaluate.report.table import Table, score_cell
from evaluate.report.tables import SHOWN
from evaluate.report.text import MINIATURE
from submission.model.sizes import GB, GIB, in_unit

KEY_DIGITS = 12
"""Digits of a key or digest that the page shows; the files have them whole."""


def page(results: Results, tables: Sequence[Table], pictures: Sequence[ReportPicture]) -> str:
    """Return the page."""
    head = f"{_label(results)}{_facts(results)}"
    return document(f"{results.edition}: report", head, pictures, tables, _sources(results), _footer(results))


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


def _told(score: ReportedScore) -> str:
    cell = score_cell(score)
    return f"{score.metric} {cell.shown}" + (f" ({cell.interval})" if cell.interval else "")


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
        f'<h2 id="{SOURCES[0]}">{SOURCES[1]}</h2>\n<p>{escape(about)}</p>\n{ranked}{blocks}'
        f"<details>\n<summary>Signatures</summary>\n{_signatures(results)}</details>\n"
    )


def _sources_table(title: str, systems: Sequence[SystemResult]) -> str:
    heads = ("system", "pair", "test set", "stages", "references", "reference file", "hypotheses")
    head = "".join(
        f'<th scope="col" class="{"head" if n == 0 else "text"}">{escape(h)}</th>' for n, h in enumerate(heads)
    )
    rows = "".join(f"<tr>{row}</tr>\n" for system in systems for row in _source_rows(system))
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="Sources: {escape(title)}">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )


def _source_rows(system: SystemResult) -> Iterator[str]:
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
