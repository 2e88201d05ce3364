"""Fixed-length segmentation, the baseline: equal lengths that cover the recording, whatever is in it."""

from __future__ import annotations

from segment.methods.method import Stretch, length_limits
from segment.probabilities.speech_probabilities import FrameProbabilities
from submission.system.recipe.decoding_options import SegmentOptions


def segment_by_length(probabilities: FrameProbabilities, options: SegmentOptions) -> list[Stretch]:
    """Return segments of `max_seconds` that cover the recording, the last one shorter."""
    longest, shortest = length_limits(options)
    return cut_evenly(probabilities.samples, longest, shortest)


def cut_evenly(samples: int, longest_samples: int, shortest_samples: int) -> list[Stretch]:
    """Return (start, end) of pieces of longest_samples that cover a recording, the last one shorter.

    Where that last piece would be shorter than shortest_samples, the last two share their length evenly.
    """
    if samples <= 0:
        return []
    edges = [*range(0, samples, longest_samples), samples]
    if len(edges) > 2 and edges[-1] - edges[-2] < shortest_samples:
        edges[-2] = (edges[-3] + edges[-1]) // 2
    return list(zip(edges, edges[1:], strict=False))
