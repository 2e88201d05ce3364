"""Make the tables of a translated folder: scores, recordings, the lines with the lowest chrF, flagged lines."""

from __future__ import annotations

from collections.abc import Mapping

from evaluate.report.pages.folder_result import FolderResult, kind_of
from evaluate.report.results import LOWER_IS_BETTER
from evaluate.report.table import DECIMALS, Cell, Column, Group, Row, Table
from evaluate.scoring.metrics import make_metrics
from submission.text.characters import printable
from submission.text.segments import SAMPLE_RATE

MOST_ROWS = 60
"""Recordings in the table."""
MOST_FLAGGED = 20
WORST = 10


def score_tables(result: FolderResult) -> list[Table]:
    """Return the table of scores; none without references."""
    if not result.scores:
        return []
    first = result.scores[0]
    others = [printable(name, 80) for name in result.report["references_without_recording"]]
    rows = tuple(
        Row(
            head=f"{score.metric}{' (lower is better)' if score.metric in LOWER_IS_BETTER else ''}",
            cells=(
                Cell(value=score.value, decimals=DECIMALS[score.metric], low=score.low, high=score.high),
                Cell(text=score.signature),
            ),
        )
        for score in result.scores
    )
    how = "resegmented along the references" if first.resegmented else "line by line"
    return [
        Table(
            id="scores",
            title="Scores",
            caption=f"{first.segments:,} hypotheses against {first.references:,} reference lines, {how}.",
            head="metric",
            columns=(Column(title="value"), Column(title="signature", text=True)),
            groups=(Group(title="", rows=rows),),
            notes=(
                "Small: the 95 % bootstrap interval over the reference lines.",
                *([f"With references but not in the folder, so not scored: {', '.join(others)}."] if others else []),
            ),
        )
    ]


def recordings_table(result: FolderResult, quality: Mapping[str, float]) -> Table:
    """Return the table of recordings; quality: recording -> chrF, empty without references."""
    rows = []
    for name in result.recordings[:MOST_ROWS]:
        own = [n for n, segment in enumerate(result.segments) if segment.recording == name]
        kinds = [kind_of(result.hypotheses[n]) for n in own]
        cells = [
            Cell(value=len(own), decimals=0),
            Cell(value=sum(result.segments[n].seconds for n in own), decimals=1),
            Cell(value=kinds.count("blank"), decimals=0),
            Cell(value=kinds.count("flagged"), decimals=0),
        ]
        if quality:
            cells.append(Cell(value=quality.get(name), missing="not computed: no reference line"))
        rows.append(Row(head=printable(name, 80), cells=tuple(cells)))
    titles = ["segments", "seconds in segments", "blank", "flagged", *(["chrF"] if quality else [])]
    left = len(result.recordings) - len(rows)
    silent = result.report["recordings_without_segments"]
    return Table(
        id="recordings",
        title="Recordings",
        caption=f"Recordings without a segment: {len(silent):,}.",
        head="recording",
        columns=tuple(Column(title=title) for title in titles),
        groups=(Group(title="", rows=tuple(rows)),),
        notes=(f"{left:,} more are in translation_report.json.",) if left else (),
    )


def worst_tables(result: FolderResult) -> list[Table]:
    """Return the tables of the lines with the lowest chrF and of the flagged lines, where there are any."""
    return [table for table in (_lowest_table(result), _flagged_table(result)) if table is not None]


def _lowest_table(result: FolderResult) -> Table | None:
    if not result.lines:
        return None
    metric = make_metrics(result.language)["chrF"]
    scored = [(metric.sentence_score(one.hypothesis, [one.reference]).score, one) for one in result.lines]
    worst = sorted(scored, key=lambda item: item[0])[:WORST]
    rows = tuple(
        Row(
            head=printable(one.recording, 80),
            cells=(Cell(value=value), *map(_text, (one.reference, one.hypothesis))),
        )
        for value, one in worst
    )
    columns = (Column(title="chrF"), Column(title="reference", text=True), Column(title="translation", text=True))
    return Table(
        id="worst",
        title="Lowest chrF",
        caption=f"The {len(rows)} reference lines with the lowest chrF.",
        head="recording",
        columns=columns,
        groups=(Group(title="", rows=rows),),
    )


def _flagged_table(result: FolderResult) -> Table | None:
    pairs = zip(result.segments, result.hypotheses, strict=True)
    flagged = [(segment, hypothesis) for segment, hypothesis in pairs if hypothesis.flags]
    if not flagged:
        return None
    rows = tuple(
        Row(
            head=f"{printable(segment.recording, 80)} {_seconds(segment.start)}-{_seconds(segment.end)} s",
            cells=(Cell(text=", ".join(hypothesis.flags)), _text(hypothesis.text)),
        )
        for segment, hypothesis in flagged[:MOST_FLAGGED]
    )
    left = len(flagged) - len(rows)
    more = (f"{left:,} more are in hypotheses.jsonl.",) if left else ()
    return Table(
        id="flagged",
        title="Flagged",
        caption=f"Flagged lines: {len(flagged):,}.",
        head="segment",
        columns=(Column(title="flags", text=True), Column(title="translation", text=True)),
        groups=(Group(title="", rows=rows),),
        notes=("docs/decoding.md explains the flags.", *more),
    )


def _seconds(samples: int) -> str:
    return f"{samples / SAMPLE_RATE:.2f}"


def _text(text: str) -> Cell:
    return Cell(text=printable(text, 400) or "(blank)")
