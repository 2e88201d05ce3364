"""The interface of segmentation methods: frame probabilities and options in, stretches of samples out."""

from __future__ import annotations

from collections.abc import Callable

from segment.probabilities.speech_probabilities import FrameProbabilities
from submission.system.recipe.decoding_options import SegmentOptions
from submission.text.segments import SAMPLE_RATE

Stretch = tuple[int, int]
"""(start, end) in samples at 16 kHz, the end exclusive."""

Method = Callable[[FrameProbabilities, SegmentOptions], list[Stretch]]
"""Returns segments in order, disjoint, within the recording, none empty. Reads no audio and loads no model."""


def length_limits(options: SegmentOptions) -> tuple[int, int]:
    """Return the longest and the shortest segment in samples."""
    return int(options.max_seconds * SAMPLE_RATE), int(options.min_seconds * SAMPLE_RATE)
