"""Determine the segments in which a folder of recordings is translated.

Audio files are found at any depth; FILE_ORDER is optional. Segments have one of three sources:

    ListedSegments     a YAML list in any dialect, unchanged, in its order within a recording
    BundledSegments   the segments of a bundle's test set, for the same recordings
    ByMethod          a method of `submission.system.registry`, with a classifier where the method needs one

`about` returns everything that the segments depend on before any audio is read, so that a run can check whether it
may resume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from segment.classifier.model import CONFIG, WEIGHTS
from segment.probabilities.detectors import make_detectors
from segment.probabilities.speech_probabilities import ProbabilityCache
from segment.segmentation import segment_with
from segment.segmentation_report import combined_error
from segment.testset import RecordingFile, TestSetFolder, find_segments_file, read_given, yaml_files
from submission.errors import UserError
from submission.runtime.audio import checked_length
from submission.store.digests import sha256_file, tree_digest
from submission.system.recipe import SegmentOptions
from submission.system.revisions import REVISIONS
from submission.system.system import System
from submission.text.recording_names import match_recordings
from submission.text.segments import Segment

LABEL = "segment"


class SegmentSource(Protocol):
    """How the recordings of a folder become segments."""

    @property
    def source(self) -> str:
        """Where the segments come from, for reports."""

    def about(self) -> dict[str, Any]:
        """Return everything that the segments depend on beside the recordings, as JSON."""

    def __call__(self, folder: TestSetFolder, memory: ProbabilityCache) -> tuple[list[Segment], Mapping[str, Any]]:
        """Return the segments, recordings in the folder's order, and a report on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSegments:
    """Segments that a YAML file lists."""

    path: Path
    window_seconds: float
    """Length of the encoder's window; longer segments are refused."""

    @property
    def source(self) -> str:
        """The YAML file, for reports."""
        return f"given in {self.path}"

    def about(self) -> dict[str, Any]:
        """Return the digest of the YAML file; UserError where there is none."""
        if not self.path.is_file():
            raise UserError(str(self.path), "no such file", "name the YAML that lists wav, offset and duration")
        return {"segmentation": "given", "sha256": sha256_file(self.path)}

    def __call__(self, folder: TestSetFolder, memory: ProbabilityCache) -> tuple[list[Segment], Mapping[str, Any]]:
        """Return the segments as the file lists them, and how many overlap or were cut at a recording's end."""
        given = read_given(self.path, folder, checked_length, self.window_seconds)
        return list(given.segments), {"overlapping": given.overlaps, "cut_at_end": given.cut_at_end}


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledSegments:
    """The segments of a bundle's test set."""

    testset: str
    path: Path
    segments: tuple[Segment, ...]

    @property
    def source(self) -> str:
        """The bundle's test set, for reports."""
        return f"the bundle's of {self.testset}"

    def about(self) -> dict[str, Any]:
        """Return the test set and the digest of its segments' file."""
        return {"segmentation": "bundle", "testset": self.testset, "sha256": sha256_file(self.path)}

    def __call__(self, folder: TestSetFolder, memory: ProbabilityCache) -> tuple[list[Segment], Mapping[str, Any]]:
        """Return the bundle's segments and an empty report; UserError where one ends after its recording."""
        lengths = checked_lengths(folder.recordings)
        for segment in self.segments:
            if segment.end > lengths[segment.recording]:
                what = (
                    f"has {lengths[segment.recording]:,} samples at 16 kHz, and the segments of {self.testset} "
                    f"end at {segment.end:,}: it is not the recording that was segmented"
                )
                fix = "download the test set again, or rename the recording, or add --resegment"
                raise UserError(segment.recording, what, fix)
        return list(self.segments), {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ByMethod:
    """Segments by a method of the registry."""

    options: SegmentOptions
    classifier: Path | None
    """The classifier's folder; None where the method needs none."""

    @property
    def source(self) -> str:
        """The method, for reports."""
        return f"by the method {self.options.method}"

    def about(self) -> dict[str, Any]:
        """Return the method's options and the classifier's digest; UserError where that is missing."""
        return {"segmentation": "free", **asdict(self.options), "classifier": self._digest()}

    def _digest(self) -> str:
        if not self.options.about.needs_classifier:
            return ""
        where = str(self.classifier or f"method {self.options.method}")
        if self.classifier is None or not all((self.classifier / name).is_file() for name in (CONFIG, WEIGHTS)):
            what = f"has no classifier ({CONFIG}, {WEIGHTS})"
            fix = "name one with --classifier, give --segments, or take --method vad, which needs none"
            raise UserError(where, what, fix)
        return tree_digest(self.classifier)

    def __call__(self, folder: TestSetFolder, memory: ProbabilityCache) -> tuple[list[Segment], Mapping[str, Any]]:
        """Return the method's segments and its report; probabilities are taken from the cache where it has them."""
        detectors = make_detectors(self.options, self.classifier or Path(), self._digest(), REVISIONS["segment"])
        return segment_with(folder, self.options, detectors, memory, LABEL)


def how_to_segment(
    system: System, audio: Path, yaml: Path | None, method: str | None, classifier: Path | None
) -> SegmentSource:
    """Return how the recordings of a folder become segments.

    In this order: the given YAML; the given method; a YAML among the recordings; the recipe's method. Raises UserError
    where yaml and method are both given.
    """
    if yaml and method:
        raise UserError("--method", "contradicts --segments", "use one of them")
    if found := yaml or (None if method else given_file(audio)):
        return ListedSegments(path=found, window_seconds=system.campaign.model.window_seconds)
    options = system.recipe.segment
    return ByMethod(options=replace(options, method=method or options.method), classifier=classifier)


def check_separate(folder: Path, out: Path) -> None:
    """Refuse an output folder inside an input folder: the next run would read the output."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--out {out}", f"is inside the input folder {folder}", "name a folder outside it")


def given_file(folder: Path) -> Path | None:
    """Return the segments YAML among the recordings, or None; UserError where several could be it."""
    if not yaml_files(folder):
        return None
    try:
        return find_segments_file(folder)
    except UserError as error:
        fix = "name the right one with --segments, or a method with --method"
        raise UserError(error.where, error.what, fix) from error


def checked_lengths(recordings: Sequence[RecordingFile]) -> dict[str, int]:
    """Return recording -> samples at 16 kHz; UserError names every one that is unreadable or truncated."""
    lengths, errors = {}, []
    for recording in recordings:
        try:
            lengths[recording.name] = checked_length(recording.path)
        except UserError as error:
            errors.append(error)
    if errors:
        raise combined_error(errors, LABEL, f"{len(errors)} of {len(recordings)} recordings cannot be read")
    return lengths


def only(folder: TestSetFolder, names: Sequence[str]) -> TestSetFolder:
    """Return a folder reduced to the recordings of these names, under them and in their order.

    The others become unlisted, and names without a recording are left out. Unicode forms and extensions may differ.
    """
    here = {recording.name: recording for recording in folder.recordings}
    matched = match_recordings(names, here)
    chosen = [RecordingFile(name=name, path=here[matched[name]].path) for name in names if name in matched]
    left = here.keys() - set(matched.values())
    return TestSetFolder(
        recordings=tuple(chosen), unlisted=tuple(sorted((*folder.unlisted, *(here[name].name for name in left))))
    )
