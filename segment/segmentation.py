"""One test set in, `segments.yaml` and `report.json` out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segment.audio_validation import checked_length, rough_seconds
from segment.methods.gap_filling import Stretch, uncovered
from segment.methods.registry import Method
from segment.probabilities.speech_probabilities import Detectors, FrameProbabilities, ProbabilityCache, listen
from segment.probabilities.vad import speech_stretches
from segment.report import REPORT, Coverage, make_report, together
from segment.testset import Recording, TestSetFolder, find_segments_file, read_given, read_testset
from submission.errors import UserError
from submission.progress import progress
from submission.store.digests import canonical_json, write_text
from submission.store.launch import Launch, process_group
from submission.system.recipe import SegmentOptions
from submission.text.segments import Segment, write_segments

SEGMENTS = "segments.yaml"


def segment_freely(
    folder: Path, options: SegmentOptions, listener: Detectors, memory: ProbabilityCache, label: str, out: Path
) -> None:
    """Cut every recording of a test set by a method and write segments.yaml and report.json into `out`.

    Raises UserError as `cut_freely`. Nothing is written then, so that half a test set never looks whole.
    """
    segments, report = cut_freely(read_testset(folder), options, listener, memory, label)
    write_segments(out / SEGMENTS, segments)
    write_text(out / REPORT, canonical_json(report))


def cut_freely(
    testset: TestSetFolder, options: SegmentOptions, listener: Detectors, memory: ProbabilityCache, label: str
) -> tuple[list[Segment], dict[str, Any]]:
    """Return the segments of every recording, cut by a method, and the report on them.

    A recording that cannot be read costs no other: what is heard in the rest is remembered before UserError names
    every bad one.
    """
    method: Method = options.about.load()
    segments, coverages = [], []
    for recording, heard in _all_heard(testset.recordings, listener, memory, label):
        cuts = method(heard, options)
        segments += [Segment(recording=recording.name, start=start, end=end) for start, end in cuts]
        coverages.append(_coverage(recording, heard, cuts))
    about = {"segmentation": "free", "method": options.method}
    return segments, make_report(about, coverages, testset.unlisted)


def normalise_given(
    folder: Path,
    window_seconds: float,
    listener: Detectors,
    memory: ProbabilityCache,
    label: str,
    out: Path,
    given_file: Path | None = None,
) -> None:
    """Write a given segmentation in the canonical form, every segment in order, and its report into `out`.

    given_file: where it lies, if not in the test set's folder.
    Raises UserError as `segment_freely` does, and, where every recording can be opened, for what is wrong with the
    given file before anything is heard.
    """
    testset = read_testset(folder)
    given_file = given_file or find_segments_file(folder)
    lengths, errors = {}, []
    for recording in testset.recordings:
        try:
            lengths[recording.path] = checked_length(recording.path)
        except UserError as error:
            errors.append(error)
    if errors:  # without their lengths the given file cannot be understood; the others are heard and remembered
        for _ in _all_heard(testset.recordings, listener, memory, label):
            pass
        raise together(errors, label, f"{len(errors)} of {len(testset.recordings)} recordings cannot be read")
    given = read_given(given_file, testset, lengths.__getitem__, window_seconds)
    cuts: dict[str, list[Stretch]] = {recording.name: [] for recording in testset.recordings}
    for segment in given.segments:
        cuts[segment.recording].append((segment.start, segment.end))
    coverages = [
        _coverage(recording, heard, cuts[recording.name])
        for recording, heard in _all_heard(testset.recordings, listener, memory, label)
    ]
    write_segments(out / SEGMENTS, given.segments)
    about = {"segmentation": "given", "overlapping": given.overlaps, "cut_at_end": given.cut_at_end}
    write_text(out / REPORT, canonical_json(make_report(about, coverages, testset.unlisted)))


def _all_heard(
    recordings: Sequence[Recording], listener: Detectors, memory: ProbabilityCache, label: str
) -> Iterator[tuple[Recording, FrameProbabilities]]:
    """Yield what is heard in each recording; after the last, UserError naming those that cannot be read."""
    errors = []
    with progress(label, sum(rough_seconds(r.path) for r in recordings), "s of audio") as tick:
        for recording, heard in listen(recordings, listener, memory, tick):
            if isinstance(heard, UserError):
                errors.append(heard)
            else:
                yield recording, heard
    if errors:
        raise together(errors, label, f"{len(errors)} of {len(recordings)} recordings cannot be read")


def _coverage(recording: Recording, heard: FrameProbabilities, cuts: Sequence[Stretch]) -> Coverage:
    speech = speech_stretches(heard.voice, heard.samples)
    return Coverage(
        recording=recording.name,
        recorded=heard.samples,
        segments=tuple(end - start for start, end in cuts),
        speech=sum(end - start for start, end in speech),
        dropped=sum(end - start for start, end in uncovered(speech, cuts)),
    )


def listen_to_share(testsets: Sequence[tuple[Path, Detectors]], memory: ProbabilityCache, launch: Launch) -> None:
    """Listen to this process's share of the recordings of test sets, and wait until every process has.

    What is wrong with a test set or a recording is left to the first process to say, when it makes the stages.
    """
    everything = [(recording, listener) for folder, listener in testsets for recording in _recordings(folder)]
    seconds = [rough_seconds(recording.path) for recording, _ in everything]
    mine = share_of(launch, seconds)
    label = f"listening (process {launch.rank + 1} of {launch.processes})"
    with progress(label, sum(seconds[i] for i in mine), "s of audio") as tick:
        for listener in dict.fromkeys(listener for _, listener in testsets):
            recordings = [everything[i][0] for i in mine if everything[i][1] is listener]
            for _ in listen(recordings, listener, memory, tick):
                pass
    with process_group():
        launch.barrier()


def share_of(launch: Launch, seconds: Sequence[float]) -> list[int]:
    """Return which of the recordings of these lengths are this process's, in order.

    The longest is given out first, each to the process that has least so far.
    """
    loads = [0.0] * launch.processes
    mine = []
    for i in sorted(range(len(seconds)), key=lambda i: (-seconds[i], i)):
        rank = loads.index(min(loads))
        loads[rank] += seconds[i]
        if rank == launch.rank:
            mine.append(i)
    return sorted(mine)


def _recordings(folder: Path) -> tuple[Recording, ...]:
    try:
        return read_testset(folder).recordings
    except UserError:
        return ()
