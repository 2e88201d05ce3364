"""Segmentation methods behind one interface; `submission.system.registry` lists them by the name that recipes use.

A method is a function of what was heard in a recording; it reads no audio and loads no model.

    shas        the SHAS classifier and probabilistic divide-and-conquer: the paper's system
    shas+vad    the same, then segments extended or added wherever the voice-activity detector hears speech besides
    vad         divide-and-conquer over the detector's probabilities
    fixed       equal lengths, without listening
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segment.methods import fixed, pdac
from segment.methods.gap_filling import Cover, Stretch
from segment.probabilities import windows
from segment.probabilities.speech_probabilities import FrameProbabilities
from segment.probabilities.vad import CHUNK_SAMPLES, speech_stretches
from submission.system.recipe import SegmentOptions
from submission.text.segments import SAMPLE_RATE

VOICE_RATE_HZ = SAMPLE_RATE / CHUNK_SAMPLES

Method = Callable[[FrameProbabilities, SegmentOptions], list[Stretch]]
"""Returns segments as (start, end) in samples: in order, disjoint, within the recording, none empty."""


def cut_evenly(heard: FrameProbabilities, options: SegmentOptions) -> list[Stretch]:
    """Return equal lengths that cover the recording."""
    longest, shortest = _samples(options)
    return fixed.cut_evenly(heard.samples, longest, shortest)


def cut_by_classifier(heard: FrameProbabilities, options: SegmentOptions) -> list[Stretch]:
    """Return the segments of SHAS."""
    return cut_track(heard.track, heard.samples, options, pdac.FRAME_RATE_HZ)


def cut_by_voice(heard: FrameProbabilities, options: SegmentOptions) -> list[Stretch]:
    """Return the segments that divide-and-conquer finds in the detector's probabilities."""
    return cut_track(heard.voice, heard.samples, options, VOICE_RATE_HZ)


def cut_by_classifier_and_cover(heard: FrameProbabilities, options: SegmentOptions) -> list[Stretch]:
    """Return the segments of SHAS, extended and joined by others until they cover all detected speech."""
    longest, shortest = _samples(options)

    def least_sure(start: int, end: int) -> int:
        """Return the middle of the least probable chunk, or the nearest place to it that is allowed."""
        first = start // CHUNK_SAMPLES
        chunk = first + int(heard.voice[first : (end - 1) // CHUNK_SAMPLES + 1].argmin())
        return min(max(chunk * CHUNK_SAMPLES + CHUNK_SAMPLES // 2, start), end - 1)

    cover = Cover(samples=heard.samples, longest=longest, shortest=min(shortest, longest // 2), least_sure=least_sure)
    return cover(cut_by_classifier(heard, options), speech_stretches(heard.voice, heard.samples))


def cut_track(track: np.ndarray, samples: int, options: SegmentOptions, frame_rate_hz: float) -> list[Stretch]:
    """Return the segments of a probability track in samples; the last one ends with the recording at the latest."""
    limits = pdac.Limits(
        max_seconds=options.max_seconds,
        min_seconds=options.min_seconds,
        threshold=options.threshold,
        frame_rate_hz=frame_rate_hz,
    )
    cuts = (
        (windows.sample_at(a, frame_rate_hz), windows.sample_at(b, frame_rate_hz)) for a, b in pdac.split(track, limits)
    )
    return [(start, min(end, samples)) for start, end in cuts if start < samples]


def _samples(options: SegmentOptions) -> tuple[int, int]:
    """Return the longest and the shortest segment in samples."""
    return int(options.max_seconds * SAMPLE_RATE), int(options.min_seconds * SAMPLE_RATE)
