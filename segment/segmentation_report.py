"""segmentation_report.json: counts, seconds, and how much of the detected speech is inside segments.

Whatever the method, given segments included, the voice-activity detector decides what is speech.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from submission.counting import counted
from submission.errors import UserError
from submission.store.digests import canonical_json, write_text
from submission.text.segments import SAMPLE_RATE

if TYPE_CHECKING:
    from segment.testset import TestSetFolder

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

    @classmethod
    def empty(cls, recording: str) -> Coverage:
        """Return that of a recording of which nothing was segmented."""
        return cls(recording=recording, recorded=0, segments=(), speech=0, dropped=0)

    def __add__(self, other: Coverage) -> Coverage:
        """Return that of two parts of one recording together."""
        return Coverage(
            recording=self.recording,
            recorded=self.recorded + other.recorded,
            segments=self.segments + other.segments,
            speech=self.speech + other.speech,
            dropped=self.dropped + other.dropped,
        )


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
    without_recording: int
    """Of a given segmentation: entries of recordings that are missing, where that is allowed."""
    split: int
    """Of a given segmentation: segments longer than the model's window, each split into several."""
    regions: int
    """Number of given regions, each of which was segmented like a recording."""
    channels: str
    """What was translated of several channels, where any recording has them and it is not their mean."""
    parts_of_several_channels: int
    """Number of recordings or regions with several channels."""


class SegmentationReport(CoverageFigures, _About):
    """What the file holds; the figures are those of all recordings together."""

    segmentation: str
    """`free`, `given` or `regions`."""
    recordings: list[RecordingFigures]
    recordings_without_segments: list[str]
    recordings_not_in_file_order: list[str]
    """They follow the others."""
    recordings_missing: list[str]
    """Entries of FILE_ORDER without a file."""


def make_report(about: Mapping[str, Any], coverages: Sequence[Coverage], testset: TestSetFolder) -> SegmentationReport:
    """Return the report of a segmentation.

    about: `segmentation`, and what belongs to it; testset: for what its FILE_ORDER and its files do not share.
    """
    recordings = [RecordingFigures(recording=coverage.recording, **_figures([coverage])) for coverage in coverages]
    return SegmentationReport(
        **about,  # type: ignore[typeddict-item]  # the callers spell `_About`
        **_figures(coverages),
        recordings=recordings,
        recordings_without_segments=[coverage.recording for coverage in coverages if not coverage.segments],
        recordings_not_in_file_order=list(testset.unlisted),
        recordings_missing=list(testset.missing),
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
    if report.get("regions"):
        lines.append(
            f"  {counted(report['regions'], 'region')}, each segmented like a recording; nothing outside of them counts"
        )
    if report.get("split"):
        lines.append(f"  given segments that are longer than the model's window and were split: {report['split']}")
    if report.get("channels"):
        which = "the first" if report["channels"] == "first" else "each by itself"
        parts = report["parts_of_several_channels"]
        lines.append(f"  recordings or regions of several channels, of which {which} is translated: {parts}")
    return lines


def order_lines(report: SegmentationReport) -> list[str]:
    """Return what FILE_ORDER and the files do not share, as text; nothing where they agree."""
    lines = []
    for title, names in (
        ("not in FILE_ORDER, after the others", report["recordings_not_in_file_order"]),
        ("in FILE_ORDER without a file, left out", report["recordings_missing"]),
    ):
        if names:
            lines.append(f"  {title}: {', '.join(names)}")
    return lines


def combined_error(errors: Sequence[UserError], where: str, what: str) -> UserError:
    """Return one error that lists several; a single one as it is."""
    if len(errors) == 1:
        return errors[0]
    fix = "fix these and run the same command again; the probabilities of the other recordings are cached:"
    return UserError(where, what, "\n  ".join([fix, *map(str, errors)]))
