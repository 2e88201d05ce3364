"""Solve one weight by the hqq package itself, on the weight's device.

It is what `hqq` is compared with, and a choice where results have to be the package's to the last code. Its arithmetic
is float32 on a CPU and float16 on a GPU, and it passes over the whole weight up to 20 times, so it is slow.
"""

from __future__ import annotations

import torch

from submission.model.codecs.affine import AffineSolution


def solve_hqq_library(weight: torch.Tensor, bits: int, group_size: int) -> AffineSolution:
    """Return what `Quantizer.quantize` finds with its own settings: the zero-point starts unrounded, groups along rows.

    The package has no shorter last groups: where the group size does not divide the rows, these are solved by a call of
    their own.
    """
    whole = weight.shape[1] - weight.shape[1] % group_size
    pieces = [(weight[:, :whole], group_size), (weight[:, whole:], weight.shape[1] - whole)]
    solved = [quantize_with_library(piece, bits, width) for piece, width in pieces if width and piece.shape[1]]
    return AffineSolution(
        codes=torch.cat([piece.codes for piece in solved], dim=1),
        scale=torch.cat([piece.scale for piece in solved], dim=1),
        zero=torch.cat([piece.zero for piece in solved], dim=1),
    )


def quantize_with_library(
    weight: torch.Tensor, bits: int, group_size: int, *, round_zero: bool = False
) -> AffineSolution:
    """Return the package's solution for a weight whose rows group_size divides; round_zero: as the package takes it."""
    from hqq.core.quantize import Quantizer

    values = weight.float().contiguous()
    if not torch.isfinite(values).all():
        raise ValueError("holds a number that is not finite; fetch or train it again")
    # Left to itself hqq goes to a GPU.
    packed, meta = Quantizer.quantize(
        values, nbits=bits, group_size=group_size, axis=1, round_zero=round_zero, device=str(weight.device)
    )
    rows, columns = weight.shape
    # 3-bit codes are padded to whole words of ten.
    codes = Quantizer.unpack[meta["packing"]](packed, dtype=torch.uint8)[: rows * columns // group_size]
    scale, zero = (meta[name].float().view(rows, -1) for name in ("scale", "zero"))
    return AffineSolution(codes=codes.reshape(rows, columns), scale=scale, zero=zero)
