"""Frame probabilities of recordings: the classifier's and the voice-activity detector's, computed once and cached.

Computing them is nearly all of the work of segmentation, and the same for every method and threshold. So they are
cached in a folder beside the store's artifacts, under a key of the detectors and of the recording's bytes. A killed
run resumes with the recordings that are left, of a replaced recording only its own are computed again, and processes
that share the recordings of a test set exchange results there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from segment.probabilities.vad import SileroVad
from segment.probabilities.windows import AudioSource
from segment.recording_parts import RecordingPart
from submission.errors import UserError
from submission.runtime.audio import checked_length, read_slice
from submission.store.digests import canonical_json, sha256_file, sha256_text, write_bytes
from submission.text.segments import SAMPLE_RATE

GROUP_SECONDS = 1200
"""Recordings are processed in groups of about so much audio, whose windows share batches."""

TENSOR = "probabilities"

Tick = Callable[[float], None]


class Classify(Protocol):
    """Computes the classifier's probabilities of recordings."""

    def __call__(self, sources: Iterable[AudioSource], *, tick: Tick) -> list[np.ndarray]:
        """Return the frame probabilities of each source; they are read in order. tick gets the seconds done."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameProbabilities:
    """Probabilities of speech in one recording."""

    samples: int
    vad: np.ndarray
    """The voice-activity detector's, float32 [ceil(samples / 512)]: one every 32 ms."""
    classifier: np.ndarray | None = None
    """The classifier's, float64 [frame_at(samples)]: 49.95 a second; None where the method does not need them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detectors:
    """The voice-activity detector and, where a method needs it, the classifier, each with its cache key."""

    vad: Callable[[], SileroVad]
    vad_key: str
    classify: Classify | None = None
    classifier_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbabilityCache:
    """Probabilities by detector and recording, a safetensors file each."""

    folder: Path

    def _path(self, detector_key: str, digest: str) -> Path:
        return self.folder / f"{sha256_text(canonical_json([detector_key, digest]))}.safetensors"

    def get(self, detector_key: str, digest: str) -> np.ndarray | None:
        """Return the probabilities of a recording, named by its bytes' digest.

        None where they are not cached or the file is damaged.
        """
        try:
            return load_file(self._path(detector_key, digest))[TENSOR]
        except (FileNotFoundError, SafetensorError, KeyError):
            return None

    def put(self, detector_key: str, digest: str, probabilities: np.ndarray) -> None:
        """Store the probabilities of a recording."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self._path(detector_key, digest), save({TENSOR: np.ascontiguousarray(probabilities)}))


@dataclass(slots=True, kw_only=True)
class _Pending:
    """A part of a recording whose probabilities are being computed."""

    part: RecordingPart
    samples: int = 0
    digest: str = ""
    vad: np.ndarray | None = None
    classifier: np.ndarray | None = None
    error: UserError | None = None

    def result(self) -> FrameProbabilities | UserError:
        if self.error:
            return self.error
        assert self.vad is not None, "the detector runs before results are taken"
        return FrameProbabilities(samples=self.samples, vad=self.vad, classifier=self.classifier)


def detect_speech(
    parts: Iterable[RecordingPart],
    detectors: Detectors,
    cache: ProbabilityCache,
    tick: Tick = lambda seconds: None,
) -> Iterator[tuple[RecordingPart, FrameProbabilities | UserError]]:
    """Yield each part of a recording, in order, with its frame probabilities, or with why it cannot be read.

    The detectors process a part like a recording, and nothing around it.

    tick gets the seconds of audio done: half of a recording's when the voice-activity detector is through, half by
    the classifier, where there is one.
    """
    left = deque(parts)
    while left:
        group: list[_Pending] = []
        unclassified: list[_Pending] = []
        sources = _detected(left, group, unclassified, detectors, cache, tick)
        if detectors.classify:
            results = detectors.classify(sources, tick=lambda seconds: tick(seconds / 2))
        else:
            results = [np.zeros(0) for _ in sources]  # yields nothing, but runs the detector over every recording
        for pending, probabilities in zip(unclassified, results, strict=True):
            pending.classifier = probabilities
            cache.put(detectors.classifier_key, pending.digest, probabilities)
        for pending in group:
            yield pending.part, pending.result()


def _detected(
    left: deque[RecordingPart],
    group: list[_Pending],
    unclassified: list[_Pending],
    detectors: Detectors,
    cache: ProbabilityCache,
    tick: Tick,
) -> Iterator[AudioSource]:
    """Move a group from `left`, run the voice-activity detector, and yield what the classifier has to process.

    The detector runs right before the classifier reads the same recording: a file that has to be decoded whole is
    decoded once. It also is the first to read every sample, so that a damaged recording does not stop the others.
    """
    seconds = 0.0
    while left and seconds < GROUP_SECONDS:
        pending = _Pending(part=left.popleft())
        group.append(pending)
        try:
            source = _detect(pending, detectors, cache)
        except UserError as error:
            pending.error = error
            continue
        recorded = source.samples / SAMPLE_RATE
        seconds += recorded
        if detectors.classify is None or pending.classifier is not None:
            tick(recorded)
            continue
        tick(recorded / 2)
        unclassified.append(pending)
        yield source


def _detect(pending: _Pending, detectors: Detectors, cache: ProbabilityCache) -> AudioSource:
    """Fill in what is cached of a recording, and the detector's probabilities; UserError where it cannot be read."""
    part = pending.part
    path = part.recording.path
    length = checked_length(path)
    pending.samples = (length if part.end is None else part.end) - part.start
    pending.digest = _digest(part)
    pending.vad = cache.get(detectors.vad_key, pending.digest)
    if detectors.classify:
        pending.classifier = cache.get(detectors.classifier_key, pending.digest)
    source = AudioSource(read=partial(_read, part), samples=pending.samples)
    if pending.vad is None:
        pending.vad = detectors.vad().probabilities(source.read, source.samples)
        cache.put(detectors.vad_key, pending.digest, pending.vad)
    return source


def _read(part: RecordingPart, start: int, end: int) -> np.ndarray:
    """Return samples of a part, which are counted from its start."""
    return read_slice(part.recording.path, part.start + start, part.start + end, part.channel)


def _digest(part: RecordingPart) -> str:
    """Return what names a part in the cache: the digest of the recording's bytes, and which part of it is meant."""
    stat = part.recording.path.stat()
    digest = _file_digest(part.recording.path, stat.st_size, stat.st_mtime_ns)
    return digest if part.is_whole else canonical_json([digest, part.channel, part.start, part.end])


@lru_cache(maxsize=1)
def _file_digest(path: Path, size_bytes: int, modified_ns: int) -> str:
    """Return the digest of a file, once for all of its parts, which follow one another."""
    return sha256_file(path)
