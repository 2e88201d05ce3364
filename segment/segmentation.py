"""One test set in, `segments.yaml` and `report.json` out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segment.methods import Cut, Method
from segment.testset import Recording, TestSetFolder, find_segments_file, read_given, read_testset
from submission.digest import canonical_json, write_text
from submission.errors import UserError
from submission.progress import progress
from submission.segments import SAMPLE_RATE, Segment, write_segments

SEGMENTS = "segments.yaml"
REPORT = "report.json"


def segment_freely(folder: Path, method: Method, label: str, out: Path) -> None:
    """Cut every recording of a test set by a method and write segments.yaml and report.json into `out`."""
    from submission.runtime.audio import duration_samples

    testset = read_testset(folder)
    lengths = {r.name: duration_samples(r.path) for r in testset.recordings}
    _refuse_empty(testset.recordings, lengths)
    cuts: dict[str, Cut] = {}
    with progress(label, sum(lengths.values()) / SAMPLE_RATE, "s of audio") as tick:
        for recording in testset.recordings:
            cuts[recording.name] = method(recording.path, lengths[recording.name], tick)
    segments = [
        Segment(recording=name, start=start, end=end) for name, cut in cuts.items() for start, end in cut.segments
    ]
    write_segments(out / SEGMENTS, segments)
    heard = {
        name: {
            "speech_seconds": _rounded(cut.speech_seconds),
            "dropped_speech_seconds": _rounded(cut.dropped_seconds),
        }
        for name, cut in cuts.items()
    }
    report = _report(testset, lengths, segments) | _total(heard.values())
    for entry in report["recordings"]:
        entry |= heard[entry["recording"]]
    write_text(out / REPORT, canonical_json({"segmentation": "free", **report}))


def normalise_given(folder: Path, window_seconds: float, out: Path) -> None:
    """Write a given segmentation in the canonical form, every segment in order, and its report into `out`."""
    from submission.runtime.audio import duration_samples

    testset = read_testset(folder)
    path = find_segments_file(folder)
    given = read_given(path, testset, duration_samples, window_seconds)
    lengths = {r.name: duration_samples(r.path) for r in testset.recordings}
    write_segments(out / SEGMENTS, given.segments)
    report = _report(testset, lengths, list(given.segments))
    report |= {"overlapping": given.overlaps, "cut_at_end": given.cut_at_end}
    write_text(out / REPORT, canonical_json({"segmentation": "given", **report}))


def _refuse_empty(recordings: Iterable[Recording], lengths: dict[str, int]) -> None:
    for recording in recordings:
        if not lengths[recording.name]:
            raise UserError(str(recording.path), "has no samples", "replace it or take it out of FILE_ORDER")


def _report(testset: TestSetFolder, lengths: dict[str, int], segments: list[Segment]) -> dict[str, Any]:
    """Return counts and seconds of a test set and of each recording."""
    by_name: dict[str, list[Segment]] = {r.name: [] for r in testset.recordings}
    for segment in segments:
        by_name[segment.recording].append(segment)
    return {
        **_summary(segments, sum(lengths.values())),
        "recordings": [{"recording": name, **_summary(part, lengths[name])} for name, part in by_name.items()],
        "recordings_without_segments": [name for name, part in by_name.items() if not part],
        "recordings_not_in_file_order": list(testset.unlisted),
    }


def _summary(segments: list[Segment], recorded_samples: int) -> dict[str, Any]:
    seconds = [segment.seconds for segment in segments]
    return {
        "segments": len(segments),
        "recorded_seconds": _rounded(recorded_samples / SAMPLE_RATE),
        "segment_seconds": _rounded(sum(seconds)),
        "longest_seconds": _rounded(max(seconds, default=None)),
        "shortest_seconds": _rounded(min(seconds, default=None)),
    }


def _total(parts: Iterable[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the sums by key; None where a part does not know."""
    columns: dict[str, list[float | None]] = {}
    for part in parts:
        for key, value in part.items():
            columns.setdefault(key, []).append(value)
    return {key: None if None in values else _rounded(sum(values)) for key, values in columns.items()}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
