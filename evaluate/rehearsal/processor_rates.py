"""Measure what this machine's processor reaches: operations of a large product in bfloat16, bytes of memory copied."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

SIZE = 1024
"""Rows and columns of the product; large enough for the kernel, small enough for a second."""
COPIED_BYTES = 256 << 20
TURNS = 5


def processor_rates() -> dict[str, float]:
    """Return operations and bytes per second, medians of a few turns with torch's threads."""
    import torch

    left, right = (torch.randn(SIZE, SIZE).to(torch.bfloat16) for _ in range(2))
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    return {
        "flops_per_second": 2 * SIZE**3 / _median_seconds(lambda: torch.mm(left, right)),
        "bytes_per_second": 2 * COPIED_BYTES / _median_seconds(lambda: target.copy_(source)),
    }


def _median_seconds(work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)
