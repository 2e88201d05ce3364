"""segmentation_report.json: counts, seconds, and how much of the detected speech is inside segments.

Whatever the method, given segments included, the voice-activity detector decides what is speech.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

from submission.errors import UserError
from submission.store.digests import canonical_json, write_text
from submission.text.segments import SAMPLE_RATE

REPORT = "segmentation_report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """A recording and its segments; lengths in samples."""

    recording: str
    recorded: int
    segments: tuple[int, ...]
    speech: int
    """What the voice-activity detector takes for speech."""
    dropped: int
    """How much of it is outside every segment."""


class CoverageFigures(TypedDict):
    """Figures of one recording, or of several together."""

    segments: int
    recorded_seconds: float
    segment_seconds: float
    longest_seconds: float | None
    shortest_seconds: float | None
    speech_seconds: float
    covered_speech_seconds: float
    dropped_speech_seconds: float


class RecordingFigures(CoverageFigures):
    """Figures of one recording, with its name."""

    recording: str


class _About(TypedDict, total=False):
    method: str
    """The method of a free segmentation."""
    overlapping: int
    """Of a given segmentation: segments that begin before an earlier one ends."""
    cut_at_end: int
    """Of a given segmentation: segments that reached past the end by no more than 50 ms and were cut there."""


class SegmentationReport(CoverageFigures, _About):
    """What the file holds; the figures are those of all recordings together."""

    segmentation: str
    """`free` or `given`."""
    recordings: list[RecordingFigures]
    recordings_without_segments: list[str]
    recordings_not_in_file_order: list[str]


def make_report(about: Mapping[str, Any], coverages: Sequence[Coverage], unlisted: Sequence[str]) -> SegmentationReport:
    """Return the report of a segmentation.

    about: `segmentation`, and what belongs to it; unlisted: recordings that FILE_ORDER does not name.
    """
    recordings = [RecordingFigures(recording=coverage.recording, **_figures([coverage])) for coverage in coverages]
    return SegmentationReport(
        **about,  # type: ignore[typeddict-item]  # the callers spell `_About`
        **_figures(coverages),
        recordings=recordings,
        recordings_without_segments=[coverage.recording for coverage in coverages if not coverage.segments],
        recordings_not_in_file_order=list(unlisted),
    )


def write_report(folder: Path, report: SegmentationReport) -> None:
    """Write segmentation_report.json into a folder."""
    write_text(folder / REPORT, canonical_json(report))


def read_report(folder: Path) -> SegmentationReport:
    """Return the segmentation_report.json of a folder; UserError where it is none."""
    path = folder / REPORT
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        missing = sorted(SegmentationReport.__required_keys__ - report.keys())
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(str(path), f"cannot be read ({error})", "run `python -m segment run` again") from error
    if missing:
        raise UserError(str(path), f"lacks {', '.join(missing)}", "run `python -m segment run` again")
    return cast(SegmentationReport, report)


def _figures(coverages: Iterable[Coverage]) -> CoverageFigures:
    coverages = list(coverages)
    lengths = [length for coverage in coverages for length in coverage.segments]
    speech, dropped = sum(c.speech for c in coverages), sum(c.dropped for c in coverages)
    return CoverageFigures(
        segments=len(lengths),
        recorded_seconds=_seconds(sum(c.recorded for c in coverages)),
        segment_seconds=_seconds(sum(lengths)),
        longest_seconds=_seconds(max(lengths)) if lengths else None,
        shortest_seconds=_seconds(min(lengths)) if lengths else None,
        speech_seconds=_seconds(speech),
        covered_speech_seconds=_seconds(speech - dropped),
        dropped_speech_seconds=_seconds(dropped),
    )


def _seconds(samples: int) -> float:
    return round(samples / SAMPLE_RATE, 3)


def coverage_lines(report: SegmentationReport) -> list[str]:
    """Return the figures of a report as text: a line per recording and one for all of them."""
    rows: list[Mapping[str, Any]] = [*report["recordings"], {**report, "recording": "together"}]
    width = max(len(row["recording"]) for row in rows)
    lines = []
    for row in rows:
        share = row["dropped_speech_seconds"] / row["speech_seconds"] if row["speech_seconds"] else 0.0
        lines.append(
            f"  {row['recording']:{width}}  {row['segments']:5} segments, {row['recorded_seconds']:7.1f} s recorded, "
            f"speech {row['speech_seconds']:7.1f} s: {row['covered_speech_seconds']:.1f} covered, "
            f"{row['dropped_speech_seconds']:.1f} dropped ({share:.2%})"
        )
    return lines


def combined_error(errors: Sequence[UserError], where: str, what: str) -> UserError:
    """Return one error that lists several; a single one as it is."""
    if len(errors) == 1:
        return errors[0]
    fix = "fix these and run the same command again; the probabilities of the other recordings are cached:"
    return UserError(where, what, "\n  ".join([fix, *map(str, errors)]))
