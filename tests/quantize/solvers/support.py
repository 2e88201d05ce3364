"""Problems for error feedback, and what its results are compared with: sizes under shared tables, a diagonal moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from quantize.solvers.feedback import DAMPING, InputFactor
from quantize.solvers.rate import CONTEXTS, SYMBOLS, code_histogram, histogram_bits, side_bits

TABLE_BITS = 12
"""Side information of a symbol that occurs in a context: its frequency."""


def random_moment(columns: int, seed: int = 0, rank: int | None = None) -> torch.Tensor:
    """Return a second moment with correlated channels and an outlier, float32 [columns, columns]."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(rank or 2 * columns, columns, generator=generator)
    mixing[:, columns // 2] *= 20
    mixing += torch.randn(len(mixing), 1, generator=generator)
    return mixing.t() @ mixing / len(mixing)


def random_problem(rows: int, columns: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed + 100)
    weight = torch.randn(rows, columns, generator=generator) * 0.05
    importance = torch.rand(rows, generator=generator).pow(4) + 1e-6
    return weight, random_moment(columns, seed), importance


def pooled_size_bytes(codes: Sequence[torch.Tensor]) -> int:
    """Return the estimated size of tensors' codes under tables that they share, with tables and side information."""
    total, side = np.zeros((CONTEXTS, SYMBOLS), dtype=np.int64), 0
    for tensor in codes:
        histogram, escapes = code_histogram(tensor)
        total += histogram
        side += side_bits((tensor.shape[0], tensor.shape[1]), escapes)
    return int(np.ceil((histogram_bits(total) + side + TABLE_BITS * np.count_nonzero(total)) / 8))


def diagonal_factor(second_moment: torch.Tensor, *, damping: float = DAMPING) -> InputFactor:
    """Return the factor of the diagonal of a second moment [columns, columns]: steps by column, nothing fed back."""
    diagonal = second_moment.diagonal().double()
    return InputFactor(diagonal=(diagonal + damping * diagonal.mean()).clamp_min(1e-300).sqrt(), feedback=None)
