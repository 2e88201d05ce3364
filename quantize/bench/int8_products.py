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
LEAST_RATIO = {1: 2.4, 32: 1.0}
"""Rows of activations -> how many times as fast as the bfloat16 product."""


def bench_products(*, runs: int = 5) -> list[dict[str, Any]]:
    """Return of every shape and number of rows the milliseconds of both products, their ratio, and whether it passed.

    Run it with OMP_NUM_THREADS=1: the thread's own time leaves out what other threads do.
    """
    import torch
    import torch.nn.functional as F

    from submission.runtime.products.random_codes import random_codes

    generator = torch.Generator().manual_seed(0)
    found = []
    for rows, columns in SHAPES:
        weight = random_codes((rows, columns), generator)
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


def _least_milliseconds(work: Callable[[], Any], runs: int) -> float:
    """Return the least processor time of some runs of a function, after one that is not counted."""
    work()
    milliseconds = []
    for _ in range(runs):
        start = time.thread_time()
        work()
        milliseconds.append(1e3 * (time.thread_time() - start))
    return min(milliseconds)
