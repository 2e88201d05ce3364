"""Recordings as the organisers' script takes them, and the segments in which they are translated.

Audio files are found at any depth; FILE_ORDER is optional. Segments come from one of three hands:

    Given   a YAML list, in any dialect: as it is, its order kept within a recording
    Kept    the segments of a bundle's test set, for the same recordings
    Cut     a method of `submission.system.registry`, which needs a classifier where it classifies

What segments depend on (`about`) is known before anything is heard, so that a run can say whether it is the one that
it goes on with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from unicodedata import normalize

from segment.audio_validation import checked_length
from segment.classifier.model import CONFIG, WEIGHTS
from segment.probabilities.detectors import make_detectors
from segment.probabilities.speech_probabilities import ProbabilityCache
from segment.report import combined_error
from segment.segmentation import segment_with
from segment.testset import Recording, TestSetFolder, find_segments_file, read_given, yaml_files
from submission.errors import UserError
from submission.store.digests import sha256_file, tree_digest
from submission.system.recipe import SegmentOptions
from submission.system.revisions import REVISIONS
from submission.system.system import System
from submission.text.segments import Segment

LABEL = "segment"


class Segmenting(Protocol):
    """How the recordings of a folder become segments."""

    @property
    def source(self) -> str:
        """Where the segments come from, for people."""

    def about(self) -> dict[str, Any]:
        """Return all that the segments depend on beside the recordings, as JSON."""

    def __call__(self, folder: TestSetFolder, memory: ProbabilityCache) -> tuple[list[Segment], dict[str, Any]]:
        """Return the segments, recordings in the folder's order, and what there is to report on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Segments that a YAML file lists."""

    path: Path
    window_seconds: float
    """What the model hears at once; longer segments are refused."""

    @property
    def source(self) -> str:
        return f"given in {self.path}"

    def about(self) -> dict[str, Any]:
        if not self.path.is_file():
            raise UserError(str(self.path), "no such file", "name the YAML that lists wav, offset and duration")
        return {"segmentation": "given", "sha256": sha256_file(self.path)}

    def __call__(self, folder: TestSetFolder, memory: ProbabilityCache) -> tuple[list[Segment], dict[str, Any]]:
        given = read_given(self.path, folder, checked_length, self.window_seconds)
        return list(given.segments), {"overlapping": given.overlaps, "cut_at_end": given.cut_at_end}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The segments that a bundle holds for a test set."""

    testset: str
    path: Path
    segments: tuple[Segment, ...]

    @property
    def source(self) -> str:
        return f"the bundle's of {self.testset}"

    def about(self) -> dict[str, Any]:
        return {"segmentation": "bundle", "testset": self.testset, "sha256": sha256_file(self.path)}

    def __call__(self, folder: TestSetFolder, memory: ProbabilityCache) -> tuple[list[Segment], dict[str, Any]]:
        lengths = checked_lengths(folder.recordings)
        for segment in self.segments:
            if segment.end > lengths[segment.recording]:
                what = (
                    f"has {lengths[segment.recording]:,} samples at 16 kHz, and the segments of {self.testset} "
                    f"reach to {segment.end:,}: it is not the recording that they were made for"
                )
                fix = "get the test set again, or rename the recording, or add --segment-anew"
                raise UserError(segment.recording, what, fix)
        return list(self.segments), {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Segments that a method finds."""

    options: SegmentOptions
    classifier: Path | None
    """The classifier's folder; methods that do not classify need none."""

    @property
    def source(self) -> str:
        return f"by the method {self.options.method}"

    def about(self) -> dict[str, Any]:
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

    def __call__(self, folder: TestSetFolder, memory: ProbabilityCache) -> tuple[list[Segment], dict[str, Any]]:
        detectors = make_detectors(self.options, self.classifier or Path(), self._digest(), REVISIONS["segment"])
        return segment_with(folder, self.options, detectors, memory, LABEL)


def how_to_segment(
    system: System, audio: Path, yaml: Path | None, method: str | None, classifier: Path | None
) -> Segmenting:
    """Return how the recordings of a folder become segments.

    By the YAML that is named; by the method that is named; by a YAML among the recordings; by the recipe's method.
    Raises UserError where that cannot be.
    """
    if yaml and method:
        raise UserError("--method", "contradicts --segments", "give one of them")
    if found := yaml or (None if method else given_file(audio)):
        return Given(path=found, window_seconds=system.campaign.model.window_seconds)
    options = system.recipe.segment
    return Cut(options=replace(options, method=method or options.method), classifier=classifier)


def check_apart(folder: Path, out: Path) -> None:
    """Refuse an output folder inside a folder that is read, where the next run would find what this one wrote."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--out {out}", f"lies in {folder}, which is read", "name a folder elsewhere")


def given_file(folder: Path) -> Path | None:
    """Return the segments YAML that lies among the recordings, or None; UserError where one of several could be it."""
    if not yaml_files(folder):
        return None
    try:
        return find_segments_file(folder)
    except UserError as error:
        fix = "name the right one with --segments, or a method with --method"
        raise UserError(error.where, error.what, fix) from error


def checked_lengths(recordings: Sequence[Recording]) -> dict[str, int]:
    """Return recording -> samples at 16 kHz; UserError names every one that cannot be read or was cut off."""
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

    The others become unlisted. A name may be in another Unicode form than the file's; KeyError where there is none.
    """
    here = {normalize("NFC", recording.name): recording for recording in folder.recordings}
    chosen = [Recording(name=name, path=here[normalize("NFC", name)].path) for name in names]
    left = here.keys() - {normalize("NFC", name) for name in names}
    return TestSetFolder(
        recordings=tuple(chosen), unlisted=tuple(sorted((*folder.unlisted, *(here[name].name for name in left))))
    )
