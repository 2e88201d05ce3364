"""The inner loop of error feedback with a trellis, compiled: the Viterbi algorithm down each column.

Codes of a column follow the state machine of `submission/model/codecs/entropy/trellis.py`. The path is found whose
codes lie nearest to the targets, after these are shrunk by

    1 / (1 + SHRINKAGE / variance)

with the variance of a target in squared steps. That is the entropy constraint of Fischer and Wang (1992) in closed
form: where targets are normal, a code v costs v^2 / (2 ln 2 variance) bits beyond a constant, a bit is worth 2 ln 2
times the error of a code, and the sum of squares (t - v)^2 + SHRINKAGE / variance * v^2 is least where v is nearest to
the shrunk t. At 2 bits it takes .3 dB off the error at the same entropy, at 3 bits .08, at 1 bit 1.3 (normal numbers).

Arrays are [columns, rows], as in `feedback_kernels.py`. Every stretch of rows between two restarts is solved by itself,
so that up to 16 stretches of one length are searched at once, as lanes of vector instructions: their rows lie beside
each other, row i of lane s at i * lanes + s (`interleave`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from quantize.solvers.feedback_kernels import feed_back

SHRINKAGE = 0.3
"""Error of a code in squared steps, about: .26 at high rates, more at low ones."""
LANES = 16
"""Stretches that are searched at once; where there are fewer, the other lanes are empty. With 8 the compiler makes no
vector instructions."""
_FAR = np.float32(1e30)


def interleave(restarts: Sequence[int], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the order in which rows are solved, int64 [rows], and its groups of stretches, int64 [groups, 3].

    restarts: ascending, the first of them 0: rows in which stretches begin. A group is where it begins in the order,
    the rows of one of its stretches, and the number of these.
    """
    by_length: dict[int, list[int]] = {}
    for start, end in zip(restarts, [*restarts[1:], rows], strict=True):
        by_length.setdefault(end - start, []).append(start)
    order, groups, first = [], [], 0
    for length, starts in by_length.items():
        for at in range(0, len(starts), LANES):
            together = np.array(starts[at : at + LANES])
            order.append((np.arange(length)[:, None] + together).reshape(-1))
            groups.append((first, length, len(together)))
            first += length * len(together)
    return np.concatenate(order), np.array(groups, dtype=np.int64)


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def round_trellis(
    targets,
    weights,
    feedback,
    column_scale,
    inverse_column,
    row_scale,
    inverse_row,
    power,
    limit,
    groups,
    codes,
    errors,
):
    """Fill codes and errors of a block of columns, last column first; targets are used up.

    As `feedback_kernels.round_block`, but for: power, float32 [rows], positive: by what rows differ in variance, in
    squared steps; groups: of the rows, as `interleave` gives them.
    """
    longest = np.max(groups[:, 1])
    values, powers = np.zeros((longest, LANES), np.float32), np.ones((longest, LANES), np.float32)
    decisions, subsets = np.empty((longest, LANES), np.int32), np.zeros((longest, LANES), np.int32)
    for g in range(len(groups)):
        first, length, lanes = groups[g]
        end = first + length * lanes
        values[:] = 0
        for i in range(length):
            for s in range(lanes):
                powers[i, s] = power[first + i * lanes + s]
        inverse_of, rows_of = inverse_row[first:end], row_scale[first:end]
        for j in range(len(targets) - 1, -1, -1):
            target, weight = targets[j, first:end], weights[j, first:end]
            code, error = codes[j, first:end], errors[j, first:end]
            step, inverse = column_scale[j], inverse_column[j]
            if feedback.size > 0:
                feed_back(target, errors, feedback, j, first)
            for i in range(target.size):
                target[i] = min(max(target[i] * (inverse * inverse_of[i]), -limit), limit)
            for i in range(length):
                for s in range(lanes):
                    values[i, s] = target[i * lanes + s]
            _shrink(values[:length], powers[:length])
            _search(values[:length], lanes, decisions, subsets)
            _nearest(values[:length], subsets)
            for i in range(length):
                for s in range(lanes):
                    code[i * lanes + s] = np.int16(values[i, s])
            for i in range(target.size):
                error[i] = weight[i] - np.float32(code[i]) * (step * rows_of[i])


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _shrink(values, power):
    """Multiply values [rows, lanes] by variance / (variance + SHRINKAGE); that is power times a factor for all rows."""
    rows, lanes = values.shape
    total = np.zeros(lanes)
    for i in range(rows):
        for s in range(lanes):
            total[s] += np.float64(values[i, s]) * values[i, s] / power[i, s]
    factor = (total / rows).astype(np.float32)
    for i in range(rows):
        for s in range(lanes):
            variance = factor[s] * power[i, s]
            values[i, s] *= variance / (variance + np.float32(SHRINKAGE))


@njit(nogil=True, error_model="numpy")
def _nearest(values, subsets):
    """Replace values [rows, lanes] by the nearest integers that are the subset's number modulo 4."""
    rows, lanes = values.shape
    for i in range(rows):
        for s in range(lanes):
            subset = np.float32(subsets[i, s])
            values[i, s] = np.rint((values[i, s] - subset) * np.float32(0.25)) * np.float32(4) + subset


@njit(nogil=True, error_model="numpy", inline="always")
def _choose(first, second, bit, decision):
    """Return the smaller of two costs and the decisions with that bit set where it is the second."""
    return min(first, second), decision | (bit if second < first else np.int32(0))


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _search(values, used, decisions, subsets):
    """Fill subsets, 0 … 3, with those of the paths that are nearest to values [rows, lanes] in squares.

    used: lanes that hold something, the first ones. decisions: int32 [rows, lanes], space. Bit n of one says which of
    its two predecessors the state n was reached from: the lower one, or 4 more.
    """
    rows, lanes = values.shape
    costs = np.full((8, lanes), _FAR)
    costs[0] = 0
    k0, k1, k2, k3, k4, k5, k6, k7 = (costs[0], costs[1], costs[2], costs[3], costs[4], costs[5], costs[6], costs[7])
    for i in range(rows):
        for s in range(lanes):
            c0, c1, c2, c3, c4, c5, c6, c7 = k0[s], k1[s], k2[s], k3[s], k4[s], k5[s], k6[s], k7[s]
            quarter = values[i, s] * np.float32(0.25)
            offset = (quarter - np.rint(quarter)) * np.float32(4)  # -2 … 2, from the nearest number in D0
            d0 = offset * offset
            d2 = (abs(offset) - np.float32(2)) ** 2
            d1 = (abs(offset + np.float32(1)) - np.float32(2)) ** 2
            d3 = (abs(offset - np.float32(1)) - np.float32(2)) ** 2
            chosen = np.int32(0)
            k0[s], chosen = _choose(c0 + d0, c4 + d2, np.int32(1), chosen)
            k1[s], chosen = _choose(c2 + d0, c6 + d2, np.int32(2), chosen)
            k2[s], chosen = _choose(c0 + d2, c4 + d0, np.int32(4), chosen)
            k3[s], chosen = _choose(c2 + d2, c6 + d0, np.int32(8), chosen)
            k4[s], chosen = _choose(c3 + d1, c7 + d3, np.int32(16), chosen)
            k5[s], chosen = _choose(c1 + d1, c5 + d3, np.int32(32), chosen)
            k6[s], chosen = _choose(c3 + d3, c7 + d1, np.int32(64), chosen)
            k7[s], chosen = _choose(c1 + d3, c5 + d1, np.int32(128), chosen)
            decisions[i, s] = chosen
    states = np.empty(used, np.int64)
    for s in range(used):
        states[s] = np.argmin(costs[:, s])
    for i in range(rows - 1, -1, -1):
        for s in range(used):
            # Predecessors of 0 … 7: 0, 2, 0, 2, 3, 1, 3, 1, in three bits each.
            state = states[s]
            before = (0o13132020 >> (3 * state)) & 7 | ((decisions[i, s] >> state) & 1) << 2
            odd = before & 1
            subsets[i, s] = odd | (((before >> 1) ^ (odd * 5) ^ state) >> 1) << 1
            states[s] = before
