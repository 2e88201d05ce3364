"""The compiled loop that dequantizes tiles of 4-bit codes, in the order of torch's kernel for processors."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from submission.runtime.products.vectors import (
    BYTES,
    FLOATS,
    INTS,
    LANES,
    after,
    constants,
    load,
    splat,
    store,
)

TILE_MULTIPLE = 2 * LANES
"""What the rows of a tile must be a multiple of."""


def _values(builder: Any, codes: Any, scale: Any, zero: Any) -> Any:
    """Return the bits of codes * scale, less zero before: float32, the upper 16 bits rounded to bfloat16, to even."""
    exact = builder.fmul(builder.fsub(builder.sitofp(codes, FLOATS), zero), scale)
    bits = builder.bitcast(exact, INTS)
    odd = builder.and_(builder.lshr(bits, _each(16)), _each(1))
    return builder.add(builder.add(bits, _each(0x7FFF)), odd)


def _each(value: int) -> ir.Constant:
    return constants(INTS, [value] * LANES)


def _vectors(size: int) -> Any:
    """Return what unpacks 16 bytes for a compiled function; size: bytes of a weight."""
    element = ir.VectorType(ir.IntType(8 * size), LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        packed_at, shift, scale_at, zero_at, half, weight_at = arguments
        both = builder.zext(load(builder, packed_at, BYTES), INTS)
        shifts = splat(builder, shift)
        for high, nibbles in enumerate((builder.and_(both, _each(15)), builder.lshr(both, _each(4)))):
            step = builder.mul(half, ir.Constant(half.type, high))
            scale, zero = (load(builder, after(builder, at, step, 4), FLOATS, 4) for at in (scale_at, zero_at))
            bits = _values(builder, builder.sub(nibbles, shifts), scale, zero)
            narrow = builder.trunc(builder.lshr(bits, _each(16)), element) if size == 2 else None
            stored = builder.and_(bits, _each(0xFFFF0000)) if narrow is None else narrow
            store(builder, stored, after(builder, weight_at, step, size), size)
        return context.get_dummy_value()

    @intrinsic
    def unpack(_: Any, packed: Any, shift: Any, scale: Any, zero: Any, half: Any, weight: Any) -> Any:
        """Write 16 weights from the low bits of 16 bytes, and from the high ones those half a tile further.

        packed, scale, zero, weight: addresses. half: numbers of half a tile.
        """
        address = types.uint64
        return types.void(address, types.int32, address, address, types.int64, address), generate

    return unpack


def _tiles(size: int) -> Any:
    """Return the compiled loop for weights of 2 or 4 bytes."""
    unpack_vectors = _vectors(size)

    @njit(nogil=True, error_model="numpy")
    def unpack(codes, shift, scale, zero, group_size, weight):  # type: ignore[no-untyped-def]  # compiled by numba
        tiles, columns, half = codes.shape
        rows = 2 * half
        scales, zeros = np.empty(rows, np.float32), np.empty(rows, np.float32)
        scale_at, zero_at = np.uint64(scales.ctypes.data), np.uint64(zeros.ctypes.data)
        for tile in range(tiles):
            for group in range(columns // group_size):
                for row in range(rows):
                    scales[row], zeros[row] = scale[tile * rows + row, group], zero[tile * rows + row, group]
                for column in range(group * group_size, (group + 1) * group_size):
                    packed = np.uint64(codes.ctypes.data + (tile * columns + column) * half)
                    place = np.uint64(weight.ctypes.data + size * (column * tiles * rows + tile * rows))
                    for first in range(0, half, LANES):
                        begin = np.uint64(first)
                        four, each = np.uint64(4 * first), np.uint64(size * first)
                        unpack_vectors(packed + begin, shift, scale_at + four, zero_at + four, half, place + each)

    return unpack


_BFLOAT16, _FLOAT32 = _tiles(2), _tiles(4)


def unpack_tiles(
    codes: np.ndarray, shift: int, scale: np.ndarray, zero: np.ndarray, group_size: int, weight: np.ndarray
) -> None:
    """Write (code - shift - zero) * scale, rounded to bfloat16; other threads run meanwhile.

    codes: uint8 [tiles, columns, rows of a tile / 2]; a byte has the code of a row in its low bits and that of the row
    half a tile further in its high ones. scale, zero: float32 [tiles * rows of a tile, groups]. weight: [columns, tiles
    * rows of a tile]; the bits of bfloat16 as uint16, or of float32 as uint32. All are contiguous but scale and zero.
    """
    tiles, columns, half = codes.shape
    assert half % LANES == 0 and codes.flags.c_contiguous and weight.flags.c_contiguous
    assert weight.shape == (columns, 2 * tiles * half) and scale.shape == zero.shape
    assert scale.shape == (2 * tiles * half, columns // group_size) and columns % group_size == 0
    (_FLOAT32 if weight.itemsize == 4 else _BFLOAT16)(codes, np.int32(shift), scale, zero, group_size, weight)
