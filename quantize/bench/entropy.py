"""Entropy-coded streams: bytes against the conditional entropy of the codes, and weights per second of a core.

The codes are Student's t with 5 degrees of freedom times a scale for every row and column, rounded, or any that are
given. The conditional entropy is that of code less centre given the sum of the row's and the column's class: what
tables that cost nothing would reach. Times are the thread's own (`thread_time`), the least of several runs, so that
other processes count little; one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from submission.model.codecs.entropy.contexts import Contexts, fit_contexts
from submission.model.codecs.entropy.layout import check_header, check_payload
from submission.model.codecs.entropy.stream import decode, encode, rate_bits, stream_bytes

if TYPE_CHECKING:
    import numpy as np

LEAST_DECODED = 120e6
"""Weights per second of a core."""
LEAST_ENCODED = 100e6
MOST_RATE = 1.005
"""Bits of the stream over the conditional entropy."""
CAPPED = 4000
"""Codes beyond it count as one for the entropy."""


def bench_entropy(codes: np.ndarray | None = None, *, runs: int = 5) -> dict[str, Any]:
    """Return bits, entropy, weights per second and bars of one weight's codes, int32 [rows, columns]."""
    codes = synthetic_codes(4096, 4096) if codes is None else codes
    contexts = fit_contexts(codes)
    size = stream_bytes(codes, contexts)
    stream = encode(codes, contexts, size)
    data, sample = stream.tobytes(), codes[::16].copy()
    rows, columns = codes.shape
    header = check_header(data, rows, columns, size)
    speeds = {
        "fit": lambda: fit_contexts(codes),
        "encode": lambda: encode(codes, contexts, size),
        "decode": lambda: decode(stream, (rows, columns)),
        "check": lambda: check_payload(data, check_header(data, rows, columns, size)),
    }
    rates = {name: codes.size / _least_seconds(work, runs) for name, work in speeds.items()}
    ratio = 8 * size / conditional_entropy_bits(codes, contexts)
    return {
        "shape": codes.shape,
        "bits_per_code": 8 * size / codes.size,
        "stream_over_entropy": ratio,
        "estimate_over_stream": rate_bits(codes, contexts, rows=len(codes)) / (8 * size),
        "sample_over_stream": rate_bits(sample, fit_contexts(sample), rows=len(codes)) / (8 * size),
        "exceptions": header.exceptions / codes.size,
        "codes_per_second": rates,
        "passed_bars": {
            "rate": ratio <= MOST_RATE,
            "decode": rates["decode"] >= LEAST_DECODED,
            "encode": rates["encode"] >= LEAST_ENCODED,
        },
    }


def synthetic_codes(rows: int, columns: int, *, octaves: float = 1.5, spread: float = 0.5, seed: int = 0) -> np.ndarray:
    """Return int32 codes [rows, columns] whose median scale is 2 ** octaves, and rows' and columns' vary by spread."""
    import numpy as np

    generator = np.random.default_rng(seed)
    row, column = (generator.normal(0, spread, n) for n in (rows, columns))
    values = generator.standard_t(5, (rows, columns)) * 2.0 ** (octaves + row[:, None] + column)
    return np.rint(values).astype(np.int32)


def conditional_entropy_bits(codes: np.ndarray, contexts: Contexts) -> float:
    """Return the bits of codes less centres under their own frequencies, given the sums of their classes."""
    import numpy as np

    rows, columns = (index.astype(np.int64) for index in contexts.indexes())
    counts = np.zeros((contexts.shifts.size, 2 * CAPPED + 1))
    for row, line in zip(rows, codes, strict=True):
        residuals = np.clip(line - contexts.centres, -CAPPED, CAPPED) + CAPPED
        np.add.at(counts, (row + columns, residuals), 1)
    sums = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return float(-(counts * np.log2(np.where(counts > 0, counts / sums, 1))).sum())


def _least_seconds(work: Callable[[], Any], runs: int) -> float:
    """Return the least processor time of the runs of a function."""
    seconds = []
    for _ in range(runs):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return min(seconds)
