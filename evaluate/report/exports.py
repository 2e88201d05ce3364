"""Export the report as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from evaluate.report.efficiency_table import FIGURES, batch_cells
from evaluate.report.paper import Paper
from evaluate.report.results import ReportedScore, Results, SystemResult, TestSetResult
from evaluate.report.table import Cell, Table
from submission.store.digests import canonical_json

MINIATURE = "Miniature: scores of a tiny model on synthetic speech."
SEGMENTATION_FIGURES = ("segments", "segment_seconds", "speech_seconds", "dropped_seconds")
"""Figures of a segmentation, beside the scores of its translations."""
CSV_COLUMNS = (
    "part",
    "system",
    "pair",
    "testset",
    "metric",
    "value",
    "low",
    "high",
    "paper",
    "size_bytes",
    "bits_per_parameter",
    "meets_limit",
    "segments",
    "references",
    "resegmented",
    "signature",
    "data_sha256",
    "hypotheses_sha256",
    "stage",
    "note",
    "description",
)


def markdown(results: Results, tables: Sequence[Table], captions: Sequence[tuple[str, str, str]]) -> str:
    """Return the report in Markdown; readings: (file of a picture, its title, its sentence)."""
    blocks = [f"# {_plain(results.edition)}: report"]
    if results.miniature:
        blocks.append(f"**{MINIATURE}**")
    blocks += [f"![{_plain(title)}]({file})\n\n{_plain(caption)}" for file, title, caption in captions]
    blocks += [_markdown_table(table) for table in tables]
    return "\n\n".join(blocks) + "\n"


def _markdown_table(table: Table) -> str:
    heads = [table.head, *(f"{c.over} {c.title}".strip() for c in table.columns)]
    rules = ["---", *("---" if column.text else "---:" for column in table.columns)]
    lines = [f"## {_plain(table.title)}", ""]
    lines += [_plain(table.caption), ""] if table.caption else []
    lines += [_line(heads), f"| {' | '.join(rules)} |"]
    for group in table.groups:
        if group.title:
            lines.append(_line([f"*{_plain(group.title)}*", *[""] * len(table.columns)], escaped=True))
        lines += [_line([_plain(r.head), *map(_markdown_cell, r.cells)], escaped=True) for r in group.rows]
    notes = "\n\n".join(_plain(note) for note in table.notes)
    made = f"\n\nMade by `{table.command}`." if table.command else ""
    return "\n".join(lines) + f"\n\n{notes}{made}"


def _line(cells: Sequence[str], *, escaped: bool = False) -> str:
    return f"| {' | '.join(cells if escaped else map(_plain, cells))} |"


def _markdown_cell(cell: Cell) -> str:
    shown = _plain(cell.shown)
    text = f"**{shown}**" if cell.best else shown
    text += f" ({cell.interval})" if cell.interval else ""
    return text + (f" [{cell.beside}]" if cell.beside else "")


def _plain(text: str) -> str:
    """Return a text with Markdown syntax escaped: recipes are untrusted input."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    for sign in "*_[]":
        escaped = escaped.replace(sign, f"\\{sign}")
    return " ".join(escaped.split())


def figures_csv(results: Results) -> str:
    """Return every figure unrounded, one a line, with its provenance."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_records(results))
    return text.getvalue()


def _records(results: Results) -> Iterator[dict[str, object]]:
    paper = Paper(results.campaign)
    parts = {"systems": results.systems, "uploads": results.uploads, "segmentations": results.segmentations}
    for part, systems in parts.items():
        for system in systems:
            for pair, score in system.losses.items():
                yield _record(part, system, pair, "dev", score) | {"stage": system.stages.get("loss", "")}
            for one in system.segmentation_results:
                about = {"part": part, "system": system.name, "testset": one.testset, "stage": one.stage}
                figures = {name: getattr(one, name) for name in SEGMENTATION_FIGURES}
                yield from (about | {"metric": name, "value": value} for name, value in figures.items())
            if part != "segmentations":
                yield from _efficiency_records(part, system)
            for outcome in system.outcomes:
                yield from _outcome_records(paper, part, system, outcome)


def _efficiency_records(part: str, system: SystemResult) -> Iterator[dict[str, object]]:
    record = system.efficiency
    for batch in record.batches if record is not None else ():
        assert record is not None
        about = {"part": part, "system": system.name, "pair": record.pair, "testset": record.testset}
        about |= {"segments": str(record.segments), "signature": f"{record.signature}|batch:{batch.batch_size}"}
        for title, cell in zip(FIGURES, batch_cells(record, batch.batch_size), strict=True):
            yield about | {"metric": title, "value": cell.value, "low": cell.low, "high": cell.high}


def _outcome_records(
    paper: Paper, part: str, system: SystemResult, outcome: TestSetResult
) -> Iterator[dict[str, object]]:
    about = {"segments": outcome.segments, "stage": next(reversed(outcome.stages.values()), "")}
    for metric, score in outcome.scores.items():
        beside = {"paper": _paper_figure(paper, part, system, outcome, metric)}
        yield _record(part, system, outcome.pair, outcome.testset, score) | about | beside
    if outcome.missing and "COMET" not in outcome.scores:
        where = {"part": part, "system": system.name, "pair": outcome.pair, "testset": outcome.testset}
        yield where | about | {"metric": "COMET" if outcome.scores else "", "note": outcome.missing}


def _paper_figure(paper: Paper, part: str, system: SystemResult, outcome: TestSetResult, metric: str) -> float | None:
    if part == "uploads":
        return paper.upload(system.name, outcome.pair, metric, outcome.testset)
    return paper.system(system.name, outcome.pair, metric) if part == "systems" else None


def _record(part: str, system: SystemResult, pair: str, testset: str, score: ReportedScore) -> dict[str, object]:
    return {
        "part": part,
        "system": system.name,
        "pair": pair,
        "testset": testset,
        "size_bytes": system.size_bytes,
        "bits_per_parameter": f"{system.bits_per_parameter:.4f}",
        "meets_limit": system.meets_limit,
        "description": system.description,
        **asdict(score),
    }


def results_json(results: Results) -> str:
    """Return all results as JSON."""
    return canonical_json(asdict(results))
