"""Probabilistic divide-and-conquer over a recording: by the classifier's probabilities (SHAS), or by the detector's."""

from __future__ import annotations

import numpy as np

from segment.methods import pdac
from segment.methods.method import Stretch
from segment.probabilities import windows
from segment.probabilities.speech_probabilities import FrameProbabilities
from segment.probabilities.vad import CHUNK_SAMPLES
from submission.system.recipe.decoding_options import SegmentOptions
from submission.text.segments import SAMPLE_RATE

VAD_RATE_HZ = SAMPLE_RATE / CHUNK_SAMPLES


def segment_by_classifier(probabilities: FrameProbabilities, options: SegmentOptions) -> list[Stretch]:
    """Return the segments of SHAS."""
    assert probabilities.classifier is not None, "this method needs the classifier, as the registry has it"
    return split_probabilities(probabilities.classifier, probabilities.samples, options, pdac.FRAME_RATE_HZ)


def segment_by_vad(probabilities: FrameProbabilities, options: SegmentOptions) -> list[Stretch]:
    """Return the segments that divide-and-conquer finds in the voice-activity detector's probabilities."""
    return split_probabilities(probabilities.vad, probabilities.samples, options, VAD_RATE_HZ)


def split_probabilities(
    probabilities: np.ndarray, samples: int, options: SegmentOptions, frame_rate_hz: float
) -> list[Stretch]:
    """Return the segments of frame probabilities in samples; the last one ends with the recording at the latest."""
    limits = pdac.Limits(
        max_seconds=options.max_seconds,
        min_seconds=options.min_seconds,
        threshold=options.threshold,
        frame_rate_hz=frame_rate_hz,
    )
    frames = pdac.split(probabilities, limits)
    stretches = ((windows.sample_at(a, frame_rate_hz), windows.sample_at(b, frame_rate_hz)) for a, b in frames)
    return [(start, min(end, samples)) for start, end in stretches if start < samples]
