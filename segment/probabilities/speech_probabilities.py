"""What there is to hear in recordings: a track of the classifier, one of the voice-activity detector.

Listening is nearly all of the work of segmentation, and the same for every method and threshold. So what was heard
in a recording is remembered, in a folder beside the store's artifacts, under a key of the listener and of the
recording's bytes. A killed run goes on with the recordings that are left, a replaced recording costs itself alone,
and processes that share the recordings of a test set meet there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from segment.audio_validation import checked_length, checked_reader
from segment.probabilities.vad import SileroVad
from segment.probabilities.windows import Source
from segment.testset import Recording
from submission.errors import UserError
from submission.store.digests import canonical_json, sha256_file, sha256_text, write_bytes
from submission.text.segments import SAMPLE_RATE

TOGETHER_SECONDS = 1200
"""Recordings are listened to in groups of about so much audio, whose windows share batches."""

Tick = Callable[[float], None]


class Classify(Protocol):
    """Listens to recordings with the classifier."""

    def __call__(self, sources: Iterable[Source], *, tick: Tick) -> list[np.ndarray]:
        """Return the probability track of each source; they are read in order. tick is told the seconds done."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameProbabilities:
    """What was heard in one recording."""

    samples: int
    voice: np.ndarray
    """Voice-activity probabilities, float32 [ceil(samples / 512)]."""
    track: np.ndarray | None = None
    """The classifier's probabilities, float64 [frame_at(samples)]; None where it was not asked."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detectors:
    """The detector and, where a method needs it, the classifier; each with the key of what its tracks depend on."""

    vad: Callable[[], SileroVad]
    vad_key: str
    classify: Classify | None = None
    classifier_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbabilityCache:
    """Tracks by listener and recording, a safetensors file each."""

    folder: Path

    def _path(self, listener_key: str, digest: str) -> Path:
        return self.folder / f"{sha256_text(canonical_json([listener_key, digest]))}.safetensors"

    def get(self, listener_key: str, digest: str) -> np.ndarray | None:
        """Return the track of a recording, named by its bytes' digest; None where none is kept, or a torn one."""
        try:
            return load_file(self._path(listener_key, digest))["track"]
        except (FileNotFoundError, SafetensorError, KeyError):
            return None

    def put(self, listener_key: str, digest: str, track: np.ndarray) -> None:
        """Keep a track for whoever asks next."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self._path(listener_key, digest), save({"track": np.ascontiguousarray(track)}))


@dataclass(slots=True, kw_only=True)
class _Hearing:
    """A recording on its way to what is heard in it."""

    recording: Recording
    samples: int = 0
    digest: str = ""
    voice: np.ndarray | None = None
    track: np.ndarray | None = None
    error: UserError | None = None

    def outcome(self) -> FrameProbabilities | UserError:
        return self.error or FrameProbabilities(samples=self.samples, voice=self.voice, track=self.track)


def listen(
    recordings: Iterable[Recording], listener: Detectors, memory: ProbabilityCache, tick: Tick = lambda seconds: None
) -> Iterator[tuple[Recording, FrameProbabilities | UserError]]:
    """Yield each recording, in order, with what is heard in it, or with why it cannot be read.

    tick is told the seconds of audio done: half of a recording's when the detector has heard it, half by the
    classifier, where there is one.
    """
    left = deque(recordings)
    while left:
        group: list[_Hearing] = []
        unclassified: list[_Hearing] = []
        sources = _detected(left, group, unclassified, listener, memory, tick)
        if listener.classify:
            tracks = listener.classify(sources, tick=lambda seconds: tick(seconds / 2))
        else:
            tracks = [np.zeros(0) for _ in sources]  # none: on the way, the detector has heard everything
        for hearing, track in zip(unclassified, tracks, strict=True):
            hearing.track = track
            memory.put(listener.classifier_key, hearing.digest, track)
        for hearing in group:
            yield hearing.recording, hearing.outcome()


def _detected(
    left: deque[Recording],
    group: list[_Hearing],
    unclassified: list[_Hearing],
    listener: Detectors,
    memory: ProbabilityCache,
    tick: Tick,
) -> Iterator[Source]:
    """Take a group from what is left, let the detector hear it, and yield what the classifier has to hear.

    The detector comes right before the classifier reads the same recording: a file that has to be decoded whole is
    decoded once. It also is the first to read every sample, so that a damaged recording costs no other.
    """
    seconds = 0.0
    while left and seconds < TOGETHER_SECONDS:
        hearing = _Hearing(recording=left.popleft())
        group.append(hearing)
        try:
            source = _detect(hearing, listener, memory)
        except UserError as error:
            hearing.error = error
            continue
        recorded = source.samples / SAMPLE_RATE
        seconds += recorded
        if listener.classify is None or hearing.track is not None:
            tick(recorded)
            continue
        tick(recorded / 2)
        unclassified.append(hearing)
        yield source


def _detect(hearing: _Hearing, listener: Detectors, memory: ProbabilityCache) -> Source:
    """Fill in what is remembered of a recording and what the detector hears; UserError where it cannot be read."""
    path = hearing.recording.path
    hearing.samples = checked_length(path)
    hearing.digest = sha256_file(path)
    hearing.voice = memory.get(listener.vad_key, hearing.digest)
    if listener.classify:
        hearing.track = memory.get(listener.classifier_key, hearing.digest)
    source = Source(read=checked_reader(path), samples=hearing.samples)
    if hearing.voice is None:
        hearing.voice = listener.vad().track(source.read, source.samples)
        memory.put(listener.vad_key, hearing.digest, hearing.voice)
    return source
