"""Run the inner loops of hqq and of alternating least squares, compiled: a group stays in a core's cache until solved.

hqq alternates two steps. Codes: the nearest to `w * steps + zero`, where `steps` (codes per unit of weight) is the
inverse of the scale. Zero-point: the mean of `codes - (w - shrink(e)) * steps`, where e is the error of the weight
that the codes stand for, and shrink(e) is `|e| - |e| ** (p - 1) / beta` with e's sign, or nothing where that is
negative. Two facts make the loop short, and neither changes the result:

* shrink(e) is nothing up to |e| = beta ** (1 / (p - 2)) = 0.170. Weights of ordinary scale never come near it; then
  the new zero-point is mean(codes) - mean(w) * steps, and one pass over the group has all that an iteration needs.
  A power is taken of the few errors beyond only.
* the new zero-point follows from the old one. Where they are equal the group is solved (at 4 bits in groups of 128
  after 5.7 iterations on average), and what is left of the 20 would repeat the last.

Loops are written so that LLVM turns them into vector instructions: sums may be taken in any order (`reassoc`), minima
and maxima are those of integers, conditions become counts. Codes never depend on that: `w * steps + zero` is computed
as hqq computes it, multiplication and addition each rounded (no `contract`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

LP_NORM = np.float32(0.7)
BETA = np.float32(10)
INERT = np.float32(0.17)
"""An error up to which hqq's shrinkage is nothing: just below BETA ** (1 / (LP_NORM - 2)) = 0.1701."""
FLAT = np.float32(1e-4)
"""A group whose weights span no more than this takes steps of 1, as hqq has it."""
MOST_STEPS = np.float32(2e4)
"""hqq's bound on codes per unit of weight, so that the scale fits in float16."""
REFITS = 100
"""Bound on the regressions of alternating least squares from one start."""
STARTS = (1.0, 0.95, 0.9, 0.8, 0.7)
"""Parts of hqq's scale from which alternating least squares begins."""

_ZERO = np.float32(0)
_SIGN_OFF = np.int32(0x7FFFFFFF)
_INFINITY = np.int32(0x7F800000)


@njit(nogil=True, error_model="numpy")
def _ordered(pattern):
    """Return the int32 that orders as a float32 does, from the float's bits; and the bits from that int32."""
    return pattern ^ ((pattern >> np.int32(31)) & _SIGN_OFF)


@njit(nogil=True, error_model="numpy")
def _bounds(patterns):
    """Return lowest and highest of the floats with these bits, and whether all of them are finite."""
    low, high = _SIGN_OFF, ~_SIGN_OFF
    for i in range(patterns.size):
        key = _ordered(patterns[i])
        low, high = min(low, key), max(high, key)
    finite = low > ~_INFINITY and high < _INFINITY
    return np.int32(_ordered(low)).view(np.float32), np.int32(_ordered(high)).view(np.float32), finite


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def _sum(group):
    total = 0.0
    for i in range(group.size):
        total += group[i]
    return total


@njit(nogil=True, error_model="numpy")
def _code(weight, steps, zero, top):
    return min(max(np.rint(weight * steps + zero), _ZERO), top)


@njit(nogil=True, error_model="numpy")
def _write_codes(group, steps, zero, top, codes):
    for i in range(group.size):
        codes[i] = np.uint8(_code(group[i], steps, zero, top))


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def _measure(group, steps, zero, top, inert):
    """Return of one rounding the sum of codes, that of absolute errors in codes, and how many exceed `inert`."""
    codes = errors = _ZERO
    beyond = np.int32(0)
    for i in range(group.size):
        exact = group[i] * steps + zero
        code = min(max(np.rint(exact), _ZERO), top)
        error = abs(exact - code)
        codes += code
        errors += error
        beyond += np.int32(error > inert)
    return codes, errors, beyond


@njit(nogil=True, error_model="numpy")
def _shrunk(group, steps, zero, top):
    """Return the sum of shrink(e) over a group."""
    total = 0.0
    for i in range(group.size):
        error = group[i] - (_code(group[i], steps, zero, top) - zero) / steps
        size = abs(error)
        if size > INERT:
            total += np.copysign(max(size - size ** (LP_NORM - np.float32(1)) / BETA, _ZERO), error)
    return total


@njit(nogil=True, error_model="numpy")
def solve_groups(weights, group_size, top, round_zero, limits, scale, zero, codes, taken, errors):
    """Fill scale, zero and codes by hqq's iteration; return the first row with a number that is not finite, or -1.

    weights: float32 [rows, columns]. scale, zero: float32 [rows, groups]. codes: uint8 [rows, columns], up to `top`.
    Pieces are two: 0 the whole groups, 1 the shorter last group of each row. limits: int64 [2], the updates of the
    zero-point that each piece may take. taken: uint8 [rows, groups], the updates after which a group stood still;
    groups that took no more than their limit are left as they are, so that a second call with lower limits solves
    again what went too far. errors: float64 [rows, 2, most updates], zeros; receives by how much the sum of absolute
    errors changed from one update to the next (the first from nothing).
    """
    rows, columns = weights.shape
    patterns = weights.view(np.int32)
    for row in range(rows):
        for group in range(scale.shape[1]):
            begin, end = group * group_size, min((group + 1) * group_size, columns)
            piece = 0 if end - begin == group_size else 1
            if taken[row, group] <= limits[piece]:
                continue
            values = weights[row, begin:end]
            low, high, finite = _bounds(patterns[row, begin:end])
            if not finite:
                return row
            span = high - low
            # Rounded twice, as torch divides a number by a tensor.
            steps = min(np.float32(1) / span * top, MOST_STEPS) if span > FLAT else np.float32(1)
            mean_steps = np.float64(steps) * _sum(values) / values.size
            current = np.rint(-low * steps) if round_zero else -low * steps
            before = 0.0
            taken[row, group] = limits[piece]
            for update in range(limits[piece]):
                total, error, beyond = _measure(values, steps, current, top, INERT * steps)
                error_sum = np.float64(error) / steps
                errors[row, piece, update] += error_sum - before
                before = error_sum
                target = np.float64(total) / values.size - mean_steps
                if beyond:
                    target += steps * _shrunk(values, steps, current, top) / values.size
                if np.float32(target) == current:
                    taken[row, group] = update
                    break
                current = np.float32(target)
            scale[row, group], zero[row, group] = np.float32(1) / steps, current
            _write_codes(values, steps, current, top, codes[row, begin:end])
    return -1


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def _moments(group, scale, zero, top):
    """Return of the nearest codes their sum, that of their squares, of codes times weights, and of squared errors."""
    steps = np.float32(1) / scale
    codes = squares = products = errors = 0.0
    for i in range(group.size):
        code = min(max(np.rint(group[i] * steps + zero), _ZERO), top)
        error = np.float64(group[i] - (code - zero) * scale)
        codes += code
        squares += np.float64(code) * code
        products += np.float64(code) * group[i]
        errors += error * error
    return codes, squares, products, errors


@njit(nogil=True, error_model="numpy")
def _refit(group, mean, scale, zero, top):
    """Return scale, zero-point and squared error after regressions of the weights on their codes, while that falls."""
    total, squares, products, error = _moments(group, scale, zero, top)
    for _ in range(REFITS):
        spread = squares - total * total / group.size
        slope = np.float32((products - total * mean) / spread) if spread > 0 else _ZERO
        if not slope * MOST_STEPS >= 1:
            break
        origin = np.float32(total / group.size - mean / slope)
        moments = _moments(group, slope, origin, top)
        if not moments[3] < error:
            break
        scale, zero = slope, origin
        total, squares, products, error = moments
    return scale, zero, error


@njit(nogil=True, error_model="numpy")
def refit_groups(weights, group_size, top, scale, zero, codes):
    """Lower each group's squared error by alternating least squares, in place; weights and the rest as above.

    Given codes, scale and zero-point are those of the regression of the weights on the codes; given these, the codes
    are the nearest. That ends in the next local minimum, so it is begun from several scales around the middle code,
    the one that is there first. No scale falls below hqq's bound.
    """
    rows, columns = weights.shape
    middle = top / 2
    for row in range(rows):
        for group in range(scale.shape[1]):
            begin, end = group * group_size, min((group + 1) * group_size, columns)
            values = weights[row, begin:end]
            mean = _sum(values) / values.size
            given, origin = scale[row, group], zero[row, group]
            best = _moments(values, given, origin, top)[3]
            for start in STARTS:
                narrow = np.float32(given * start)
                found = _refit(values, mean, narrow, np.float32(middle - (middle - origin) / start), top)
                if found[2] < best and found[0] * MOST_STEPS >= 1:
                    scale[row, group], zero[row, group], best = found
            _write_codes(values, np.float32(1) / scale[row, group], zero[row, group], top, codes[row, begin:end])
