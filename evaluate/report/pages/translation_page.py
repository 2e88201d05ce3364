"""Render the page of a translated folder: scores, pictures, tables, and the sources of each number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from evaluate.report.pages.folder_result import FolderResult, recording_quality
from evaluate.report.pages.page_template import Fact, render_page
from evaluate.report.pages.translation_tables import MOST_ROWS, recordings_table, score_tables, worst_tables
from evaluate.report.pictures.folder_pictures import lines_picture, recordings_picture
from evaluate.report.table import DECIMALS
from submission.store.digests import write_text
from submission.text.characters import printable

PAGE = "report.html"


def write_page(out: Path, result: FolderResult) -> list[str]:
    """Write report.html and its pictures into a folder; return the names of the files."""
    quality = recording_quality(result)
    for extension in ("svg", "png"):  # an earlier run may have had references
        (out / f"quality.{extension}").unlink(missing_ok=True)
    pictures = [lines_picture(result, out)]
    if len(quality) > 1:
        pictures.append(recordings_picture(result, quality, out))
    page = render_page(
        "translation.html.jinja",
        title=f"Translation, {result.report['pair']}",
        facts=list(_facts(result)),
        pictures=pictures,
        tables=[*score_tables(result), recordings_table(result, quality), *worst_tables(result)],
        sources=_sources(result),
    )
    write_text(out / PAGE, page)
    return [PAGE, *(f"{picture.name}.{extension}" for picture in pictures for extension in ("svg", "png"))]


def _facts(result: FolderResult) -> Iterator[Fact]:
    report = result.report
    yield Fact(name="recordings", value=f"{report['recordings']:,}")
    yield Fact(name="segments", value=f"{report['segments']:,}", details=(f"{report['segment_seconds']:,.1f} s",))
    for score in result.scores:
        interval = f"95 %: {score.low:.1f}–{score.high:.1f}"
        yield Fact(name=score.metric, value=f"{score.value:.{DECIMALS[score.metric]}f}", details=(interval,))


def _sources(result: FolderResult) -> list[tuple[str, str]]:
    """Return (name, value) of all inputs: digests, prompt, segmentation, versions of libraries."""
    run = result.report["run"]
    segments = json.dumps(run["segments"], ensure_ascii=False, sort_keys=True)
    sources = [("model, SHA-256", run["model_sha256"]), ("prompt", run["prompt"]), ("segments", segments)]
    if result.scores:
        first = result.scores[0]
        sources += [("references, SHA-256", first.data_sha256), ("hypotheses.jsonl, SHA-256", first.hypotheses_sha256)]
    sources += [("recording " + printable(one["name"], 80), one["sha256"]) for one in run["recordings"][:MOST_ROWS]]
    sources += [(f"version of {name}", str(version)) for name, version in sorted(result.report["versions"].items())]
    return sources
