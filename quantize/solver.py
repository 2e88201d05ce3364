"""Solvers: which codes, scales and zero-points stand for a weight.

A solver sees one weight and knows nothing of files or models. It returns what `affine` codecs store, before scale
and zero-point are rounded to float16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from submission.errors import UserError
from submission.schema import nearest


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
        """Return a solution for weight, float32 [rows, columns] on the CPU, deterministically."""
        ...


def solve_hqq(weight: torch.Tensor, bits: int, group_size: int) -> Solution:
    """Return half-quadratic quantization's solution (Badri and Shaji 2023), by the hqq library itself.

    The zero-point starts unrounded, the default of hqq's `Quantizer`. hqq's `BaseQuantizeConfig` rounds it at 4
    bits; on Gaussian weights that is the worse start (relative squared error at 4 bits in groups of 64 .0076
    against .0074, of 128 .0095 against .0094).

    hqq groups a flat tensor and wants the group size to divide it. Where it does not divide the rows, the last,
    shorter group of all rows is solved by itself, so that no group runs over the end of a row.
    """
    columns = weight.shape[1]
    whole = columns - columns % group_size
    pieces = [(weight[:, :whole], group_size), (weight[:, whole:], columns - whole)]
    solved = [_solve_whole_groups(piece, bits, width) for piece, width in pieces if piece.shape[1]]
    codes, scale, zero = (torch.cat(parts, dim=1) for parts in zip(*solved, strict=True))
    return Solution(codes=codes, scale=scale, zero=zero)


def _solve_whole_groups(
    weight: torch.Tensor, bits: int, group_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return hqq's codes, scale and zero-point for rows that the group size divides."""
    from hqq.core.quantize import Quantizer

    rows, columns = weight.shape
    # Left to itself hqq goes to a GPU and computes in float16.
    codes, meta = Quantizer.quantize(
        weight.contiguous(), nbits=bits, group_size=group_size, axis=1, round_zero=False, bitpack=False, device="cpu"
    )
    groups = (rows, columns // group_size)
    return codes.to(torch.uint8).view(rows, columns), meta["scale"].view(groups), meta["zero"].view(groups)


SOLVERS: dict[str, Solver] = {"hqq": solve_hqq}
"""Solvers by the name that a recipe gives."""


def solve(solver: str, weight: torch.Tensor, bits: int, group_size: int) -> Solution:
    """Return the named solver's solution for weight, float [rows, columns]; UserError for an unknown name."""
    if solver not in SOLVERS:
        raise UserError("quantize.solver", f"unknown solver {solver!r}", nearest(solver, SOLVERS))
    return SOLVERS[solver](weight.float(), bits, group_size)
