"""Entropy-coded streams: bytes against the conditional entropy of the codes, and weights per second of a core.

The codes are those of the solver `feedback` at 3.8 bits, of weights that are Student's t with 5 degrees of freedom
times a scale for every row and column; or any that are given. The conditional entropy is that of code less centre given
the sum of the row's and the column's class, and with a trellis given the superset too: what tables that cost nothing
would reach. Times are the thread's own (`thread_time`), the least of several runs, so that
other processes count little; one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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
SOLVED_BITS = 3.8
CAPPED = 4000
"""Codes beyond it count as one for the entropy."""


def bench_entropy(codes: np.ndarray | None = None, *, trellis: bool = False, runs: int = 5) -> dict[str, Any]:
    """Return bits, entropy, weights per second and bars of one weight's codes, int16 or int32 [rows, columns].

    trellis: whether the codes follow a trellis.
    """
    codes = solved_codes(4096, 4096, trellis=trellis) if codes is None else codes
    contexts = fit_contexts(codes, trellis=trellis)
    size = stream_bytes(codes, contexts)
    stream = encode(codes, contexts, size)
    data, sample = stream.tobytes(), codes[::16].copy()
    rows, columns = codes.shape
    header = check_header(data, rows, columns, size, trellis=trellis)
    speeds = {
        "fit": lambda: fit_contexts(codes, trellis=trellis),
        "encode": lambda: encode(codes, contexts, size),
        "decode": lambda: decode(stream, (rows, columns), trellis=trellis),
        "check": lambda: check_payload(data, check_header(data, rows, columns, size, trellis=trellis)),
    }
    rates = {name: codes.size / _least_seconds(work, runs) for name, work in speeds.items()}
    ratio = 8 * size / conditional_entropy_bits(codes, contexts)
    return {
        "shape": codes.shape,
        "bits_per_code": 8 * size / codes.size,
        "stream_over_entropy": ratio,
        "estimate_over_stream": rate_bits(codes, contexts, rows=len(codes)) / (8 * size),
        "sample_over_stream": rate_bits(sample, fit_contexts(sample, trellis=trellis), rows=len(codes)) / (8 * size),
        "exceptions": header.exceptions / codes.size,
        "codes_per_second": rates,
        "passed_bars": {
            "rate": ratio <= MOST_RATE,
            "decode": rates["decode"] >= LEAST_DECODED,
            "encode": rates["encode"] >= LEAST_ENCODED,
        },
    }


def entropy_text(figures: Mapping[str, dict[str, Any]]) -> str:
    """Return the figures of codes, by what they are called, as lines."""
    lines = []
    for name, each in figures.items():
        rows, columns = each["shape"]
        speeds = ", ".join(f"{what} {rate / 1e6:.0f}" for what, rate in each["codes_per_second"].items())
        missed = ", ".join(bar for bar, passed in each["passed_bars"].items() if not passed)
        lines += [
            f"{name} codes, {rows} x {columns} at {each['bits_per_code']:.2f} bits: "
            f"{each['stream_over_entropy']:.4f} of the entropy (bar: {MOST_RATE})"
            f"{'; missed: ' * bool(missed)}{missed}",
            f"  M codes/s a core: {speeds}; bars: decode {LEAST_DECODED / 1e6:.0f}, encode {LEAST_ENCODED / 1e6:.0f}",
        ]
    return "\n".join(lines)


def synthetic_weight(rows: int, columns: int, *, spread: float = 0.5, seed: int = 0) -> np.ndarray:
    """Return float64 [rows, columns], Student's t, of which the scales of rows and columns vary by spread octaves."""
    import numpy as np

    generator = np.random.default_rng(seed)
    row, column = (generator.normal(0, spread, n) for n in (rows, columns))
    weight: np.ndarray = generator.standard_t(5, (rows, columns)) * 2.0 ** (row[:, None] + column)
    return weight


def solved_codes(rows: int, columns: int, *, bits: float = SOLVED_BITS, trellis: bool = False) -> np.ndarray:
    """Return int16 codes [rows, columns] of the solver `feedback` at about so many bits.

    The inputs are correlated, of rank columns / 8 and noise; the rows' importance is log-normal.
    """
    import torch

    from quantize.solvers.feedback import factorize, floored_importance, solve_resolved
    from quantize.solvers.rate import draw_sample, expected_log2_constant
    from submission.model.codecs.entropy.layout import Grid

    generator = torch.Generator().manual_seed(0)
    weight = torch.from_numpy(synthetic_weight(rows, columns)).float()
    mixing = torch.randn(columns, columns // 8, generator=generator)
    factor = factorize(mixing @ mixing.T * (8 / columns) + torch.eye(columns), columns)
    importance = floored_importance(torch.randn(rows, generator=generator, dtype=torch.float64).exp(), rows)
    constant = 2 ** expected_log2_constant(draw_sample(weight, factor, importance), factor, bits, trellis=trellis)
    restarts = Grid(rows=rows, columns=columns, trellis=trellis).restarts
    codes: np.ndarray = solve_resolved(weight, factor, importance, constant, restarts).codes.numpy()
    return codes


def conditional_entropy_bits(codes: np.ndarray, contexts: Contexts) -> float:
    """Return the bits of codes under their own frequencies, given the sums of their classes and their supersets."""
    import numpy as np

    rows, columns = (index.astype(np.int64) for index in contexts.indexes())
    counts = np.zeros((contexts.shifts.size * len(contexts.densities), 2 * CAPPED + 1))
    for row, line in zip(rows, codes.astype(np.int64), strict=True):
        superset, index = (line & 1, line >> 1) if contexts.trellis else (0, line)
        residuals = np.clip(index - contexts.centres, -CAPPED, CAPPED) + CAPPED
        np.add.at(counts, (row + columns + superset, residuals), 1)
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
