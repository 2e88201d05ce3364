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
    TILE,
    as_pointer,
    dot,
    rounded,
    unpack_4_bits,
    unpack_8_bits,
)
from submission.runtime.products.torch_threads import run_in_team, team_functions

MOST_ROWS = 512
"""Rows of activations of a product: theirs of a chunk, and their sums, stay in a core's second cache."""

_BLOCK = 6
"""Rows of activations that are multiplied at a time: with four vectors of sums each they fill the registers."""
_CHUNK_BYTES = PAIR_BYTES * CHUNK // 2

_dot1, _dot2, _dot3, _dot4, _dot5, _dot6 = (dot(rows) for rows in range(1, _BLOCK + 1))

_SIZES = ("tiles", "columns", "chunk", "group_size", "middle", "count")
_ADDRESSES = ("codes", "scale", "zero", "inputs", "totals", "outputs", "scratch")
_OF_ADDED = ("wide_inputs", "starts", "rows", "places", "values")
_ARGUMENTS = np.dtype([(name, np.int64) for name in _SIZES + _ADDRESSES + _OF_ADDED])
"""What `Tiles.multiply` hands over; the addresses of what is added are 0 where nothing is."""


@njit(error_model="numpy")
def _add_codes(a, tile, memory, sums):  # type: ignore[no-untyped-def]  # compiled by numba
    """Add what a tile's codes lack that are beyond 8 bits; memory: for as many numbers as there are sums."""
    starts = carray(as_pointer(a.starts), (a.tiles + 1,), np.int64)
    rows = carray(as_pointer(a.rows), (starts[a.tiles],), np.int64)
    places = carray(as_pointer(a.places), (starts[a.tiles],), np.int64)
    values = carray(as_pointer(a.values), (starts[a.tiles],), np.float32)
    inputs = carray(as_pointer(a.wide_inputs), (a.columns, a.count), np.float32)
    added = carray(as_pointer(memory), (TILE, a.count), np.float32)
    added[:] = 0
    for number in range(starts[tile], starts[tile + 1]):
        row, place, value = rows[number], places[number], values[number]
        for i in range(a.count):
            added[row, i] += value * inputs[place, i]
    for i in range(a.count):
        for row in range(TILE):
            sums[i, row] += added[row, i]


@functools.cache
def _share(bits: int) -> Any:
    """Return what a thread of a team calls for codes of 4 or 8 bits; compiled at the first call.

    Raises OSError or AttributeError where torch computes with threads of another kind.
    """
    unpack, width = {4: (unpack_4_bits, TILE // 2), 8: (unpack_8_bits, TILE)}[bits]
    thread_number, thread_count = team_functions()

    @njit(error_model="numpy")
    def add_products(a, tile, chunk, weights, sums):  # type: ignore[no-untyped-def]
        """Add the products of a tile's chunk, whose numbers are written to `weights`; both are addresses."""
        first, pairs = chunk * a.chunk, a.chunk // 2
        codes = np.uint64(a.codes + (tile * a.columns + first) * width)
        for pair in range(pairs):
            unpack(codes + np.uint64(2 * width * pair), weights + np.uint64(PAIR_BYTES * pair))
        group = 2 * TILE * (first // a.group_size * a.tiles + tile)
        scale, zero, middle = np.uint64(a.scale + group), np.uint64(a.zero + group), np.float32(a.middle)
        blocks = (a.count + _BLOCK - 1) // _BLOCK
        for block in range(blocks):
            row, end = a.count * block // blocks, a.count * (block + 1) // blocks
            inputs = np.uint64(a.inputs + 2 * (first * a.count + a.chunk * row))
            totals = np.uint64(a.totals + 4 * (chunk * a.count + row))
            found = sums + np.uint64(4 * TILE * row)
            if end - row == 6:
                _dot6(inputs, weights, pairs, scale, zero, middle, totals, found)
            elif end - row == 5:
                _dot5(inputs, weights, pairs, scale, zero, middle, totals, found)
            elif end - row == 4:
                _dot4(inputs, weights, pairs, scale, zero, middle, totals, found)
            elif end - row == 3:
                _dot3(inputs, weights, pairs, scale, zero, middle, totals, found)
            elif end - row == 2:
                _dot2(inputs, weights, pairs, scale, zero, middle, totals, found)
            else:
                _dot1(inputs, weights, pairs, scale, zero, middle, totals, found)

    @cfunc(types.void(types.voidptr), error_model="numpy")
    def share(pointer):  # type: ignore[no-untyped-def]
        a = carray(pointer, (1,), _ARGUMENTS)[0]
        threads, thread = thread_count(), thread_number()
        memory = a.scratch + thread * (_CHUNK_BYTES + 2 * 4 * TILE * a.count)
        weights, found = np.uint64(memory), np.uint64(memory + _CHUNK_BYTES)
        sums = carray(as_pointer(memory + _CHUNK_BYTES), (a.count, TILE), np.float32)
        for tile in range(a.tiles * thread // threads, a.tiles * (thread + 1) // threads):
            sums[:] = 0
            for chunk in range(a.columns // a.chunk):
                add_products(a, tile, chunk, weights, found)
            if a.starts:
                _add_codes(a, tile, memory + _CHUNK_BYTES + 4 * TILE * a.count, sums)
            for row in range(a.count):
                output = np.uint64(a.outputs + 2 * TILE * (row * a.tiles + tile))
                rounded(found + np.uint64(4 * TILE * row), output)

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

    def multiply(self, inputs: Tensor, wide_inputs: Tensor | None = None) -> Tensor:
        """Return bfloat16 [n, rows]: inputs times the transpose of the weight.

        inputs: bfloat16 [n, columns]. wide_inputs: what these were rounded from, float32, for what is added to codes.
        """
        if len(inputs) > MOST_ROWS:
            wide = [None] * len(inputs) if wide_inputs is None else wide_inputs.split(MOST_ROWS)
            parts = zip(inputs.split(MOST_ROWS), wide, strict=False)
            return torch.cat([self.multiply(*part) for part in parts])
        tiles, columns, width = self.codes.shape
        count, threads, chunk = len(inputs), min(torch.get_num_threads(), tiles), math.gcd(CHUNK, self.group_size)
        chunks = inputs.reshape(count, -1, chunk).transpose(0, 1).contiguous()
        totals = chunks.sum(2, dtype=torch.float32)
        outputs = torch.empty(count, TILE * tiles, dtype=torch.bfloat16)
        scratch = torch.empty(threads * (_CHUNK_BYTES + 2 * 4 * TILE * count), dtype=torch.uint8)
        shape = (tiles, columns, chunk, self.group_size, self.middle, count)
        tensors = [self.codes, self.scale, self.zero, chunks, totals, outputs, scratch]
        if self.added is not None:
            assert wide_inputs is not None
            wide_inputs = wide_inputs.t().contiguous()
            tensors += [wide_inputs, self.added.starts, self.added.rows, self.added.columns, self.added.values]
        addresses = [part.data_ptr() for part in tensors]
        arguments = np.zeros(len(_ARGUMENTS.names or ()), np.int64)
        arguments[: len(shape) + len(addresses)] = shape + tuple(addresses)
        run_in_team(_share(8 * width // TILE).address, arguments.ctypes.data, threads)
        return outputs
