"""The segmentation of one test set, free or given: writes `segments.yaml` and `segmentation_report.json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from segment.methods.gap_filling import uncovered
from segment.methods.method import Method, Stretch
from segment.probabilities.speech_probabilities import Detectors, FrameProbabilities, ProbabilityCache, detect_speech
from segment.probabilities.vad import speech_stretches
from segment.segmentation_report import Coverage, SegmentationReport, combined_error, make_report, write_report
from segment.testset import RecordingFile, TestSetFolder, find_segments_file, read_given, read_testset
from submission.errors import UserError
from submission.progress import progress
from submission.runtime.audio import checked_length, rough_seconds
from submission.store.launch import Launch, process_group
from submission.system.recipe import SegmentOptions
from submission.text.segments import Segment, write_segments

SEGMENTS = "segments.yaml"


def segment_testset(
    folder: Path, options: SegmentOptions, detectors: Detectors, cache: ProbabilityCache, label: str, out: Path
) -> None:
    """Segment every recording of a test set by a method; write segments.yaml and segmentation_report.json into `out`.

    Raises UserError as `segment_with`. Nothing is written then, so that half a test set is never taken for a whole one.
    """
    segments, report = segment_with(read_testset(folder), options, detectors, cache, label)
    write_segments(out / SEGMENTS, segments)
    write_report(out, report)


def segment_with(
    testset: TestSetFolder, options: SegmentOptions, detectors: Detectors, cache: ProbabilityCache, label: str
) -> tuple[list[Segment], SegmentationReport]:
    """Return the segments of every recording by the method of the options, and the report on them.

    A recording that cannot be read costs no other: the probabilities of the rest are cached before UserError names
    every bad one.
    """
    method: Method = options.about.load()
    segments, coverages = [], []
    for recording, probabilities in _all_probabilities(testset.recordings, detectors, cache, label):
        stretches = method(probabilities, options)
        segments += [Segment(recording=recording.name, start=start, end=end) for start, end in stretches]
        coverages.append(_coverage(recording, probabilities, stretches))
    about = {"segmentation": "free", "method": options.method}
    return segments, make_report(about, coverages, testset.unlisted)


def write_given_segmentation(
    folder: Path,
    window_seconds: float,
    detectors: Detectors,
    cache: ProbabilityCache,
    label: str,
    out: Path,
    given_file: Path | None = None,
) -> None:
    """Write a given segmentation in the canonical form, every segment in order, and its report into `out`.

    given_file: the file, where it is not in the test set's folder.
    Raises UserError as `segment_testset` does, and, where every recording can be opened, for what is wrong with the
    given file before probabilities are computed.
    """
    testset = read_testset(folder)
    given_file = given_file or find_segments_file(folder)
    lengths, errors = {}, []
    for recording in testset.recordings:
        try:
            lengths[recording.path] = checked_length(recording.path)
        except UserError as error:
            errors.append(error)
    if errors:  # the given file needs every length; the probabilities of the others are cached
        for _ in _all_probabilities(testset.recordings, detectors, cache, label):
            pass
        raise combined_error(errors, label, f"{len(errors)} of {len(testset.recordings)} recordings cannot be read")
    given = read_given(given_file, testset, lengths.__getitem__, window_seconds)
    stretches: dict[str, list[Stretch]] = {recording.name: [] for recording in testset.recordings}
    for segment in given.segments:
        stretches[segment.recording].append((segment.start, segment.end))
    coverages = [
        _coverage(recording, probabilities, stretches[recording.name])
        for recording, probabilities in _all_probabilities(testset.recordings, detectors, cache, label)
    ]
    write_segments(out / SEGMENTS, given.segments)
    about = {"segmentation": "given", "overlapping": given.overlaps, "cut_at_end": given.cut_at_end}
    write_report(out, make_report(about, coverages, testset.unlisted))


def _all_probabilities(
    recordings: Sequence[RecordingFile], detectors: Detectors, cache: ProbabilityCache, label: str
) -> Iterator[tuple[RecordingFile, FrameProbabilities]]:
    """Yield each recording with its probabilities; after the last, raise UserError naming those that cannot be read."""
    errors = []
    with progress(label, sum(rough_seconds(r.path) for r in recordings), "s of audio") as tick:
        for recording, probabilities in detect_speech(recordings, detectors, cache, tick):
            if isinstance(probabilities, UserError):
                errors.append(probabilities)
            else:
                yield recording, probabilities
    if errors:
        raise combined_error(errors, label, f"{len(errors)} of {len(recordings)} recordings cannot be read")


def _coverage(recording: RecordingFile, probabilities: FrameProbabilities, stretches: Sequence[Stretch]) -> Coverage:
    speech = speech_stretches(probabilities.vad, probabilities.samples)
    return Coverage(
        recording=recording.name,
        recorded=probabilities.samples,
        segments=tuple(end - start for start, end in stretches),
        speech=sum(end - start for start, end in speech),
        dropped=sum(end - start for start, end in uncovered(speech, stretches)),
    )


def detect_share(testsets: Sequence[tuple[Path, Detectors]], cache: ProbabilityCache, launch: Launch) -> None:
    """Cache the probabilities of this process's share of the recordings, and wait until every process has done so.

    Errors in a test set or a recording are left to the first process, which reports them when it builds the stages.
    """
    everything = [(recording, detectors) for folder, detectors in testsets for recording in _recordings(folder)]
    seconds = [rough_seconds(recording.path) for recording, _ in everything]
    mine = share_of(launch, seconds)
    label = f"speech probabilities (process {launch.rank + 1} of {launch.processes})"
    with progress(label, sum(seconds[i] for i in mine), "s of audio") as tick:
        for detectors in dict.fromkeys(detectors for _, detectors in testsets):
            recordings = [everything[i][0] for i in mine if everything[i][1] is detectors]
            for _ in detect_speech(recordings, detectors, cache, tick):
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


def _recordings(folder: Path) -> tuple[RecordingFile, ...]:
    try:
        return read_testset(folder).recordings
    except UserError:
        return ()
