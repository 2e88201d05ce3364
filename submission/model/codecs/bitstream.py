"""Codes of a fixed width into bytes and back, without a gap between them.

A row of codes is a little-endian bit stream: code j occupies the bits [j * bits, (j + 1) * bits), and the row is
filled up with zero bits to a whole byte. Both ways are bit arithmetic on whole machine words: as many codes as fill
whole bytes are one word, whose bytes are pushed together, or spread apart, by halving steps. This takes the machine to
be little-endian, as all that torch runs on are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def pack_codes(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Return uint8 [rows, ceil(columns * bits / 8)] holding `codes`, uint8 [rows, columns].

    Raises ValueError for a code that `bits` bits cannot hold.
    """
    import torch
    import torch.nn.functional as F

    rows, columns = codes.shape
    if codes.dtype != torch.uint8:
        raise ValueError(f"codes: expected uint8, got {codes.dtype}")
    if codes.numel() and int(codes.max()) >> bits:
        raise ValueError(f"codes: {int(codes.max())} does not fit in {bits} bits")
    if bits == 8:
        return codes.contiguous()
    if bits in (2, 4):  # the codes of one byte are one word: 4 or 2 bytes wide
        size, word = 8 // bits, torch.int32 if bits == 2 else torch.int16
        words = F.pad(codes, (0, -columns % size)).view(word)
        for cut in (1, 2)[: size // 2]:
            words = words | words >> (8 - bits) * cut
        return words.to(torch.uint8)
    pieces = -(-columns // 8)
    words = F.pad(codes, (0, pieces * 8 - columns)).view(torch.int64)
    for cut in (1, 2, 4):  # fields of `cut` codes, each in `cut` bytes -> pairs of them side by side
        lower = words & _mask(bits * cut, 16 * cut)
        words = (words ^ lower).bitwise_right_shift_((8 - bits) * cut).bitwise_or_(lower)
    packed = words.view(torch.uint8).view(rows, pieces, 8)[:, :, :bits].reshape(rows, pieces * bits)
    return packed[:, : -(-columns * bits // 8)].contiguous()


def unpack_codes(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Return uint8 [rows, columns], the codes that `packed`, uint8 [rows, ceil(columns * bits / 8)], holds."""
    import torch
    import torch.nn.functional as F

    if bits == 8:
        return packed
    if bits == 4:
        return _spread(packed.to(torch.int16), ((4, 0x0F0F),))[:, :columns]
    if bits == 2:
        return _spread(packed.to(torch.int32), ((12, 0x000F000F), (6, 0x03030303)))[:, :columns]
    # Eight codes lie in `bits` bytes; make each such piece the low bytes of one 64-bit integer.
    rows, pieces = packed.shape[0], -(-columns // 8)
    padded = F.pad(packed, (0, pieces * bits - packed.shape[1])).view(rows, pieces, bits)
    words = F.pad(padded, (0, 8 - bits)).view(torch.int64).view(rows, pieces)
    for cut in (4, 2, 1):  # fields of 2 * cut codes, side by side -> of `cut` codes, each in `cut` bytes
        lower = words & _mask(bits * cut, 16 * cut)
        words = (words ^ lower).bitwise_left_shift_((8 - bits) * cut).bitwise_or_(lower)
    return words.view(torch.uint8)[:, :columns]


def padding_is_zero(packed: torch.Tensor, bits: int, columns: int) -> bool:
    """Return whether the bits behind the last code of every row are zero."""
    used = columns * bits % 8
    return not used or not bool((packed[:, -1] >> used).any())


def _mask(width: int, period: int) -> int:
    """Return a 64-bit integer, as torch reads it, with the low `width` bits set in each `period` bits."""
    return sum(((1 << width) - 1) << shift for shift in range(0, 64, period))


def _spread(words: torch.Tensor, steps: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """Return the words' bytes, uint8 [rows, bytes], after moving their upper halves up, step by step.

    For fields at most half as wide as their new places: what else moves with them falls under the mask.
    """
    import torch

    for shift, mask in steps:
        moved = words << shift
        words = moved.bitwise_or_(words).bitwise_and_(mask)
    return words.view(torch.uint8)
