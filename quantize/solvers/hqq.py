"""Solvers: which codes, scales and zero-points stand for a weight.

A solver sees one weight and knows nothing of files or models. It returns what `affine` codecs store, before scale
and zero-point are rounded to float16.

`hqq` is half-quadratic quantization (Badri and Shaji 2023) with the results of the hqq library, up to codes that lie
on the edge between two values. On a CPU the work goes to compiled loops (`kernels.py`) in blocks that fit in a core's
cache, on a GPU to torch. `als` goes on from there: it fits the scale too.

hqq stops all groups of a weight at once, when the mean absolute error of all of them has stopped falling. No group
could be finished before all are measured; so each runs to its own end and adds its errors to the tally, and groups
that went further than the tally allows are solved again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from submission.errors import UserError
from submission.system.schema import nearest

ITERATIONS = 20
"""hqq's bound on updates of the zero-point."""

BLOCK_ELEMENTS = 1 << 18
"""Weights that a core takes up at a time, in whole rows: 1 MiB in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A weight [rows, columns] as (codes - zero) * scale, group by group along its rows."""

    codes: torch.Tensor
    """uint8 [rows, columns], each below 2 ** bits."""
    scale: torch.Tensor
    """float32 [rows, ceil(columns / group_size)]."""
    zero: torch.Tensor
    """float32 [rows, ceil(columns / group_size)]."""


class Solver(Protocol):
    """What every solver is."""

    def __call__(self, weight: torch.Tensor, bits: int, group_size: int) -> Solution:
        """Return a solution for weight, float [rows, columns], on its device, deterministically.

        Where the group size does not divide the rows, their last, shorter groups are solved apart from the others,
        so that no group runs over the end of a row. Raises ValueError for a number that is not finite.
        """
        ...


def solve_hqq(weight: torch.Tensor, bits: int, group_size: int) -> Solution:
    """Return hqq's solution as its `Quantizer` finds it: the zero-point starts unrounded."""
    return _solve_hqq(weight, bits, group_size, round_zero=False)


def solve_hqq_rounded_zero(weight: torch.Tensor, bits: int, group_size: int) -> Solution:
    """Return hqq's solution as its `BaseQuantizeConfig` asks for it: at 4 bits the zero-point starts rounded.

    On Gaussian weights that is the worse start (relative squared error in groups of 64 .0076 against .0074, of 128
    .0095 against .0094).
    """
    return _solve_hqq(weight, bits, group_size, round_zero=bits == 4)


def solve_als(weight: torch.Tensor, bits: int, group_size: int) -> Solution:
    """Return hqq's solution after alternating least squares over scale, zero-point and codes.

    The squared error of no group is above hqq's; on Gaussian weights at 4 bits in groups of 64 it is .0066 of the
    weights' power, against .0074.
    """
    solution = solve_hqq(weight, bits, group_size)
    top = (1 << bits) - 1
    if weight.device.type != "cpu":
        from quantize.solvers.hqq_torch import refit_pieces

        codes, scale, zero = refit_pieces(weight, group_size, top, solution.scale, solution.zero)
        return Solution(codes=codes, scale=scale, zero=zero)
    from quantize.solvers.hqq_kernels import refit_groups

    parts = tuple(part.numpy() for part in (solution.scale, solution.zero, solution.codes))

    def refit_block(block: slice) -> None:
        refit_groups(_float_rows(weight, block), group_size, np.float32(top), *(part[block] for part in parts))

    _each_block(refit_block, *weight.shape)
    return solution


SOLVERS: dict[str, Solver] = {"hqq": solve_hqq, "hqq-rounded-zero": solve_hqq_rounded_zero, "als": solve_als}
"""Solvers by the name that a recipe gives."""


def solve(solver: str, weight: torch.Tensor, bits: int, group_size: int) -> Solution:
    """Return the named solver's solution for weight, float [rows, columns]; UserError for an unknown name."""
    if solver not in SOLVERS:
        raise UserError("quantize.solver", f"unknown solver {solver!r}", nearest(solver, SOLVERS))
    return SOLVERS[solver](weight, bits, group_size)


def _solve_hqq(weight: torch.Tensor, bits: int, group_size: int, *, round_zero: bool) -> Solution:
    if weight.device.type == "cpu":
        return _solve_with_kernels(weight, bits, group_size, round_zero=round_zero)
    from quantize.solvers.hqq_torch import solve_pieces

    top = (1 << bits) - 1
    codes, scale, zero = solve_pieces(weight, group_size, top, round_zero=round_zero, iterations=ITERATIONS)
    return Solution(codes=codes, scale=scale, zero=zero)


def _solve_with_kernels(weight: torch.Tensor, bits: int, group_size: int, *, round_zero: bool) -> Solution:
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
            bad = solve_groups(_float_rows(weight, block), group_size, top, round_zero, limits, *parts)
            if bad >= 0:
                raise ValueError(f"row {block.start + bad} holds a number that is not finite; fetch or train it again")

        return solve_rows

    _each_block(solve_block(np.full(2, ITERATIONS)), rows, columns)
    # Sums over rows in their order, whichever thread did them.
    totals = errors.sum(axis=0).cumsum(axis=1)
    counts = rows * (columns - ragged), rows * ragged
    limits = np.array([_updates(total / max(count, 1)) for total, count in zip(totals, counts, strict=True)])
    whole = columns // group_size
    if (taken[:, :whole] > limits[0]).any() or (taken[:, whole:] > limits[1]).any():
        _each_block(solve_block(limits), rows, columns)
    return Solution(codes=torch.from_numpy(codes), scale=torch.from_numpy(scale), zero=torch.from_numpy(zero))


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


def _float_rows(weight: torch.Tensor, rows: slice) -> np.ndarray:
    """Return some rows of a weight on the CPU as float32, C-contiguous, by this thread alone."""
    block = weight[rows].detach()
    if block.dtype == torch.bfloat16:  # numpy has none: the upper half of a float32
        return np.left_shift(block.contiguous().view(torch.int16).numpy(), 16, dtype=np.int32).view(np.float32)
    return np.ascontiguousarray(block.numpy(), dtype=np.float32)


def _each_block(work: Callable[[slice], None], rows: int, columns: int) -> None:
    """Call work for every block of rows, on as many threads as torch would use.

    Python's threads, since the kernels let go of the interpreter: OpenMP's would come on top of torch's, and do not
    survive a fork.
    """
    step = max(1, BLOCK_ELEMENTS // max(columns, 1))
    blocks = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    threads = min(torch.get_num_threads(), len(blocks))
    if threads <= 1:
        for block in blocks:
            work(block)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, blocks):
            pass
