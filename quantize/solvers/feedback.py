"""Error feedback: integer codes of a weight that lose little of the model's likelihood for their entropy.

For a weight [rows, columns], the second moment H = E[x x^T] of its inputs and the second moment g [rows] of the
gradient at its outputs, an error E costs the likelihood 1/2 sum_i g_i (E H E^T)_ii nats per target token, to second
order. With H = L L^T, L lower triangular, that is a sum of squares, one for each weight:

    1/2 sum_ij g_i l_jj^2 (e_ij + sum_{k > j} e_ik L_kj / l_jj)^2

So columns are rounded from the last to the first. Each takes as its target the weight plus what the errors of later
columns feed back to it, and only the distance of the code from that target counts. This is the order and the arithmetic
of successive cancellation (GPTQ, Frantar et al. 2023, is the same recursion with fixed-width codes). Where codes are
entropy-coded, every square should cost the same at the optimum (reverse water-filling, Cover and Thomas, section 10.3):

    step_ij = c / (l_jj sqrt(g_i))

with one constant c for all tensors of the model. Its factors are what is stored: a scale for each row and one for each
column, float16, rounded before codes are chosen, so that what is stored is what is used.

With a trellis the codes of a column are chosen together (`trellis_kernels.py`), and their errors fed back then. Steps
are finer there by the factor at which the error is the same as without at a high rate: one constant serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from quantize.solvers.blocks import BLOCK_ELEMENTS, all_finite, each_alone
from quantize.solvers.feedback_kernels import round_block
from quantize.solvers.trellis_kernels import interleave, round_trellis

DAMPING = 0.01
"""Part of the mean diagonal of H that is added to its diagonal."""
IMPORTANCE_FLOOR = 0.05
"""Part of the mean importance of rows below which none is taken to be."""
BLOCK_COLUMNS = 64
"""Columns that are rounded between two products with errors of later columns."""
PANEL_COLUMNS = 256
"""Columns that take up the errors of all later ones in one product: with 64 it runs at 60 % of that speed."""
SOLVED_ROWS, SOLVED_ELEMENTS = 2048, 1 << 23
"""Rows that a core solves at a time, at most, or as many as have so many weights, where those are more."""
CHUNK_ELEMENTS = 1 << 25
"""Weights of which squares are summed at a time, in whole rows: 128 MiB in float32."""
CODE_LIMIT = 32767
"""Largest magnitude of a code, int16."""
TRELLIS_LIMIT = CODE_LIMIT - 7
"""Largest magnitude of what codes of a trellis are chosen for: they may lie 4 beyond it, and count as at the limit."""
TRELLIS_STEP = 0.566
"""Step with a trellis over that without at the same error, at high rates: the root of 1 / 12 / .26."""
LEAST_POWER = 1e-8
"""Mean square of the codes of a row, in steps, below which none is taken to be."""
_HALF_LEAST, _HALF_MOST = 2.0**-14, 65504.0
"""Range of normal float16 numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFactor:
    """The Cholesky factor of a damped second moment H, as error feedback uses it."""

    diagonal: torch.Tensor
    """float64 [columns], l_jj > 0."""
    feedback: torch.Tensor | None
    """float32 [columns, columns], L with each column divided by its l_jj; None where H is diagonal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """What a calibration measured of one weight [rows, columns]; both None: nothing, the weight alone is known."""

    second_moment: torch.Tensor | Callable[[], torch.Tensor] | None = None
    """Float [columns, columns] of the inputs, or a function that reads it: it may take 485 MB."""
    importance: torch.Tensor | None = None
    """Float [rows]: second moment of the gradient at the outputs."""
    stored_factor: Callable[[], InputFactor] | None = None
    """Reads the factor of the second moment, which then takes that one's place."""

    stored_diagonal: Callable[[], torch.Tensor] | None = None
    """Reads the diagonal of that factor alone."""

    def read_second_moment(self) -> torch.Tensor | None:
        """Return the second moment, read where it is on disk; None for a weight without."""
        return self.second_moment() if callable(self.second_moment) else self.second_moment

    def read_factor(self, columns: int) -> InputFactor:
        """Return the factor of the second moment of so many columns, read where a calibration has stored it."""
        return factorize(self.read_second_moment(), columns) if self.stored_factor is None else self.stored_factor()

    def read_diagonal(self, columns: int) -> torch.Tensor:
        """Return the diagonal of that factor, float64 [columns]; at 11008 columns its other numbers take 242 MB."""
        return self.read_factor(columns).diagonal if self.stored_diagonal is None else self.stored_diagonal()


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackSolution:
    """A weight [rows, columns] as codes * row_scale * column_scale."""

    codes: torch.Tensor
    """int16 [rows, columns]."""
    row_scale: torch.Tensor
    """float16 [rows]."""
    column_scale: torch.Tensor
    """float16 [columns]."""
    clamped_scales: int
    """Scales that lay outside of float16's normal range and were clipped to its nearest end."""

    def decode(self) -> torch.Tensor:
        """Return the weight that the codes stand for, float32 [rows, columns]."""
        step = self.row_scale.float()[:, None] * self.column_scale.float()
        return step.mul_(self.codes)


def factorize(second_moment: torch.Tensor | None, columns: int, *, damping: float = DAMPING) -> InputFactor:
    """Return the factor of a second moment, float [columns, columns]; of the identity where it is None or all zero.

    The Cholesky factorization is float64 and in place: at 11008 columns it takes 1.4 GiB besides the moment. Raises
    ValueError for a moment that is not finite, has another shape, or is not positive semidefinite.
    """
    if second_moment is None:
        return InputFactor(diagonal=torch.ones(columns, dtype=torch.float64), feedback=None)
    if second_moment.shape != (columns, columns):
        raise ValueError(f"second moment is {list(second_moment.shape)}, expected [{columns}, {columns}]")
    mean = float(second_moment.diagonal().double().mean())
    if not np.isfinite(mean) or mean < 0:
        raise ValueError(f"second moment has a mean diagonal of {mean}: calibrate again")
    if mean == 0:
        return InputFactor(diagonal=torch.ones(columns, dtype=torch.float64), feedback=None)
    damped = second_moment.to(torch.float64, copy=True)
    damped.diagonal().add_(damping * mean)
    failed = torch.empty((), dtype=torch.int32, device=damped.device)
    lower, failed = torch.linalg.cholesky_ex(damped, out=(damped, failed))
    if int(failed):
        raise ValueError(f"second moment is not positive definite at column {int(failed) - 1}: calibrate again")
    diagonal = lower.diagonal().clone()
    lower.div_(diagonal)
    return InputFactor(diagonal=diagonal, feedback=lower.float())


def floored_importance(importance: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the importance of rows, float64 [rows], none below 5 % of the mean; ones where all of it is zero."""
    if importance.shape != (rows,):
        raise ValueError(f"importance is {list(importance.shape)}, expected [{rows}]")
    values = importance.double()
    mean = float(values.mean())
    if not np.isfinite(mean) or float(values.min()) < 0:
        raise ValueError("importance holds a number that is negative or not finite: calibrate again")
    return values.clamp_min(IMPORTANCE_FLOOR * mean) if mean > 0 else torch.ones_like(values)


def equal_rate_importance(weight: torch.Tensor, factor: InputFactor) -> torch.Tensor:
    """Return the importance, float64 [rows], that gives every tensor about the same bits at the same constant.

    For models without a backward pass. The unit of the constant is then the weight's root mean square.
    """
    power = float(mean_squares(weight).mean())
    shape = float(factor.diagonal.log().mean().exp())
    return torch.full((weight.shape[0],), 1 / (power * shape**2) if power > 0 else 1.0, dtype=torch.float64)


def mean_squares(weight: torch.Tensor) -> torch.Tensor:
    """Return the mean square of each row of a weight, float64 [rows], with a block of rows in float32 at a time."""
    columns = max(weight.shape[1], 1)

    def of_chunk(chunk: torch.Tensor) -> torch.Tensor:
        blocks = chunk.split(max(1, BLOCK_ELEMENTS // columns))
        return torch.cat([rows.float().square().mean(dim=1, dtype=torch.float64) for rows in blocks])

    return torch.cat(each_alone(of_chunk, weight.split(max(1, CHUNK_ELEMENTS // columns))))


def scales(factor: InputFactor, importance: torch.Tensor, constant: float) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return row scale and column scale, float16, and how many were clamped; their product is c / (l_jj sqrt(g_i)).

    A power of two is moved between them, so that the middles of their ranges in octaves agree: the 5 % floor and the
    damping bound each range to a few hundred in practice, which float16 then holds.
    """
    rows = importance.double().clamp_min(1e-300).rsqrt()
    columns = constant / factor.diagonal
    middles = [float(values.aminmax().min.log2() + values.aminmax().max.log2()) / 2 for values in (rows, columns)]
    shift = 2.0 ** round((middles[0] - middles[1]) / 2)
    clamped, stored = 0, []
    for values in (rows / shift, columns * shift):
        clamped += int(((values < _HALF_LEAST) | (values > _HALF_MOST)).sum())
        stored.append(values.clamp(_HALF_LEAST, _HALF_MOST).half())
    return stored[0], stored[1], clamped


def solve_feedback(
    weight: torch.Tensor,
    factor: InputFactor,
    importance: torch.Tensor | None,
    constant: float,
    restarts: Sequence[int] = (),
) -> FeedbackSolution:
    """Return codes and scales of a weight, float [rows, columns] on the CPU, at a constant c (square root of nats).

    importance: [rows], the second moment of the gradient at the outputs; floored here. None: one rate for every tensor
    where the factor has feedback, one step c for every weight where it has none. restarts: rows, ascending from 0, in
    which the trellis of every column begins; empty: without a trellis. The same arguments give the same codes on one
    machine and number of threads. Where a code would not fit in int16, its column's scale is doubled and the
    weight solved again. Raises ValueError for a weight that is not finite.
    """
    return solve_resolved(weight, factor, resolved_importance(weight, factor, importance), constant, restarts)


def solve_resolved(
    weight: torch.Tensor, factor: InputFactor, importance: torch.Tensor, constant: float, restarts: Sequence[int] = ()
) -> FeedbackSolution:
    """Return what `solve_feedback` does for an importance that is taken as it is, float64 [rows], positive."""
    rows, columns = weight.shape
    if not all_finite(weight):
        bad = int((~torch.isfinite(weight)).any(dim=1).int().argmax())
        raise ValueError(f"row {bad} holds a number that is not finite; fetch or train it again")
    row_scale, column_scale, clamped = scales(factor, importance, constant * (TRELLIS_STEP if restarts else 1))
    codes = torch.empty((rows, columns), dtype=torch.int16)
    while True:
        coarsened = _solve_chunks(weight, factor, row_scale, column_scale, restarts, slice(0, rows), codes)
        if torch.equal(coarsened, column_scale):
            break
        column_scale = coarsened
    return FeedbackSolution(codes=codes, row_scale=row_scale, column_scale=column_scale, clamped_scales=clamped)


def rescale_rows(
    weight: torch.Tensor,
    factor: InputFactor,
    solution: FeedbackSolution,
    restarts: Sequence[int],
    rows: slice,
    ratio: float,
) -> FeedbackSolution:
    """Return a solution in which some rows are solved again with steps of so many times the size.

    Its codes are the solution's own, changed in place: a second copy of those of an embedding takes 1.3 GB. With
    restarts the rows begin and end at some. A code beyond int16 stays at its limit.
    """
    row_scale = solution.row_scale.clone()
    row_scale[rows] = (row_scale[rows].float() * ratio).clamp(_HALF_LEAST, _HALF_MOST).half()
    _solve_chunks(weight, factor, row_scale, solution.column_scale, restarts, rows, solution.codes)
    return replace(solution, row_scale=row_scale)


def _solve_chunks(
    weight: torch.Tensor,
    factor: InputFactor,
    row_scale: torch.Tensor,
    column_scale: torch.Tensor,
    restarts: Sequence[int],
    rows: slice,
    codes: torch.Tensor,
) -> torch.Tensor:
    """Fill the codes of some rows; return the column scale, doubled where a code is at its limit and float16 holds it.

    Chunks of rows are shared among threads, each of them solved by one: so codes do not depend on their number.
    """
    limit, beyond = TRELLIS_LIMIT if restarts else CODE_LIMIT, torch.zeros(len(column_scale), dtype=torch.bool)

    def solve(part: slice) -> torch.Tensor:
        within = [row - part.start for row in restarts if part.start <= row < part.stop]
        solved = _solve_rows(weight[part], factor, row_scale[part], column_scale, within)
        codes[part] = solved
        return (solved.abs() >= limit).any(dim=0)

    for found in each_alone(solve, chunks_of(rows, restarts, weight.shape[1])):
        beyond |= found
    room = column_scale.float() * 2 <= _HALF_MOST
    return torch.where(beyond & room, column_scale * 2, column_scale)


def chunks_of(rows: slice, restarts: Sequence[int], columns: int) -> list[slice]:
    """Return the chunks in which rows are solved; with restarts each ends where a trellis begins again."""
    step = max(SOLVED_ROWS, SOLVED_ELEMENTS // max(columns, 1))
    chunks, start = [], rows.start
    while start < rows.stop:
        end = _chunk_end(start, start + step, rows.stop, restarts)
        chunks.append(slice(start, end))
        start = end
    return chunks


def _chunk_end(start: int, most: int, rows: int, restarts: Sequence[int]) -> int:
    """Return where a chunk of rows ends: at `most`, or where a trellis begins again, the last time before that."""
    if not restarts:
        return min(most, rows)
    ends = [row for row in (*restarts, rows) if start < row <= rows]
    return max((row for row in ends if row <= most), default=ends[0])


def resolved_importance(weight: torch.Tensor, factor: InputFactor, importance: torch.Tensor | None) -> torch.Tensor:
    """Return the importance that steps are taken from, float64 [rows], as `solve_feedback` documents it."""
    if importance is not None:
        return floored_importance(importance, len(weight))
    if factor.feedback is not None:
        return equal_rate_importance(weight, factor)
    return torch.ones(len(weight), dtype=torch.float64)


def _solve_rows(
    weight: torch.Tensor,
    factor: InputFactor,
    row_scale: torch.Tensor,
    column_scale: torch.Tensor,
    restarts: Sequence[int],
) -> torch.Tensor:
    """Return the codes of some rows, int16 [rows, columns]; restarts: among these rows."""
    rows, columns = weight.shape
    order = groups = None
    if restarts:
        order, groups = (torch.from_numpy(found) for found in interleave(restarts, rows))
        weight, row_scale = weight[order], row_scale[order]
    weights = weight.detach().float().t().contiguous()
    errors = torch.empty_like(weights) if factor.feedback is not None else torch.empty((BLOCK_COLUMNS, rows))
    codes = np.empty((columns, rows), dtype=np.int16)
    per_row, per_column = row_scale.float().numpy(), column_scale.float().numpy()
    inverse_row, inverse_column = np.float32(1) / per_row, np.float32(1) / per_column
    power = _row_powers(weights, per_row, per_column) if restarts else None
    for block, targets, within in _blocks(weights, errors, factor):
        out = (errors[block] if factor.feedback is not None else errors[: len(targets)]).numpy()
        steps = per_column[block], inverse_column[block], per_row, inverse_row
        known = targets.numpy(), weights[block].numpy(), within.numpy(), *steps
        if power is None or groups is None:
            round_block(*known, np.float32(CODE_LIMIT), codes[block], out)
        else:
            round_trellis(*known, power, np.float32(TRELLIS_LIMIT), groups.numpy(), codes[block], out)
    solved = torch.from_numpy(codes).t()
    return solved if order is None else solved.contiguous()[order.argsort()]


def _blocks(
    weights: torch.Tensor, errors: torch.Tensor, factor: InputFactor
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield blocks of columns, the last first, with their targets but for what they feed back, and that part of L.

    weights [columns, rows]; errors: read behind each block, where the caller has filled them in.
    """
    for last in range(len(weights), 0, -PANEL_COLUMNS):
        first = max(0, last - PANEL_COLUMNS)
        panel = weights[first:last].clone()
        if factor.feedback is not None and last < len(weights):
            panel.addmm_(factor.feedback[last:, first:last].t(), errors[last:])
        for end in range(last, first, -BLOCK_COLUMNS):
            block = slice(max(first, end - BLOCK_COLUMNS), end)
            targets = panel[block.start - first : end - first]
            if factor.feedback is None:
                yield block, targets, torch.empty((0, 0))
                continue
            if end < last:
                targets.addmm_(factor.feedback[end:last, block].t(), errors[end:last])
            yield block, targets, factor.feedback[block, block].contiguous()


def _row_powers(weights: torch.Tensor, row_scale: np.ndarray, column_scale: np.ndarray) -> np.ndarray:
    """Return the mean square of each row in steps, float32 [rows], of weights [columns, rows] as they are."""
    power = torch.zeros(weights.shape[1])
    for block, scale in zip(
        weights.split(BLOCK_COLUMNS), torch.from_numpy(column_scale).split(BLOCK_COLUMNS), strict=True
    ):
        power += (block / scale[:, None]).square_().sum(dim=0)
    mean: np.ndarray = (power / (len(weights) * torch.from_numpy(row_scale).square())).clamp_min(LEAST_POWER).numpy()
    return mean


def predicted_loss(
    weight: torch.Tensor, decoded: torch.Tensor, second_moment: torch.Tensor, importance: torch.Tensor
) -> float:
    """Return 1/2 sum_i g_i (E H E^T)_ii in nats per target token, for E = weight - decoded, [rows, columns].

    The second-order term alone: on a real model the measured loss is 1.5 times (3.8 bits) to 2 times (2 bits) this.
    """
    total = 0.0
    chunk = max(1, CHUNK_ELEMENTS // max(weight.shape[1], 1))
    for start in range(0, len(weight), chunk):
        part = slice(start, start + chunk)
        error = weight[part].float() - decoded[part].float()
        rows = (error @ second_moment.float()).mul_(error).sum(dim=1, dtype=torch.float64)
        total += 0.5 * float(rows @ importance[part].double())
    return total
