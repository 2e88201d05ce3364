"""The segmentation of one test set, free or given: writes `segments.yaml` and `segmentation_report.json`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segment.methods.gap_filling import split_stretch, uncovered
from segment.methods.method import Method, Stretch
from segment.probabilities.speech_probabilities import Detectors, FrameProbabilities, ProbabilityCache, detect_speech
from segment.probabilities.vad import speech_stretches
from segment.recording_parts import MEAN, RecordingPart, chosen_channels, in_order, parts_of, print_untranslated
from segment.segmentation_report import Coverage, SegmentationReport, combined_error, make_report, write_report
from segment.testset import (
    FILE_ORDER,
    GivenSegments,
    RecordingFile,
    TestSetFolder,
    find_segments_file,
    read_given,
    read_testset,
)
from submission.counting import counted
from submission.errors import UserError
from submission.progress import progress
from submission.runtime.audio import checked_length, rough_seconds
from submission.store.launch import Launch, process_group
from submission.system.recipe.decoding_options import SegmentOptions
from submission.text.segments import SAMPLE_RATE, Segment, write_segments

SEGMENTS = "segments.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSetOptions:
    """How a test set is segmented, by any method."""

    channels: str = MEAN
    """What is translated of several channels, one of `segment.recording_parts.CHANNELS`."""
    allow_missing: bool = False
    """Whether recordings that FILE_ORDER names may be missing."""

    __test__ = False  # not a test class, although pytest would take it for one by its name


def open_testset(folder: Path, *, allow_missing: bool) -> TestSetFolder:
    """Return the recordings of a test set; UserError where FILE_ORDER names some that are not there."""
    testset = read_testset(folder)
    if testset.missing and not allow_missing:
        what = f"names {counted(len(testset.missing), 'recording')} without a file (first: {testset.missing[0]})"
        fix = "add them, take them out of FILE_ORDER, or leave them out knowingly with --allow-missing"
        raise UserError(str(folder / FILE_ORDER), what, fix)
    return testset


def segment_testset(
    folder: Path,
    options: SegmentOptions,
    detectors: Detectors,
    cache: ProbabilityCache,
    label: str,
    out: Path,
    about: TestSetOptions | None = None,
    *,
    by_regions: bool = False,
) -> None:
    """Segment every recording of a test set by a method; write segments.yaml and segmentation_report.json into `out`.

    by_regions: its YAML names the regions that are to be segmented. Raises UserError as `segment_with`. Nothing is
    written then, so that half a test set is never taken for a whole one.
    """
    about = about or TestSetOptions()
    testset = open_testset(folder, allow_missing=about.allow_missing)
    regions = find_segments_file(folder) if by_regions else None
    segments, report = segment_with(testset, options, detectors, cache, label, about.channels, regions)
    write_segments(out / SEGMENTS, segments)
    write_report(out, report)


def segment_with(
    testset: TestSetFolder,
    options: SegmentOptions,
    detectors: Detectors,
    cache: ProbabilityCache,
    label: str,
    channels: str = MEAN,
    regions: Path | None = None,
) -> tuple[list[Segment], SegmentationReport]:
    """Return the segments of every recording by the method of the options, and the report on them.

    channels: what is translated of several. regions: a YAML of the stretches that are to be translated; each is
    segmented like a recording, and nothing outside of them is read. The probabilities of all readable recordings are
    cached before UserError names those that cannot be read.
    """
    method: Method = options.about.load()
    given = _read_given(regions, testset, detectors, cache, label) if regions else None
    results: dict[str, list[tuple[RecordingPart, list[Stretch]]]] = {r.name: [] for r in testset.recordings}
    coverages = {recording.name: Coverage.empty(recording.name) for recording in testset.recordings}
    parts = _parts(testset, channels, given)
    for part, probabilities in _all_probabilities(parts, detectors, cache, label):
        name, stretches = part.recording.name, method(probabilities, options)
        results[name].append((part, stretches))
        coverages[name] += _coverage(name, probabilities, stretches)
    print_untranslated(label, ((part.recording, part.channel) for part in parts))
    about: dict[str, Any] = {"segmentation": "free", "method": options.method}
    if given:
        about |= {"segmentation": "regions", "regions": len(given.segments), **_counts(given)}
    if several := sum(part.channel == 0 for parts in results.values() for part, _ in parts):
        about |= {"channels": channels, "parts_of_several_channels": several}
    segments = [segment for parts in results.values() for segment in in_order(parts)]
    return segments, make_report(about, list(coverages.values()), testset)


def _parts(testset: TestSetFolder, channels: str, given: GivenSegments | None) -> list[RecordingPart]:
    """Return what is segmented of every recording, in order; given: the regions, if only these are."""
    parts = []
    for recording in testset.recordings:
        regions = None if given is None else [s for s in given.segments if s.recording == recording.name]
        parts += parts_of(recording, channels, regions)
    return parts


def write_given_segmentation(
    folder: Path,
    window_seconds: float,
    detectors: Detectors,
    cache: ProbabilityCache,
    label: str,
    out: Path,
    given_file: Path | None = None,
    about: TestSetOptions | None = None,
) -> None:
    """Write a given segmentation in the canonical form, every segment in order, and its report into `out`.

    given_file: the file, where it is not in the test set's folder. A segment that is longer than the model's window is
    split within it, as `within_window` does.
    Raises UserError as `segment_testset` does, and, where every recording can be opened, for what is wrong with the
    given file before probabilities are computed.
    """
    about = about or TestSetOptions()
    testset = open_testset(folder, allow_missing=about.allow_missing)
    given = _read_given(given_file or find_segments_file(folder), testset, detectors, cache, label)
    parts = [_first_part(recording, about.channels) for recording in testset.recordings]
    channel_of = {part.recording.name: part.channel for part in parts}
    found = {
        part.recording.name: probabilities for part, probabilities in _all_probabilities(parts, detectors, cache, label)
    }
    print_untranslated(label, ((part.recording, part.channel) for part in parts))
    segments, split = within_window(given.segments, window_seconds, found.__getitem__)
    segments = [replace(segment, channel=channel_of[segment.recording]) for segment in segments]
    stretches: dict[str, list[Stretch]] = {recording.name: [] for recording in testset.recordings}
    for segment in segments:
        stretches[segment.recording].append((segment.start, segment.end))
    coverages = [_coverage(name, found[name], stretches[name]) for name in stretches]
    write_segments(out / SEGMENTS, segments)
    write_report(out, make_report({"segmentation": "given", **_counts(given), "split": split}, coverages, testset))


def _read_given(
    path: Path, testset: TestSetFolder, detectors: Detectors, cache: ProbabilityCache, label: str
) -> GivenSegments:
    """Return the entries of a given file, which need every recording's length; UserError names all that lack one."""
    lengths, errors = {}, []
    for recording in testset.recordings:
        try:
            lengths[recording.path] = checked_length(recording.path)
        except UserError as error:
            errors.append(error)
    if errors:  # the probabilities of the others are cached
        for _ in _all_probabilities(list(map(_whole, testset.recordings)), detectors, cache, label):
            pass
        raise combined_error(errors, label, f"{len(errors)} of {len(testset.recordings)} recordings cannot be read")
    return read_given(path, testset, lengths.__getitem__)


def _counts(given: GivenSegments) -> dict[str, int]:
    return {"overlapping": given.overlaps, "cut_at_end": given.cut_at_end, "without_recording": given.without_recording}


def within_window(
    segments: Sequence[Segment], window_seconds: float, probabilities: Callable[[str], FrameProbabilities]
) -> tuple[list[Segment], int]:
    """Return segments of which none is longer than the window, and how many were.

    These are split without a gap where the voice-activity detector finds speech least probable, so that nothing of what
    organisers list is left out. probabilities: of a recording of this name, needed for long segments only.
    """
    longest = int(window_seconds * SAMPLE_RATE)
    fitting, split = [], 0
    for segment in segments:
        pieces = [(segment.start, segment.end)]
        if segment.end - segment.start > longest:
            pieces = split_stretch(probabilities(segment.recording), pieces[0], longest)
            split += 1
        fitting += [replace(segment, start=start, end=end) for start, end in pieces]
    return fitting, split


def detector_of(
    testset: TestSetFolder, detectors: Detectors, cache: ProbabilityCache, label: str, channels: str
) -> Callable[[str], FrameProbabilities]:
    """Return what gives the frame probabilities of a recording of a name, as `within_window` takes it.

    channels: what is translated of several: their mean, or the first.
    """
    parts = {recording.name: _first_part(recording, channels) for recording in testset.recordings}

    @functools.cache
    def find(name: str) -> FrameProbabilities:
        ((_, probabilities),) = _all_probabilities([parts[name]], detectors, cache, label)
        return probabilities

    return find


def _whole(recording: RecordingFile) -> RecordingPart:
    return RecordingPart(recording=recording)


def _first_part(recording: RecordingFile, channels: str) -> RecordingPart:
    """Return a whole recording, of several channels what given segments are read from: the mean, or the first."""
    return RecordingPart(recording=recording, channel=chosen_channels(recording, channels)[0])


def _all_probabilities(
    parts: Sequence[RecordingPart], detectors: Detectors, cache: ProbabilityCache, label: str
) -> Iterator[tuple[RecordingPart, FrameProbabilities]]:
    """Yield each part with its probabilities; after the last, raise UserError naming those that cannot be read."""
    errors: dict[Path, UserError] = {}
    with progress(label, sum(map(_rough_seconds, parts)), "s of audio") as tick:
        for part, probabilities in detect_speech(parts, detectors, cache, tick):
            if isinstance(probabilities, UserError):
                errors.setdefault(part.recording.path, probabilities)
            else:
                yield part, probabilities
    if errors:
        count = len({part.recording.path for part in parts})
        raise combined_error(list(errors.values()), label, f"{len(errors)} of {count} recordings cannot be read")


def _rough_seconds(part: RecordingPart) -> float:
    """Return how long a part is, that of a whole recording by its header alone."""
    end = rough_seconds(part.recording.path) if part.end is None else part.end / SAMPLE_RATE
    return end - part.start / SAMPLE_RATE


def _coverage(name: str, probabilities: FrameProbabilities, stretches: Sequence[Stretch]) -> Coverage:
    speech = speech_stretches(probabilities.vad, probabilities.samples)
    return Coverage(
        recording=name,
        recorded=probabilities.samples,
        segments=tuple(end - start for start, end in stretches),
        speech=sum(end - start for start, end in speech),
        dropped=sum(end - start for start, end in uncovered(speech, stretches)),
    )


def detect_share(
    testsets: Sequence[tuple[Sequence[RecordingPart], Detectors]], cache: ProbabilityCache, launch: Launch
) -> None:
    """Cache the probabilities of this process's share of the recordings, and wait until every process has done so.

    Errors in a test set or a recording are left to the first process, which reports them when it builds the stages.
    """
    everything = [(part, detectors) for parts, detectors in testsets for part in parts]
    seconds = [_rough_seconds(part) for part, _ in everything]
    mine = share_of(launch, seconds)
    label = f"speech probabilities (process {launch.rank + 1} of {launch.processes})"
    with progress(label, sum(seconds[i] for i in mine), "s of audio") as tick:
        for detectors in dict.fromkeys(detectors for _, detectors in testsets):
            parts = [everything[i][0] for i in mine if everything[i][1] is detectors]
            for _ in detect_speech(parts, detectors, cache, tick):
                pass
    with process_group():
        launch.barrier()


def share_of(launch: Launch, seconds: Sequence[float]) -> list[int]:
    """Return which of the recordings of these lengths are this process's, in order.

    The longest is assigned first, each to the process with the least audio so far.
    """
    loads = [0.0] * launch.processes
    mine = []
    for i in sorted(range(len(seconds)), key=lambda i: (-seconds[i], i)):
        rank = loads.index(min(loads))
        loads[rank] += seconds[i]
        if rank == launch.rank:
            mine.append(i)
    return sorted(mine)


def parts_of_testset(folder: Path, channels: str, *, by_regions: bool) -> list[RecordingPart]:
    """Return what is segmented of the recordings of a test set; nothing where these or its regions cannot be read."""
    try:
        testset = read_testset(folder)
        given = read_given(find_segments_file(folder), testset, checked_length) if by_regions else None
        return _parts(testset, channels, given)
    except UserError:
        return []
