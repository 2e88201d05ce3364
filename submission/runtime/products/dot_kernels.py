"""Products of activations with codes, by the dot products of bfloat16 pairs that AVX-512 has (`avx512_bf16`), compiled.

Codes lie in tiles of 64 rows, column by column. A tile's codes of up to 128 columns are turned into bfloat16 numbers,
exactly, in the core's first cache, and multiplied there with six rows of activations at a time; a group's scale and
zero-point are applied to the sums, in float32. So a weight crosses the memory bus as a code, is converted once for all
rows of activations, and is never rounded. Nor does a row's output depend on the rows beside it, or on the threads.

Torch's threads share the tiles.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]
from torch import Tensor

from submission.runtime.products.dot_code import (
    CHUNK,
    PAIR_BYTES,
    as_pointer,
    dot,
    float_of,
    rounded,
    total,
    unpack_4_bits,
    unpack_8_bits,
)
from submission.runtime.products.processor import TILE_ROWS
from submission.runtime.products.torch_threads import run_in_team, team_functions

MOST_ROWS = 512
"""Rows of activations that are multiplied with a tile: theirs of a chunk, and their sums, stay in the second cache."""

STRIDED_BYTES = 1 << 19
"""Up to so many bytes activations are read where they are; columns of more of them fall on few lines of the second
cache, so that those of each chunk are laid beside each other first."""
PRODUCTS = 1 << 22
"""That a thread computes at least: in fewer, some 40 microseconds, it would hardly have been woken."""
CONVERTED = 4
"""Rows of activations in whose products' time a weight is converted."""

_BLOCK = 6
"""Rows of activations that are multiplied at a time: with four vectors of sums each they fill the registers."""
_CHUNK_BYTES = PAIR_BYTES * CHUNK // 2

_dot1, _dot2, _dot3, _dot4, _dot5, _dot6 = (dot(rows) for rows in range(1, _BLOCK + 1))

_SIZES = (
    *("tiles", "columns", "chunk", "group_size", "middle"),
    *("count", "parts", "row_stride", "chunk_stride", "scratch_bytes"),
)
_ADDRESSES = ("codes", "scale", "zero", "inputs", "outputs", "scratch")
_OF_ADDED = ("input_columns", "starts", "rows", "places", "values")
_ARGUMENTS = np.dtype([(name, np.int64) for name in _SIZES + _ADDRESSES + _OF_ADDED])
"""What `Tiles.multiply` hands over; the addresses of what is added are 0 where nothing is."""


@njit(error_model="numpy")
def _add_codes(a, tile, first, memory, sums):  # type: ignore[no-untyped-def]  # compiled by numba
    """Add what a tile's codes lack that are beyond 8 bits, from the first row of activations that the sums are of.

    memory: for as many numbers as there are sums.
    """
    starts = carray(as_pointer(a.starts), (a.tiles + 1,), np.int64)
    rows = carray(as_pointer(a.rows), (starts[a.tiles],), np.int64)
    places = carray(as_pointer(a.places), (starts[a.tiles],), np.int64)
    values = carray(as_pointer(a.values), (starts[a.tiles],), np.float32)
    inputs = carray(as_pointer(a.input_columns), (a.columns, a.count), np.uint16)
    count = len(sums)
    added = carray(as_pointer(memory), (TILE_ROWS, count), np.float32)
    added[:] = 0
    for number in range(starts[tile], starts[tile + 1]):
        row, place, value = rows[number], places[number], values[number]
        for i in range(count):
            added[row, i] += value * float_of(inputs[place, first + i])
    for i in range(count):
        for row in range(TILE_ROWS):
            sums[i, row] += added[row, i]


@functools.cache
def _share(bits: int) -> Any:
    """Return what a thread of a team calls for codes of 4 or 8 bits; compiled at the first call.

    Raises OSError or AttributeError where torch computes with threads of another kind.
    """
    unpack, width = {4: (unpack_4_bits, TILE_ROWS // 2), 8: (unpack_8_bits, TILE_ROWS)}[bits]
    thread_number, thread_count = team_functions()

    @njit(error_model="numpy")
    def add_products(a, tile, chunk, begin, end, weights, totals, sums):  # type: ignore[no-untyped-def]
        """Add the products of some rows and a tile's chunk, whose numbers are written to `weights`.

        weights, totals, sums: addresses; totals and sums are of these rows.
        """
        first, pairs, stride = chunk * a.chunk, a.chunk // 2, a.row_stride
        codes = np.uint64(a.codes + (tile * a.columns + first) * width)
        for pair in range(pairs):
            unpack(codes + np.uint64(2 * width * pair), weights + np.uint64(PAIR_BYTES * pair))
        group = 2 * TILE_ROWS * (first // a.group_size * a.tiles + tile)
        scale, zero, middle = np.uint64(a.scale + group), np.uint64(a.zero + group), np.float32(a.middle)
        blocks = (end - begin + _BLOCK - 1) // _BLOCK
        for block in range(blocks):
            row = begin + (end - begin) * block // blocks
            rows = begin + (end - begin) * (block + 1) // blocks - row
            inputs = np.uint64(a.inputs + chunk * a.chunk_stride + row * stride)
            of_rows = totals + np.uint64(4 * (row - begin))
            found = sums + np.uint64(4 * TILE_ROWS * (row - begin))
            if rows == 6:
                _dot6(inputs, stride, weights, pairs, scale, zero, middle, of_rows, found)
            elif rows == 5:
                _dot5(inputs, stride, weights, pairs, scale, zero, middle, of_rows, found)
            elif rows == 4:
                _dot4(inputs, stride, weights, pairs, scale, zero, middle, of_rows, found)
            elif rows == 3:
                _dot3(inputs, stride, weights, pairs, scale, zero, middle, of_rows, found)
            elif rows == 2:
                _dot2(inputs, stride, weights, pairs, scale, zero, middle, of_rows, found)
            else:
                _dot1(inputs, stride, weights, pairs, scale, zero, middle, of_rows, found)

    @cfunc(types.void(types.voidptr), error_model="numpy")
    def share(pointer):  # type: ignore[no-untyped-def]
        a = carray(pointer, (1,), _ARGUMENTS)[0]
        threads, thread = thread_count(), thread_number()
        most = (a.count + a.parts - 1) // a.parts
        sums_at = a.scratch + thread * a.scratch_bytes + _CHUNK_BYTES
        added_at, totals_at = sums_at + 4 * TILE_ROWS * most, sums_at + 2 * 4 * TILE_ROWS * most
        weights, chunks, last = np.uint64(sums_at - _CHUNK_BYTES), a.columns // a.chunk, -1
        totals = carray(as_pointer(totals_at), (chunks, most), np.float32)
        items = a.tiles * a.parts
        for item in range(items * thread // threads, items * (thread + 1) // threads):
            part, tile = item // a.tiles, item % a.tiles
            begin, end = a.count * part // a.parts, a.count * (part + 1) // a.parts
            if part != last:
                last = part
                for chunk in range(chunks):
                    for row in range(begin, end):
                        of = np.uint64(a.inputs + chunk * a.chunk_stride + row * a.row_stride)
                        totals[chunk, row - begin] = total(of, a.chunk // 32)
            sums = carray(as_pointer(sums_at), (end - begin, TILE_ROWS), np.float32)
            sums[:] = 0
            for chunk in range(chunks):
                of_chunk = np.uint64(totals_at + 4 * most * chunk)
                add_products(a, tile, chunk, begin, end, weights, of_chunk, np.uint64(sums_at))
            if a.starts:
                _add_codes(a, tile, begin, added_at, sums)
            for row in range(begin, end):
                output = np.uint64(a.outputs + 2 * TILE_ROWS * (row * a.tiles + tile))
                rounded(np.uint64(sums_at + 4 * TILE_ROWS * (row - begin)), output)

    return share


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedCodes:
    """What some codes lack, in the order of their rows."""

    starts: Tensor
    """int64 [tiles + 1]: where those of each tile begin, and where the last one's end."""
    rows: Tensor
    """int64, of the tile."""
    columns: Tensor
    """int64."""
    values: Tensor
    """float32, times the scale of the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """A weight [rows, columns], `(code + middle - zero) * scale`, whose codes lie in tiles of 64 rows."""

    codes: Tensor
    """uint8 [tiles, columns, 32] of 4-bit codes, of which 8 is taken, or int8 [tiles, columns, 64]."""
    scale: Tensor
    """float16 [groups, rows]."""
    zero: Tensor
    """float16 [groups, rows]."""
    group_size: int
    """Columns of a group."""
    middle: int = 0
    added: AddedCodes | None = None

    def codes_of(self, rows: slice) -> Tensor:
        """Return 8-bit codes of some rows, int8 [n, columns]; the slice has both ends."""
        first, last = rows.start // TILE_ROWS, -(-rows.stop // TILE_ROWS)
        codes = self.codes[first:last].transpose(1, 2).reshape(-1, self.codes.shape[1])
        return codes[rows.start - first * TILE_ROWS : rows.stop - first * TILE_ROWS]

    def multiply(self, inputs: Tensor) -> Tensor:
        """Return bfloat16 [n, rows]: inputs, bfloat16 [n, columns], times the transpose of the weight."""
        tiles, columns, width = self.codes.shape
        count, chunk = len(inputs), math.gcd(CHUNK, self.group_size)
        parts = max(1, -(-count // MOST_ROWS))
        useful = tiles * TILE_ROWS * columns * (count + CONVERTED * parts) // PRODUCTS
        threads = max(1, min(torch.get_num_threads(), useful, tiles * parts))
        chunks, strides = inputs.contiguous().view(count, columns // chunk, chunk), (2 * columns, 2 * chunk)
        if min(count, MOST_ROWS) * columns * inputs.itemsize > STRIDED_BYTES:
            chunks, strides = chunks.transpose(0, 1).contiguous(), (2 * chunk, 2 * chunk * count)
        outputs = torch.empty(count, TILE_ROWS * tiles, dtype=torch.bfloat16)
        floats = 2 * TILE_ROWS + columns // chunk  # sums, what is added to them, totals
        scratch_bytes = 64 * -(-(_CHUNK_BYTES + 4 * floats * -(-count // parts)) // 64)
        scratch = torch.empty(threads * scratch_bytes, dtype=torch.uint8)
        sizes = (tiles, columns, chunk, self.group_size, self.middle, count, parts, *strides, scratch_bytes)
        tensors = [self.codes, self.scale, self.zero, chunks, outputs, scratch]
        if self.added is not None:
            added = (self.added.starts, self.added.rows, self.added.columns, self.added.values)
            tensors += [inputs.t().contiguous(), *added]
        addresses = [part.data_ptr() for part in tensors]
        none = [0] * (len(_ADDRESSES + _OF_ADDED) - len(addresses))
        arguments = np.array([*sizes, *addresses, *none], np.int64)
        run_in_team(_share(8 * width // TILE_ROWS).address, arguments.ctypes.data, threads)
        return outputs
