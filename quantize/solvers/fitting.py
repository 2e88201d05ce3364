"""The search for the finest steps whose stream fits in a budget of bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from quantize.solvers.als import solve_als
from quantize.solvers.feedback import (
    FeedbackSolution,
    InputFactor,
    Moments,
    resolved_importance,
    solve_resolved,
)
from quantize.solvers.rate import estimate_rate, expected_log2_constant
from submission.model.codecs.affine import AffineSolution

TOLERANCE = 5e-4
"""Part of the budget that may be left unused."""
NARROWEST_OCTAVES = 2.0**-12
"""Distance of a fitting from a failing constant at which the search ends."""
MOST_OCTAVES = 40.0
"""Distance from the start at which a budget counts as impossible."""
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
    solves: int
    """How many times the weight was solved."""


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
    tolerance: float = TOLERANCE,
) -> FittedSolution:
    """Return the solution of the smallest constant found whose stream fits in budget_bytes.

    size_of: codes int16 [rows, columns], row_scale float16 [rows], column_scale float16 [columns] -> bytes. start: the
    constant that the allocation gives. Raises ValueError where no constant fits.
    """
    resolved = resolved_importance(weight, factor, importance)
    solves = 0
    best: FittedSolution | None = None

    def size_at(constant: float) -> int:
        nonlocal solves, best
        solution = solve_resolved(weight, factor, resolved, constant)
        size = size_of(solution.codes, solution.row_scale, solution.column_scale)
        solves += 1
        if size <= budget_bytes and (best is None or constant < best.constant):
            best = FittedSolution(solution=solution, constant=constant, size_bytes=size, solves=solves)
        return size

    fit_constant(size_at, budget_bytes, start, slope_bytes=weight.numel() / 8, tolerance=tolerance)
    assert best is not None, "a search ends with a size that fits"
    return FittedSolution(solution=best.solution, constant=best.constant, size_bytes=best.size_bytes, solves=solves)


def solve_entropy(
    weight: torch.Tensor, size_of: Callable[[torch.Tensor], int], budget_bytes: int, moments: Moments
) -> FeedbackSolution:
    """Return codes and scales whose stream fits in budget_bytes: the interface `entropy` of the solver `feedback`.

    moments: of this weight. Without a second moment nothing is fed back and columns count alike; without importance
    rows count alike. The search begins where a sample of rows, solved at three constants, says that the budget is met.
    """
    weight = weight.cpu()
    factor, importance = moments.read_factor(weight.shape[1]), moments.importance
    bits = 8 * budget_bytes / max(weight.numel(), 1)
    expected = expected_log2_constant(weight, factor, importance, bits)
    start = _sampled_start(weight, factor, importance, expected, budget_bytes)
    found = solve_within(weight, factor, importance, lambda codes, *_: size_of(codes), budget_bytes, 2.0**start)
    return found.solution


def _sampled_start(
    weight: torch.Tensor, factor: InputFactor, importance: torch.Tensor | None, expected: float, budget_bytes: int
) -> float:
    """Return log2 of the constant at which a sample of rows says that the stream has about budget_bytes."""
    if len(weight) <= 2 * START_ROWS:
        return expected
    curve = estimate_rate(weight, factor, importance, expected, octaves=START_OCTAVES, sampled_rows=START_ROWS)
    constants, sizes = curve.log2_constants, curve.size_bytes
    stream = [size - 2 * sum(weight.shape) for size in sizes]  # the scales are stored beside the stream
    return float(np.interp(-budget_bytes, [-size for size in stream], constants))


def solve_affine(weight: torch.Tensor, bits: int, group_size: int, moments: Moments) -> AffineSolution:
    """Return the least-squares solution; moments are not used: the weights that stay affine are small."""
    return solve_als(weight, bits, group_size)
