"""Fixed-length segmentation: the baseline that listens to nothing and loses nothing."""

from __future__ import annotations


def cut_evenly(samples: int, longest_samples: int, shortest_samples: int) -> list[tuple[int, int]]:
    """Return (start, end) of pieces of longest_samples that cover a recording, the last one shorter.

    Where that last piece would be shorter than shortest_samples, the last two share their length evenly.
    """
    if samples <= 0:
        return []
    edges = [*range(0, samples, longest_samples), samples]
    if len(edges) > 2 and edges[-1] - edges[-2] < shortest_samples:
        edges[-2] = (edges[-3] + edges[-1]) // 2
    return list(zip(edges, edges[1:], strict=False))
