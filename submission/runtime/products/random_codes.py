"""Draw weights of 8-bit codes as inference keeps entropy-coded ones, for benchmarks."""

from __future__ import annotations

import torch

from submission.model.codecs.codec import ScaledCodes
from submission.runtime.products.byte_tiles import PrepackedTiles, prepack_codes
from submission.runtime.products.int8_kernels import PrepackedCodes

EXCEPTIONS = 0.0006
"""Share of codes beyond ±127, as in a real language model."""


def random_codes(shape: tuple[int, int], generator: torch.Generator) -> PrepackedCodes | PrepackedTiles:
    """Return a weight [rows, columns] of random codes and scales."""
    codes = torch.randint(-40, 41, shape, dtype=torch.int8, generator=generator)
    count = int(codes.numel() * EXCEPTIONS)
    positions = torch.randint(0, codes.numel(), (count,), generator=generator).unique()
    codes.view(-1)[positions] = 127
    remainders = torch.randint(1, 200, positions.shape, generator=generator)
    row_scale, column_scale = (torch.rand(n, generator=generator).add_(0.1).half() for n in shape)
    scaled = ScaledCodes(
        codes=codes, row_scale=row_scale, column_scale=column_scale, positions=positions, remainders=remainders
    )
    return prepack_codes(scaled, {})
