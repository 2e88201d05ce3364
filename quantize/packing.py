"""Codes into bytes, the counterpart of `submission.runtime.packed.unpack_codes`."""

from __future__ import annotations

import numpy as np


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Return uint8 [rows, ceil(columns * bits / 8)] holding `codes`, uint8 [rows, columns], without a gap.

    Row i becomes a little-endian bit stream in which code j occupies the bits [j * bits, (j + 1) * bits); a row is
    filled up with zero bits to a whole byte. Eight codes at a time are one 64-bit word whose bytes are pushed
    together by halving steps. Raises ValueError for a code that `bits` bits cannot hold.
    """
    rows, columns = codes.shape
    if codes.dtype != np.uint8:
        raise ValueError(f"codes: expected uint8, got {codes.dtype}")
    if codes.size and int(codes.max()) >> bits:
        raise ValueError(f"codes: {int(codes.max())} does not fit in {bits} bits")
    if bits == 8:
        return np.ascontiguousarray(codes)
    pieces = -(-columns // 8)
    padded = np.zeros((rows, pieces * 8), dtype=np.uint8)
    padded[:, :columns] = codes
    words = padded.view("<u8")
    for cut in (1, 2, 4):  # fields of `cut` codes, each in `cut` bytes -> pairs of them side by side
        lower = _mask(bits * cut, 16 * cut)
        upper = lower << 8 * cut
        words = words & np.uint64(lower) | (words & np.uint64(upper)) >> np.uint64((8 - bits) * cut)
    packed = words.view(np.uint8).reshape(rows, pieces, 8)[:, :, :bits].reshape(rows, pieces * bits)
    return np.ascontiguousarray(packed[:, : -(-columns * bits // 8)])


def _mask(width: int, period: int) -> int:
    """Return a 64-bit integer with the low `width` bits set in each `period` bits."""
    return sum(((1 << width) - 1) << shift for shift in range(0, 64, period))
