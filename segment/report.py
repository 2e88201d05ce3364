"""What is said of a segmentation: counts, seconds, and how much of the detected speech is inside segments.

Whatever the method, given segments included, the voice-activity detector is the judge of what is speech.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from submission.errors import UserError
from submission.text.segments import SAMPLE_RATE

REPORT = "report.json"


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


def make_report(about: dict[str, Any], coverages: Sequence[Coverage], unlisted: Sequence[str]) -> dict[str, Any]:
    """Return report.json: figures of all recordings together and of each.

    about: what else there is to say of the segmentation; unlisted: recordings that FILE_ORDER does not name.
    """
    return {
        **about,
        **_figures(coverages),
        "recordings": [{"recording": coverage.recording, **_figures([coverage])} for coverage in coverages],
        "recordings_without_segments": [coverage.recording for coverage in coverages if not coverage.segments],
        "recordings_not_in_file_order": list(unlisted),
    }


def _figures(coverages: Iterable[Coverage]) -> dict[str, Any]:
    coverages = list(coverages)
    lengths = [length for coverage in coverages for length in coverage.segments]
    speech, dropped = sum(c.speech for c in coverages), sum(c.dropped for c in coverages)
    return {
        "segments": len(lengths),
        "recorded_seconds": _seconds(sum(c.recorded for c in coverages)),
        "segment_seconds": _seconds(sum(lengths)),
        "longest_seconds": _seconds(max(lengths, default=None)),
        "shortest_seconds": _seconds(min(lengths, default=None)),
        "speech_seconds": _seconds(speech),
        "covered_speech_seconds": _seconds(speech - dropped),
        "dropped_speech_seconds": _seconds(dropped),
    }


def _seconds(samples: int | None) -> float | None:
    return None if samples is None else round(samples / SAMPLE_RATE, 3)


def coverage_lines(report: dict[str, Any]) -> list[str]:
    """Return what a person wants to know of a report: a line per recording and one for all of them."""
    rows = [*report["recordings"], {**report, "recording": "together"}]
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


def together(errors: Sequence[UserError], where: str, what: str) -> UserError:
    """Return one error that says what several do; a single one as it is."""
    if len(errors) == 1:
        return errors[0]
    fix = "mend these and run the same command again; what was heard elsewhere is remembered:"
    return UserError(where, what, "\n  ".join([fix, *map(str, errors)]))
