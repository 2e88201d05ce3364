"""Products from 8-bit codes beside bfloat16 ones: milliseconds of a core at the shapes of a 7 B model.

The codes are random with six in ten thousand beyond ±127, as in a real language model; both products take the same
activations. Times are the thread's own (`thread_time`), the least of several runs in two rounds; one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

SHAPES = ((4096, 4096), (11008, 4096), (4096, 11008))
INPUT_ROWS = (1, 8, 32, 192)
EXCEPTIONS = 0.0006
LEAST_RATIO = {1: 2.4, 32: 1.0}
"""Rows of activations -> how many times as fast as the bfloat16 product."""


def bench_products(*, runs: int = 5) -> list[dict[str, Any]]:
    """Return of every shape and number of rows the milliseconds of both products, their ratio, and whether it passed.

    Run it with OMP_NUM_THREADS=1: the thread's own time leaves out what other threads do.
    """
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    found = []
    for rows, columns in SHAPES:
        weight = _coded(rows, columns, generator)
        plain = torch.randn(rows, columns, generator=generator).to(torch.bfloat16)
        for count in INPUT_ROWS:
            inputs = torch.randn(count, columns, generator=generator).to(torch.bfloat16)
            with torch.inference_mode():
                milliseconds = [
                    _least_milliseconds(work, runs)
                    for _ in range(2)
                    for work in (lambda: F.linear(inputs, plain), lambda: weight.multiply(inputs))  # noqa: B023
                ]
            bfloat16, codes = min(milliseconds[::2]), min(milliseconds[1::2])
            passed = bfloat16 / codes >= LEAST_RATIO.get(count, 0)
            found.append(
                {"shape": (rows, columns), "rows": count, "bfloat16_ms": bfloat16, "codes_ms": codes}
                | {"ratio": bfloat16 / codes, "passed": passed}
            )
    return found


def products_text(figures: Iterable[dict[str, Any]]) -> str:
    """Return the figures as lines."""
    return "\n".join(
        f"{each['shape'][0]} x {each['shape'][1]}, {each['rows']} rows of inputs: {each['codes_ms']:.1f} ms, bfloat16 "
        f"{each['bfloat16_ms']:.1f} ms: {each['ratio']:.1f} times as fast"
        + (f" (bar: {LEAST_RATIO[each['rows']]})" if each["rows"] in LEAST_RATIO else "")
        for each in figures
    )


def _coded(rows: int, columns: int, generator: Any) -> Any:
    """Return a weight of random codes, as it is kept for inference."""
    import torch

    from submission.model.codecs.codec import ScaledCodes
    from submission.runtime.products.int8_kernels import PrepackedCodes

    codes = torch.randint(-40, 41, (rows, columns), dtype=torch.int8, generator=generator)
    count = int(rows * columns * EXCEPTIONS)
    positions = torch.randint(0, rows * columns, (count,), generator=generator).unique()
    codes.view(-1)[positions] = 127
    remainders = torch.randint(1, 200, positions.shape, generator=generator)
    row_scale, column_scale = (torch.rand(n, generator=generator).add_(0.1).half() for n in (rows, columns))
    scaled = ScaledCodes(
        codes=codes, row_scale=row_scale, column_scale=column_scale, positions=positions, remainders=remainders
    )
    return PrepackedCodes(scaled, {})


def _least_milliseconds(work: Callable[[], Any], runs: int) -> float:
    """Return the least processor time of some runs of a function, after one that is not counted."""
    work()
    milliseconds = []
    for _ in range(runs):
        start = time.thread_time()
        work()
        milliseconds.append(1e3 * (time.thread_time() - start))
    return min(milliseconds)
