"""Render the report of a campaign as one HTML page: uploads, pictures, tables, and the sources of each number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from evaluate.report.exports import MINIATURE
from evaluate.report.open_set_tables import SHOWN
from evaluate.report.pages.page_template import Fact, render_page
from evaluate.report.paper import Paper
from evaluate.report.pictures.render import ReportPicture
from evaluate.report.results import ReportedScore, Results, SystemResult
from evaluate.report.table import Table, score_cell
from submission.model.sizes import GB, GIB, in_unit

KEY_DIGITS = 12
"""Digits of a key or digest that the page shows; the files hold all of them."""
NONE = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """The stages and files behind the figures of a system on one test set."""

    system: str
    pair: str = NONE
    testset: str
    stages: dict[str, str] = field(default_factory=dict)
    """Stage -> first digits of its key."""
    missing: str = ""
    """Why there are no stages."""
    references: str = NONE
    reference_file: str = NONE
    hypotheses: str = NONE


def page(results: Results, tables: Sequence[Table], pictures: Sequence[ReportPicture]) -> str:
    """Return the page."""
    parts = (
        ("Tables 1, 4, 5 and the pictures", results.systems, "systems"),
        ("Table 6", results.uploads, "uploads"),
        ("Segmentation methods", results.segmentations, "segmentations"),
    )
    return render_page(
        "report.html.jinja",
        title=f"{results.edition}: report",
        facts=list(_facts(results)),
        pictures=pictures,
        tables=tables,
        label=MINIATURE if results.miniature else "",
        campaign=results.campaign,
        paper=Paper(results.campaign).source,
        key_digits=KEY_DIGITS,
        ranking_key=str(results.layers_about["stage"])[:KEY_DIGITS] if results.layers else "",
        parts_of_report=[
            {
                "title": title,
                "systems": len(systems),
                "command": results.commands.get(part, ""),
                "rows": [row for system in systems for row in _source_rows(system)],
            }
            for title, systems, part in parts
            if systems
        ],
        signatures=_signatures(results),
    )


def _facts(results: Results) -> Iterator[Fact]:
    """Yield the uploaded systems: bytes against the limit, scores on the open set."""
    measured = {system.model_key: system for system in results.systems}
    for upload in results.uploads:
        size = upload.size_bytes
        lines = [f"{in_unit(size, GB)} GB, {in_unit(size, GIB)} GiB"]
        if results.size_limit:
            margin = results.limits[results.size_limit] - size
            lines[0] += f"; {abs(margin):,} bytes {'under' if margin >= 0 else 'OVER'} {results.size_limit}"
        system = measured.get(upload.model_key)  # the same packed model, measured on the open set
        for pair in results.pairs:
            outcome = system.outcome(pair, results.open_testset) if system else None
            scores = [_score_text(s) for s in outcome.scores.values() if s.metric in SHOWN] if outcome else []
            lines += [f"{results.open_testset} {pair}: {', '.join(scores)}"] if scores else []
        yield Fact(name=f"{upload.name}: model folder", value=f"{size:,} bytes", details=tuple(lines))


def _score_text(score: ReportedScore) -> str:
    cell = score_cell(score)
    return f"{score.metric} {cell.shown}" + (f" ({cell.interval})" if cell.interval else "")


def _source_rows(system: SystemResult) -> Iterator[SourceRow]:
    if system.losses:
        yield SourceRow(
            system=system.name, pair=", ".join(system.losses), testset="dev (loss)", stages=_short_keys(system.stages)
        )
    if system.segmentation_results:
        keys = {f"segment:{one.testset}": one.stage for one in system.segmentation_results}
        yield SourceRow(system=system.name, testset="segments, speech", stages=_short_keys(keys))
    for outcome in system.outcomes:
        row = SourceRow(
            system=system.name,
            pair=outcome.pair,
            testset=outcome.testset,
            stages=_short_keys(outcome.stages),
            missing=outcome.missing,
        )
        if score := next(iter(outcome.scores.values()), None):
            row = replace(
                row,
                references=f"{score.references:,}{' resegmented' if score.resegmented else ''}",
                reference_file=score.data_sha256[:KEY_DIGITS],
                hypotheses=score.hypotheses_sha256[:KEY_DIGITS],
            )
        yield row


def _short_keys(stages: dict[str, str]) -> dict[str, str]:
    return {stage: key[:KEY_DIGITS] for stage, key in stages.items()}


def _signatures(results: Results) -> list[tuple[str, str, str]]:
    """Return (metric, its pairs, signature), each signature once."""
    found: dict[tuple[str, str], set[str]] = {}
    for system in (*results.systems, *results.uploads, *results.segmentations):
        for outcome in system.outcomes:
            for score in outcome.scores.values():
                found.setdefault((score.metric, score.signature), set()).add(outcome.pair)
    return [(metric, ", ".join(sorted(pairs)), signature) for (metric, signature), pairs in sorted(found.items())]
