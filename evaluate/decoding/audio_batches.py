"""Read segments of speech and extract their features, a batch ahead of the one that is decoded.

A thread does it while the model generates, so that a GPU does not wait for audio and spectrograms. What is
read depends on neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from submission.runtime.audio import read_slice
from submission.runtime.families.family import AudioFeatures
from submission.runtime.prompt import extract_features, shortest_samples, window_samples
from submission.text.segments import SAMPLE_RATE, Segment

if TYPE_CHECKING:
    from transformers import ProcessorMixin

NamedSegment = tuple[str, Segment]
"""A segment with its id."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentAudio:
    """The audio of a segment, as it is and as the model reads it."""

    name: str
    """The segment's id."""
    waveform: np.ndarray
    """float32 [samples], 16 kHz, ±1."""
    features: AudioFeatures
    clipped: bool = False
    """Whether the segment is longer than the model's window; the rest is left out."""

    @property
    def seconds(self) -> float:
        """Length of the waveform."""
        return len(self.waveform) / SAMPLE_RATE


ReadSegment = tuple[NamedSegment, SegmentAudio | None]
"""A segment and its audio; None where it is shorter than the model takes."""


def make_segment_audio(processor: Any, name: str, waveform: np.ndarray, *, clipped: bool = False) -> SegmentAudio:
    """Return a segment's audio from its waveform; UserError for audio that the model would misread."""
    features = extract_features(processor, waveform, name)
    return SegmentAudio(name=name, waveform=waveform, features=features, clipped=clipped)


def read_batch(
    processor: ProcessorMixin, batch: Sequence[NamedSegment], recordings: Mapping[str, Path]
) -> list[ReadSegment]:
    """Return the segments of a batch with their audio; recordings: file name -> path."""
    window, shortest = window_samples(processor), shortest_samples(processor)

    def read(name: str, segment: Segment) -> SegmentAudio | None:
        samples = segment.end - segment.start
        if samples < shortest:
            return None
        end = segment.start + min(samples, window)
        waveform = read_slice(recordings[segment.recording], segment.start, end, segment.channel)
        return make_segment_audio(processor, name, waveform, clipped=samples > window)

    return [((name, segment), read(name, segment)) for name, segment in batch]


def read_batches(
    processor: ProcessorMixin, batches: Sequence[Sequence[NamedSegment]], recordings: Mapping[str, Path]
) -> Iterator[list[ReadSegment]]:
    """Yield `read_batch` of every batch, in order; the next one is read meanwhile, and no more."""
    with ThreadPoolExecutor(1, thread_name_prefix="audio") as pool:

        def submit(batch: Sequence[NamedSegment]) -> Future[list[ReadSegment]]:
            return pool.submit(read_batch, processor, batch, recordings)

        ahead = [submit(batch) for batch in batches[:1]]
        for following in batches[1:]:
            found = ahead.pop().result()
            ahead.append(submit(following))
            yield found
        for last in ahead:
            yield last.result()
