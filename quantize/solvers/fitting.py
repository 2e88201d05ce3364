"""The search for the finest steps whose stream fits in a budget of bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from quantize.solvers.als import solve_als
from quantize.solvers.feedback import (
    FeedbackSolution,
    InputFactor,
    Moments,
    rescale_rows,
    resolved_importance,
    solve_resolved,
)
from quantize.solvers.rate import RowSample, draw_sample, estimate_rate, expected_log2_constant
from submission.model.codecs.affine import AffineSolution

TOLERANCE = 5e-4
"""Part of the budget that may be left unused."""
NARROWEST_OCTAVES = 2.0**-12
"""Distance of a fitting from a failing constant at which the search ends."""
MOST_OCTAVES = 40.0
"""Distance from the start at which a budget counts as impossible."""
FILL_OCTAVES = 1 / 16
"""By how much the steps of some rows may differ from those of the others, so that the budget is used up."""
FILL_ROWS, FILL_TURNS = 256, 3
"""A multiple of which these rows are where no trellis says where they end; how often they are solved again."""
START_ROWS = 128
"""Rows from which a search's start is estimated; weights of less than twice as many are solved as they are."""
START_OCTAVES = (-1.0, 0.0, 1.0)
"""Constants, relative to the expected one, at which these rows are solved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedSolution:
    """A solution whose stream fits in its budget."""

    solution: FeedbackSolution
    constant: float
    size_bytes: int


def fit_constant(
    size_at: Callable[[float], int],
    budget_bytes: int,
    start: float,
    *,
    slope_bytes: float,
    tolerance: float = TOLERANCE,
) -> float:
    """Return the smallest constant found whose size is within budget_bytes; deterministic, 3 to 4 sizes as a rule.

    size_at: constant -> bytes, falling as the constant grows. start: a guess. slope_bytes: bytes by which the size is
    expected to fall in an octave of the constant (an eighth of the number of weights). Ends at a size within
    `tolerance` of the budget, as a part of it, or when 1/4096 of an octave lies between fitting and not fitting.
    Secant method on the constant's logarithm, halving where that would leave the bracket or is slow. Raises ValueError
    where no constant within 40 octaves of the start fits.
    """
    wanted = budget_bytes * (1 - tolerance / 2)
    origin = math.log2(start)
    position, slope = origin, -float(slope_bytes)
    fails, fits = -math.inf, math.inf
    before: tuple[float, int] | None = None
    for turn in range(200):
        size = size_at(math.exp2(position))
        if budget_bytes * (1 - tolerance) <= size <= budget_bytes:
            return math.exp2(position)
        if size <= budget_bytes:
            fits = min(fits, position)
        else:
            fails = max(fails, position)
        if fits - fails <= NARROWEST_OCTAVES:
            return math.exp2(fits)
        if abs(position - origin) > MOST_OCTAVES:
            break
        if before is not None and size != before[1] and position != before[0]:
            slope = min((size - before[1]) / (position - before[0]), -slope_bytes / 64)
        before = position, size
        position = _next_position(position + (wanted - size) / slope, position, fails, fits, halve=turn % 4 == 3)
    if fits < math.inf:
        return math.exp2(fits)
    raise ValueError(
        f"no constant gives {budget_bytes} bytes: {size} bytes at {math.exp2(position):g}; allot more bytes"
    )


def _next_position(proposed: float, last: float, fails: float, fits: float, *, halve: bool) -> float:
    """Return the next position to try: the secant's, or the middle of the bracket where that is better."""
    if math.isfinite(fails) and math.isfinite(fits):
        return proposed if fails < proposed < fits and not halve else (fails + fits) / 2
    move = min(max(proposed - last, -4.0), 4.0)
    least = 2.0**-6 if halve else 2.0**-10
    return last + math.copysign(max(abs(move), least), 1.0 if fits == math.inf else -1.0)


def solve_within(
    weight: torch.Tensor,
    factor: InputFactor,
    importance: torch.Tensor | None,
    size_of: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], int],
    budget_bytes: int,
    start: float,
    *,
    restarts: Sequence[int] = (),
    tolerance: float = TOLERANCE,
) -> FittedSolution:
    """Return the solution of the smallest constant found whose stream fits in budget_bytes.

    size_of: codes int16 [rows, columns], row_scale float16 [rows], column_scale float16 [columns] -> bytes. start: the
    constant that the allocation gives. restarts: as `solve_feedback` takes them. Raises ValueError where no constant
    fits.
    """
    resolved = resolved_importance(weight, factor, importance)
    window = math.ceil(budget_bytes * (1 - tolerance)), budget_bytes
    best: FittedSolution | None = None

    def measured(solution: FeedbackSolution) -> int:
        return size_of(solution.codes, solution.row_scale, solution.column_scale)

    def size_at(constant: float) -> int:
        nonlocal best
        solution, size = fill_window(
            weight, factor, solve_resolved(weight, factor, resolved, constant, restarts), restarts, measured, window
        )
        if size <= budget_bytes and (best is None or constant < best.constant):
            best = FittedSolution(solution=solution, constant=constant, size_bytes=size)
        return size

    fit_constant(size_at, budget_bytes, start, slope_bytes=weight.numel() / 8, tolerance=tolerance)
    assert best is not None, "a search ends with a size that fits"
    return best


def fill_window(
    weight: torch.Tensor,
    factor: InputFactor,
    solution: FeedbackSolution,
    restarts: Sequence[int],
    measured: Callable[[FeedbackSolution], int],
    window: tuple[int, int],
) -> tuple[FeedbackSolution, int]:
    """Return a solution and its size, which is brought into a window of bytes where few rows are enough for it.

    The first rows are solved again with steps that are up to 1/16 of an octave larger or smaller: that takes a part of
    the time of solving all of them with steps that are nearly the same, and at steps that differ so little the loss is
    .04 % larger. A solution that is too far from the window is returned as it is.
    """
    size, wanted = measured(solution), sum(window) / 2
    rows = len(weight)
    slope = weight.numel() / 8 / rows  # bytes of a row in an octave
    ends = [*restarts[1:], rows] if restarts else range(FILL_ROWS, rows, FILL_ROWS)
    end = next((end for end in ends if abs(size - wanted) <= FILL_OCTAVES * slope * end), rows)
    if 2 * end > rows:
        return solution, size
    part, octaves = slice(0, end), 0.0
    for _ in range(FILL_TURNS):
        if window[0] <= size <= window[1]:
            break
        more = (size - wanted) / (slope * end)
        if abs(octaves + more) > 2 * FILL_OCTAVES:
            break
        solution = rescale_rows(weight, factor, solution, restarts, part, 2.0**more)
        before, size, octaves = size, measured(solution), octaves + more
        slope = min(max((before - size) / (more * end), slope / 4), 2 * slope)
    return solution, size


def solve_entropy(
    weight: torch.Tensor,
    size_of: Callable[[torch.Tensor], int],
    budget_bytes: int,
    restarts: Sequence[int] = (),
    *,
    moments: Moments,
) -> FeedbackSolution:
    """Return codes and scales whose stream fits in budget_bytes: the interface `entropy` of the solver `feedback`.

    moments: of this weight. Without a second moment nothing is fed back and columns count alike; without importance
    rows count alike. The search begins where a sample of rows, solved at three constants, says that the budget is met.
    """
    weight = weight.cpu()
    factor, importance = moments.read_factor(weight.shape[1]), moments.importance
    sample = draw_sample(weight, factor, importance, count=START_ROWS)
    start = _sampled_start(sample, factor, budget_bytes, trellis=bool(restarts))
    found = solve_within(
        weight, factor, importance, lambda codes, *_: size_of(codes), budget_bytes, 2.0**start, restarts=restarts
    )
    return found.solution


def _sampled_start(sample: RowSample, factor: InputFactor, budget_bytes: int, *, trellis: bool) -> float:
    """Return log2 of the constant at which a sample of rows says that the stream has about budget_bytes."""
    rows, columns = sample.shape
    expected = expected_log2_constant(sample, factor, 8 * budget_bytes / max(rows * columns, 1), trellis=trellis)
    if rows <= 2 * START_ROWS:
        return expected
    curve = estimate_rate(sample, factor, expected, trellis=trellis, octaves=START_OCTAVES)
    constants, sizes = curve.log2_constants, curve.size_bytes
    stream = [size - 2 * (rows + columns) for size in sizes]  # the scales are stored beside the stream
    return float(np.interp(-budget_bytes, [-size for size in stream], constants))


def solve_affine(weight: torch.Tensor, bits: int, group_size: int, moments: Moments) -> AffineSolution:
    """Return the least-squares solution; moments are not used: the weights that stay affine are small."""
    return solve_als(weight, bits, group_size)
