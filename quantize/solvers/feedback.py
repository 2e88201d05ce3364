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
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from quantize.solvers.feedback_kernels import round_block

DAMPING = 0.01
"""Part of the mean diagonal of H that is added to its diagonal."""
IMPORTANCE_FLOOR = 0.05
"""Part of the mean importance of rows below which none is taken to be."""
BLOCK_COLUMNS = 64
"""Columns that are rounded between two products with the errors of all later columns."""
CHUNK_ELEMENTS = 1 << 25
"""Weights that are solved at a time, in whole rows: 128 MiB in each float32 array."""
CODE_LIMIT = 32767
"""Largest magnitude of a code, int16."""
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

    def read_second_moment(self) -> torch.Tensor | None:
        """Return the second moment, read where it is on disk; None for a weight without."""
        return self.second_moment() if callable(self.second_moment) else self.second_moment

    def read_factor(self, columns: int) -> InputFactor:
        """Return the factor of the second moment of so many columns, read where a calibration has stored it."""
        return factorize(self.read_second_moment(), columns) if self.stored_factor is None else self.stored_factor()


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
    """Return the mean square of each row of a weight, float64 [rows], with a chunk of rows in float32 at a time."""
    chunks = weight.split(max(1, CHUNK_ELEMENTS // max(weight.shape[1], 1)))
    return torch.cat([rows.float().square().mean(dim=1, dtype=torch.float64) for rows in chunks])


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
    weight: torch.Tensor, factor: InputFactor, importance: torch.Tensor | None, constant: float
) -> FeedbackSolution:
    """Return codes and scales of a weight, float [rows, columns] on the CPU, at a constant c (square root of nats).

    importance: [rows], the second moment of the gradient at the outputs; floored here. None: one rate for every tensor
    where the factor has feedback, one step c for every weight where it has none. The same arguments give the same codes
    on one machine and number of threads. Where a code would not fit in int16, its column's scale is doubled and the
    weight solved again. Raises ValueError for a weight that is not finite.
    """
    return solve_resolved(weight, factor, resolved_importance(weight, factor, importance), constant)


def solve_resolved(
    weight: torch.Tensor, factor: InputFactor, importance: torch.Tensor, constant: float
) -> FeedbackSolution:
    """Return what `solve_feedback` does for an importance that is taken as it is, float64 [rows], positive."""
    rows, columns = weight.shape
    if not torch.isfinite(weight).all():
        bad = int((~torch.isfinite(weight)).any(dim=1).int().argmax())
        raise ValueError(f"row {bad} holds a number that is not finite; fetch or train it again")
    row_scale, column_scale, clamped = scales(factor, importance, constant)
    codes = torch.empty((rows, columns), dtype=torch.int16)
    chunk = max(1, CHUNK_ELEMENTS // max(columns, 1))
    start = 0
    while start < rows:
        part = slice(start, start + chunk)
        codes[part] = _solve_rows(weight[part], factor, row_scale[part], column_scale)
        beyond = (codes[part].abs() >= CODE_LIMIT).any(dim=0)
        room = column_scale.float() * 2 <= _HALF_MOST
        if (beyond & room).any():
            column_scale = torch.where(beyond & room, column_scale * 2, column_scale)
            start = 0
        else:
            start += chunk
    return FeedbackSolution(codes=codes, row_scale=row_scale, column_scale=column_scale, clamped_scales=clamped)


def resolved_importance(weight: torch.Tensor, factor: InputFactor, importance: torch.Tensor | None) -> torch.Tensor:
    """Return the importance that steps are taken from, float64 [rows], as `solve_feedback` documents it."""
    if importance is not None:
        return floored_importance(importance, len(weight))
    if factor.feedback is not None:
        return equal_rate_importance(weight, factor)
    return torch.ones(len(weight), dtype=torch.float64)


def _solve_rows(
    weight: torch.Tensor, factor: InputFactor, row_scale: torch.Tensor, column_scale: torch.Tensor
) -> torch.Tensor:
    """Return the codes of some rows, int16 [rows, columns], transposed in memory."""
    rows, columns = weight.shape
    weights = weight.detach().float().t().contiguous()
    errors = torch.empty_like(weights) if factor.feedback is not None else torch.empty((BLOCK_COLUMNS, rows))
    codes = np.empty((columns, rows), dtype=np.int16)
    per_row, per_column = row_scale.float().numpy(), column_scale.float().numpy()
    inverse_row, inverse_column = np.float32(1) / per_row, np.float32(1) / per_column
    nothing = np.empty((0, 0), dtype=np.float32)
    for end in range(columns, 0, -BLOCK_COLUMNS):
        start = max(0, end - BLOCK_COLUMNS)
        block = slice(start, end)
        targets, within = weights[block].clone(), nothing
        if factor.feedback is not None:
            within = factor.feedback[block, block].contiguous().numpy()
            if end < columns:
                targets.addmm_(factor.feedback[end:, block].t(), errors[end:])
        out = errors[block] if factor.feedback is not None else errors[: end - start]
        round_block(
            targets.numpy(),
            weights[block].numpy(),
            within,
            per_column[block],
            inverse_column[block],
            per_row,
            inverse_row,
            np.float32(CODE_LIMIT),
            codes[block],
            out.numpy(),
        )
    return torch.from_numpy(codes).t()


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
