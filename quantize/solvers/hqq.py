"""Solve one weight by half-quadratic quantization (Badri and Shaji 2023), with the results of the hqq library.

Codes differ from the library's only where they lie on the edge between two values. On a CPU compiled loops
(`hqq_kernels.py`) work in blocks that fit in a core's cache, on a GPU torch does (`hqq_torch.py`).

hqq stops all groups of a weight at once, when the mean absolute error of all of them has stopped falling. That is known
only after all groups were measured; so each group runs to its own fixed point and adds its errors to the sums, and
groups that took more updates than the sums allow are solved a second time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from quantize.solvers.blocks import each_block, float_rows
from submission.model.codecs.affine import AffineSolution

ITERATIONS = 20
"""hqq's bound on updates of the zero-point."""


def solve_hqq(weight: torch.Tensor, bits: int, group_size: int) -> AffineSolution:
    """Return hqq's solution as its `Quantizer` finds it: the zero-point starts unrounded."""
    return _solve_hqq(weight, bits, group_size, round_zero=False)


def solve_hqq_rounded_zero(weight: torch.Tensor, bits: int, group_size: int) -> AffineSolution:
    """Return hqq's solution as its `BaseQuantizeConfig` configures it: at 4 bits the zero-point starts rounded.

    On Gaussian weights that is the worse start (relative squared error in groups of 64 .0076 against .0074, of 128
    .0095 against .0094).
    """
    return _solve_hqq(weight, bits, group_size, round_zero=bits == 4)


def _solve_hqq(weight: torch.Tensor, bits: int, group_size: int, *, round_zero: bool) -> AffineSolution:
    if weight.device.type == "cpu":
        return _solve_with_kernels(weight, bits, group_size, round_zero=round_zero)
    from quantize.solvers.hqq_torch import solve_pieces

    top = (1 << bits) - 1
    codes, scale, zero = solve_pieces(weight, group_size, top, round_zero=round_zero, iterations=ITERATIONS)
    return AffineSolution(codes=codes, scale=scale, zero=zero)


def _solve_with_kernels(weight: torch.Tensor, bits: int, group_size: int, *, round_zero: bool) -> AffineSolution:
    from quantize.solvers.hqq_kernels import solve_groups

    rows, columns = weight.shape
    groups = -(-columns // group_size)
    ragged = columns % group_size
    top = np.float32((1 << bits) - 1)
    codes = np.empty((rows, columns), dtype=np.uint8)
    scale, zero = (np.empty((rows, groups), dtype=np.float32) for _ in range(2))
    taken = np.full((rows, groups), ITERATIONS + 1, dtype=np.uint8)
    errors = np.zeros((rows, 2, ITERATIONS))

    def solve_block(limits: np.ndarray) -> Callable[[slice], None]:
        def solve_rows(block: slice) -> None:
            parts = (array[block] for array in (scale, zero, codes, taken, errors))
            bad = solve_groups(float_rows(weight, block), group_size, top, round_zero, limits, *parts)
            if bad >= 0:
                raise ValueError(f"row {block.start + bad} holds a number that is not finite; fetch or train it again")

        return solve_rows

    each_block(solve_block(np.full(2, ITERATIONS)), rows, columns)
    # Sums over rows in their order, whichever thread did them.
    totals = errors.sum(axis=0).cumsum(axis=1)
    counts = rows * (columns - ragged), rows * ragged
    limits = np.array([_updates(total / max(count, 1)) for total, count in zip(totals, counts, strict=True)])
    whole = columns // group_size
    if (taken[:, :whole] > limits[0]).any() or (taken[:, whole:] > limits[1]).any():
        each_block(solve_block(limits), rows, columns)
    return AffineSolution(codes=torch.from_numpy(codes), scale=torch.from_numpy(scale), zero=torch.from_numpy(zero))


def _updates(errors: np.ndarray) -> int:
    """Return after how many updates hqq stops, from the mean absolute error before each of them.

    The update that follows the first error that is no smaller is still made.
    """
    best = np.float32(np.inf)
    for update, error in enumerate(errors.astype(np.float32)):
        if not error < best:
            return update + 1
        best = error
    return len(errors)
