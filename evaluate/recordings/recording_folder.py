"""Determine the segments in which a folder of recordings is translated.

Audio files are found at any depth; FILE_ORDER is optional. Segments have one of three sources:

    ListedSegments     a YAML list in any dialect, in its order within a recording; what is longer than the model's
                      window is split
    BundledSegments   the segments of a bundle's test set, for the same recordings
    ByMethod          a method of `submission.system.registry`, with a classifier where the method needs one, on whole
                      recordings or on the regions that a YAML lists

`about` returns everything that the segments depend on before any audio is read, so that a run can check whether it
may resume.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from segment.classifier.model import CONFIG, WEIGHTS
from segment.probabilities.detectors import make_detectors, vad_detectors
from segment.probabilities.speech_probabilities import ProbabilityCache
from segment.recording_parts import EACH, MEAN, chosen_channels, print_untranslated
from segment.segmentation import detector_of, segment_with, within_window
from segment.segmentation_report import combined_error
from segment.testset import RecordingFile, TestSetFolder, find_segments_file, read_given, yaml_files
from submission.errors import UserError
from submission.runtime.audio import checked_length
from submission.store.digests import sha256_file, tree_digest
from submission.system.recipe.decoding_options import SegmentOptions
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

    def __call__(self, folder: TestSetFolder, cache: ProbabilityCache) -> tuple[list[Segment], Mapping[str, Any]]:
        """Return the segments, recordings in the folder's order, and a report on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSegments:
    """Segments that a YAML file lists."""

    path: Path
    window_seconds: float
    """Length of the encoder's window; longer segments are split."""
    channels: str = MEAN
    """What is translated of several channels: their mean or the first, since the list names none."""

    @property
    def source(self) -> str:
        """The YAML file, for reports."""
        return f"given in {self.path}"

    def about(self) -> dict[str, Any]:
        """Return the digest of the YAML file; UserError where there is none."""
        about = {"segmentation": "given", "sha256": _digest_of(self.path)}
        return about | ({"channels": self.channels} if self.channels != MEAN else {})

    def __call__(self, folder: TestSetFolder, cache: ProbabilityCache) -> tuple[list[Segment], Mapping[str, Any]]:
        """Return the segments as the file lists them, and how many overlap, were cut at a recording's end, or split."""
        given = read_given(self.path, folder, checked_length)
        find = detector_of(folder, vad_detectors(REVISIONS["segment"]), cache, LABEL, self.channels)
        segments, split = within_window(given.segments, self.window_seconds, find)
        chosen = {recording: chosen_channels(recording, self.channels)[0] for recording in folder.recordings}
        print_untranslated(LABEL, chosen.items())
        channel_of = {recording.name: channel for recording, channel in chosen.items()}
        segments = [replace(segment, channel=channel_of[segment.recording]) for segment in segments]
        return segments, {"overlapping": given.overlaps, "cut_at_end": given.cut_at_end, "split": split}


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

    def __call__(self, folder: TestSetFolder, cache: ProbabilityCache) -> tuple[list[Segment], Mapping[str, Any]]:
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
        named = {recording.name: recording for recording in folder.recordings}
        print_untranslated(LABEL, ((named[segment.recording], segment.channel) for segment in self.segments))
        return list(self.segments), {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ByMethod:
    """Segments by a method of the registry."""

    options: SegmentOptions
    classifier: Path | None
    """The classifier's folder; None where the method needs none."""
    channels: str = MEAN
    """What is translated of several channels, one of `segment.recording_parts.CHANNELS`."""
    regions: Path | None = None
    """A YAML of the stretches to be translated, each segmented like a recording; None for whole recordings."""

    @property
    def source(self) -> str:
        """The method, for reports."""
        within = f" within the regions of {self.regions}" if self.regions else ""
        return f"by the method {self.options.method}{within}"

    def about(self) -> dict[str, Any]:
        """Return the method's options and the classifier's digest; UserError where that is missing."""
        about = {
            "segmentation": "free",
            **asdict(self.options),
            "classifier": self._digest(),
            "channels": self.channels,
        }
        if self.regions:
            about |= {"segmentation": "regions", "sha256": _digest_of(self.regions)}
        return about

    def _digest(self) -> str:
        if not self.options.about.needs_classifier:
            return ""
        where = str(self.classifier or f"method {self.options.method}")
        if self.classifier is None or not all((self.classifier / name).is_file() for name in (CONFIG, WEIGHTS)):
            what = f"has no classifier ({CONFIG}, {WEIGHTS})"
            fix = "name one with --classifier, give --segments, or take --method vad, which needs none"
            raise UserError(where, what, fix)
        return tree_digest(self.classifier)

    def __call__(self, folder: TestSetFolder, cache: ProbabilityCache) -> tuple[list[Segment], Mapping[str, Any]]:
        """Return the method's segments and its report; probabilities are taken from the cache where it has them."""
        detectors = make_detectors(self.options, self.classifier or Path(), self._digest(), REVISIONS["segment"])
        return segment_with(folder, self.options, detectors, cache, LABEL, self.channels, self.regions)


def _digest_of(path: Path) -> str:
    """Return the digest of a YAML file; UserError where there is none."""
    if not path.is_file():
        raise UserError(str(path), "no such file", "name the YAML that lists wav, offset and duration")
    return sha256_file(path)


def how_to_segment(
    system: System,
    audio: Path,
    yaml: Path | None,
    method: str | None,
    classifier: Path | None,
    channels: str = MEAN,
    regions: Path | None = None,
) -> SegmentSource:
    """Return how the recordings of a folder become segments.

    In this order: the given YAML; the given method or regions; a YAML among the recordings; the recipe's method. Raises
    UserError where the YAML of the segments and what makes segments are both given.
    """
    if yaml and (method or regions or channels == EACH):
        option = "--method" if method else "--regions" if regions else f"--channels {EACH}"
        raise UserError(option, "contradicts --segments", "use one of them")
    if found := yaml or (None if method or regions or channels == EACH else given_file(audio)):
        return ListedSegments(path=found, window_seconds=system.campaign.model.window_seconds, channels=channels)
    options = system.recipe.segment
    chosen = replace(options, method=method or options.method)
    return ByMethod(options=chosen, classifier=classifier, channels=channels, regions=regions)


def check_separate(folder: Path, out: Path, option: str = "--out") -> None:
    """Refuse an output folder, of this option, inside an input folder: the next run would read the output."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{option} {out}", f"is inside the input folder {folder}", "name a folder outside it")


def given_file(folder: Path) -> Path | None:
    """Return the segments YAML among the recordings, or None; UserError where several could be it."""
    if not yaml_files(folder):
        return None
    try:
        return find_segments_file(folder)
    except UserError as error:
        fix = "name the right one with --segments, or a method with --method"
        raise UserError(error.where, error.what, fix) from error


def given_file_near(recordings: Sequence[RecordingFile], folder: Path) -> Path | None:
    """Return the segments YAML nearest to some recordings of a folder, which may hold other test sets beside them.

    Looked for from the folder that they share up to the whole one; None and errors as `given_file` has them.
    """
    parents = [recording.path.parent for recording in recordings] or [folder]
    shared = Path(os.path.commonpath(parents))
    places = [place for place in (shared, *shared.parents) if place.is_relative_to(folder)]
    return next((given_file(place) for place in places if yaml_files(place)), None)


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

    The others are left out, and so are names without a recording. Unicode forms and extensions may differ.
    """
    here = {recording.name: recording for recording in folder.recordings}
    matched = match_recordings(names, here)
    chosen = [RecordingFile(name=name, path=here[matched[name]].path) for name in names if name in matched]
    left = here.keys() - set(matched.values())
    return TestSetFolder(
        recordings=tuple(chosen), unlisted=(), missing=(), left_out=tuple(sorted(here[name].name for name in left))
    )


def named_as(folder: TestSetFolder, names: Sequence[str]) -> TestSetFolder:
    """Return a folder whose recordings have these names where they are the same ones; the others keep theirs."""
    matched = match_recordings(names, [recording.name for recording in folder.recordings])
    renamed = {found: name for name, found in matched.items()}
    recordings = (replace(each, name=renamed.get(each.name, each.name)) for each in folder.recordings)
    return replace(folder, recordings=tuple(recordings))
