"""The inner loop of error feedback, compiled: one block of columns, rows in tiles that fit in a core's second cache.

Arrays are [columns, rows], so that the innermost loops run over rows, which do not depend on each other, and become
vector instructions. Nothing is summed over rows: the result of a row does not depend on which rows it is solved with.
"""

from __future__ import annotations

import numpy as np
from numba import njit

TILE_ROWS = 512
"""Rows that are solved at a time: 64 columns of float32 errors are 128 KiB."""


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def round_block(targets, weights, feedback, column_scale, inverse_column, row_scale, inverse_row, limit, codes, errors):
    """Fill codes and errors of a block of columns, last column first; targets are used up.

    targets, weights, errors: float32 [columns, rows]; targets hold what later blocks feed back. feedback: float32
    [columns, columns], unit lower triangular; an empty one feeds nothing back. codes: int16 [columns, rows], within
    -limit to limit. column_scale [columns] and row_scale [rows]: float32, with their inverses. A code is the nearest
    integer to target / (column_scale * row_scale); error = weight - code * column_scale * row_scale.
    """
    columns, rows = targets.shape
    feeds = feedback.size > 0
    for start in range(0, rows, TILE_ROWS):
        end = min(start + TILE_ROWS, rows)
        for j in range(columns - 1, -1, -1):
            target, weight = targets[j, start:end], weights[j, start:end]
            code, error = codes[j, start:end], errors[j, start:end]
            rows_of, inverse_of = row_scale[start:end], inverse_row[start:end]
            step, inverse = column_scale[j], inverse_column[j]
            if feeds:
                feed_back(target, errors, feedback, j, start)
            for i in range(end - start):
                value = min(max(np.rint(target[i] * (inverse * inverse_of[i])), -limit), limit)
                code[i] = np.int16(value)
                error[i] = weight[i] - value * (step * rows_of[i])


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def feed_back(target, errors, feedback, column, start):
    """Add to the targets of a column what the errors of later columns of its block feed back to it.

    target: float32, those of the rows from `start` on. errors, feedback: as `round_block` has them. Four columns are
    added at a time, so that a target is loaded and stored once for four products.
    """
    later, end = len(errors) - 1, start + target.size
    while later - 3 > column:
        f0, f1, f2, f3 = (
            feedback[later, column],
            feedback[later - 1, column],
            feedback[later - 2, column],
            feedback[later - 3, column],
        )
        e0, e1 = errors[later, start:end], errors[later - 1, start:end]
        e2, e3 = errors[later - 2, start:end], errors[later - 3, start:end]
        for i in range(target.size):
            target[i] = target[i] + f0 * e0[i] + f1 * e1[i] + f2 * e2[i] + f3 * e3[i]
        later -= 4
    while later > column:
        factor, error = feedback[later, column], errors[later, start:end]
        for i in range(target.size):
            target[i] += factor * error[i]
        later -= 1
