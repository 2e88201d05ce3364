"""Solve one weight by alternating least squares: hqq's solution, then scale, zero-point and codes in turn."""

from __future__ import annotations

import numpy as np
import torch

from quantize.solvers.blocks import each_block, float_rows
from quantize.solvers.hqq import solve_hqq
from submission.model.codecs.affine import AffineSolution


def solve_als(weight: torch.Tensor, bits: int, group_size: int) -> AffineSolution:
    """Return hqq's solution after alternating least squares over scale, zero-point and codes.

    The squared error of no group is above hqq's; on Gaussian weights at 4 bits in groups of 64 it is .0066 of the
    weights' power, against .0074.
    """
    solution = solve_hqq(weight, bits, group_size)
    top = (1 << bits) - 1
    if weight.device.type != "cpu":
        from quantize.solvers.hqq_torch import refit_pieces

        codes, scale, zero = refit_pieces(weight, group_size, top, solution.scale, solution.zero)
        return AffineSolution(codes=codes, scale=scale, zero=zero)
    from quantize.solvers.hqq_kernels import refit_groups

    parts = tuple(part.numpy() for part in (solution.scale, solution.zero, solution.codes))

    def refit_block(block: slice) -> None:
        refit_groups(float_rows(weight, block), group_size, np.float32(top), *(part[block] for part in parts))

    each_block(refit_block, *weight.shape)
    return solution
