"""The instructions of `dot_kernels.py`: codes become bfloat16 numbers, and pairs of these are multiplied and added.

Each is written as LLVM code for AVX-512 with bfloat16 (`avx512_bf16`) and called by compiled functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from submission.runtime.products.processor import TILE_ROWS
from submission.runtime.products.vectors import (
    BYTE,
    BYTES,
    FLOAT,
    FLOATS,
    INT,
    INTS,
    LANES,
    LONG,
    WORD,
    after,
    call,
    constants,
    load,
    long,
    shuffled,
    splat,
    store,
)

CHUNK = 128
"""Columns whose codes are converted at a time, at most: 16 KiB of bfloat16, half of a core's first cache."""
PAIR_BYTES = 4 * TILE_ROWS
"""Of the bfloat16 numbers of a tile in two columns."""
MIDDLE = 8
"""4-bit codes are multiplied less this."""

AHEAD = 2 * CHUNK
"""Columns further whose codes are fetched while some are converted."""

_VECTORS = TILE_ROWS // LANES
_VECTOR_BYTES = 64
_WORDS = ir.VectorType(WORD, 2 * LANES)
_HALVES = ir.VectorType(ir.HalfType(), LANES)
_ADDRESS = types.uint64


class _BFloat16(ir.types.Type):  # type: ignore[misc]  # llvmlite has no types, and no such number
    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat16)

    def __hash__(self) -> int:
        return hash(_BFloat16)


_PAIRS = ir.VectorType(_BFloat16(), 2 * LANES)


def dot(rows: int) -> Any:
    """Return the function that adds the products of some rows of activations and a tile's chunk to sums.

    It takes `inputs, stride, weights, pairs, scale, zero, middle, totals, sums`, addresses but for three numbers, and
    adds (products + (middle - zero) * totals) * scale to sums, float32 [rows, 64]. inputs: bfloat16 [rows, 2 * pairs],
    stride bytes from row to row. weights: bfloat16 [pairs, 64, 2]. scale, zero: float16 [64]. totals: float32 [rows],
    the sums of the inputs.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        inputs, stride, weights, pairs, scale, zero, middle, totals, sums = arguments
        inputs_of = [after(builder, inputs, builder.mul(stride, long(row))) for row in range(rows)]
        products = _pair_products(builder, inputs_of, weights, pairs)
        for i in range(_VECTORS):
            scales, zeros = (
                builder.fpext(load(builder, after(builder, part, i, 2 * LANES), _HALVES, 2), FLOATS)
                for part in (scale, zero)
            )
            offsets = builder.fmul(builder.fsub(splat(builder, middle), zeros), scales)
            for row in range(rows):
                total = splat(builder, load(builder, after(builder, totals, row, 4), FLOAT, 4))
                place = after(builder, sums, row * _VECTORS + i, _VECTOR_BYTES)
                found = load(builder, place, FLOATS, _VECTOR_BYTES)
                for factor, number in ((scales, products[row][i]), (offsets, total)):
                    found = call(builder, "llvm.fma.v16f32", FLOATS, factor, number, found)
                store(builder, found, place, _VECTOR_BYTES)
        return context.get_dummy_value()

    @intrinsic
    def add(
        _: Any,
        inputs: Any,
        stride: Any,
        weights: Any,
        pairs: Any,
        scale: Any,
        zero: Any,
        middle: Any,
        totals: Any,
        sums: Any,
    ) -> Any:
        kinds = (_ADDRESS, types.int64, _ADDRESS, types.int64, _ADDRESS, _ADDRESS, types.float32, _ADDRESS, _ADDRESS)
        return types.void(*kinds), generate

    return add


def _pair_products(builder: Any, inputs: list[Any], weights: Any, pairs: Any) -> list[list[Any]]:
    """Write the loop over pairs of columns; return the products of each row, in vectors of 16 rows of the weight."""

    def add(pair: Any, sums: list[Any]) -> list[Any]:
        at = after(builder, weights, pair, PAIR_BYTES)
        vectors = [load(builder, after(builder, at, i, _VECTOR_BYTES), _PAIRS, _VECTOR_BYTES) for i in range(_VECTORS)]
        products = []
        for row, input_at in enumerate(inputs):
            both = builder.bitcast(splat(builder, load(builder, after(builder, input_at, pair, 4), INT, 4)), _PAIRS)
            products += [_dot(builder, sums[row * _VECTORS + i], vectors[i], both) for i in range(_VECTORS)]
        return products

    sums = _summed(builder, pairs, len(inputs) * _VECTORS, add)
    return [sums[row * _VECTORS : (row + 1) * _VECTORS] for row in range(len(inputs))]


def _dot(builder: Any, sums: Any, first: Any, second: Any) -> Any:
    """Return sums, float32 [16], with the products of 16 pairs added."""
    return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, sums, first, second)


def _summed(builder: Any, count: Any, vectors: int, add: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Write a loop; return what `add(number, sums)` makes of vectors of zeros for each number below a count."""
    before, loop, end = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("end")
    builder.branch(loop)
    builder.position_at_end(loop)
    number, sums = builder.phi(LONG), [builder.phi(FLOATS) for _ in range(vectors)]
    found = add(number, sums)
    following = builder.add(number, long(1))
    number.add_incoming(long(0), before)
    number.add_incoming(following, loop)
    for one, changed in zip(sums, found, strict=True):
        one.add_incoming(constants(FLOATS, [0.0] * LANES), before)
        one.add_incoming(changed, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, end)
    builder.position_at_end(end)
    return found


def _sum() -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        inputs, vectors = arguments
        ones = builder.bitcast(constants(INTS, [0x3F803F80] * LANES), _PAIRS)

        def add(number: Any, sums: list[Any]) -> list[Any]:
            return [_dot(builder, sums[0], load(builder, after(builder, inputs, number, _VECTOR_BYTES), _PAIRS), ones)]

        (sums,) = _summed(builder, vectors, 1, add)
        zero = ir.Constant(FLOAT, 0.0)
        return call(builder, "llvm.vector.reduce.fadd.v16f32", FLOAT, zero, sums)

    @intrinsic
    def total(_: Any, inputs: Any, vectors: Any) -> Any:
        return types.float32(_ADDRESS, types.int64), generate

    return total


total = _sum()
"""(inputs, vectors): the sum of the bfloat16 numbers at an address, float32; 32 of them are a vector."""


def _of_two_addresses(write: Callable[[Any, Any, Any], None]) -> Any:
    """Return the function of two addresses that `write(builder, first, second)` writes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        write(builder, *arguments)
        return context.get_dummy_value()

    @intrinsic
    def function(_: Any, first: Any, second: Any) -> Any:
        return types.void(_ADDRESS, _ADDRESS), generate

    return function


def _prefetch(builder: Any, address: Any) -> None:
    """Let what is at an address come into the second cache; nothing happens where there is no memory.

    Into the first cache it takes half as long again (docs/log.md).
    """
    flags = [ir.Constant(INT, value) for value in (0, 2, 1)]  # to read, into the second cache, data
    call(builder, "llvm.prefetch.p0", ir.VoidType(), builder.inttoptr(address, BYTE.as_pointer()), *flags)


def _unpack_4_bits(builder: Any, codes: Any, weights: Any) -> None:
    """Write the numbers, less 8, of 4-bit codes of a tile in two columns, bfloat16 [64, 2].

    codes: of 2 * 32 bytes; one has a row's code in its low bits, and that of the row 32 further in its high ones.
    """
    half = TILE_ROWS // 2
    numbers = np.arange(2 * LANES, dtype=np.float32) % 16 - MIDDLE  # twice: the instruction reads five bits
    table = constants(_WORDS, (numbers.view(np.uint32) >> 16).tolist())
    first, second = (
        load(builder, after(builder, codes, column, half), ir.VectorType(BYTE, half)) for column in range(2)
    )
    _prefetch(builder, after(builder, codes, AHEAD, half))
    for part in range(half // LANES):
        rows = range(part * LANES, (part + 1) * LANES)
        places = [column * half + row for row in rows for column in range(2)]
        pairs = builder.zext(shuffled(builder, first, second, places), _WORDS)
        high = builder.lshr(pairs, constants(_WORDS, [4] * 2 * LANES))
        for number, index in ((part, pairs), (part + half // LANES, high)):
            found = call(builder, "llvm.x86.avx512.permvar.hi.512", _WORDS, table, index)
            store(builder, found, after(builder, weights, number, _VECTOR_BYTES), _VECTOR_BYTES)


def _unpack_8_bits(builder: Any, codes: Any, weights: Any) -> None:
    """Write the numbers of 8-bit codes of a tile in two columns, bfloat16 [64, 2]; codes: of 2 * 64 bytes."""
    for column in range(2):
        _prefetch(builder, after(builder, codes, AHEAD + column, TILE_ROWS))
    upper = [column * 2 * LANES + 2 * row + 1 for row in range(LANES) for column in range(2)]
    for part in range(_VECTORS):
        found = [load(builder, after(builder, codes, column * TILE_ROWS + part * LANES), BYTES) for column in range(2)]
        exact = [builder.sitofp(builder.sext(column, INTS), FLOATS) for column in found]
        first, second = (builder.bitcast(column, _WORDS) for column in exact)  # the lower half of such numbers is zero
        pairs = shuffled(builder, first, second, upper)
        store(builder, pairs, after(builder, weights, part, _VECTOR_BYTES), _VECTOR_BYTES)


def _round(builder: Any, sums: Any, outputs: Any) -> None:
    """Write 64 float32 numbers as bfloat16, rounded to even."""
    for part in range(_VECTORS):
        found = load(builder, after(builder, sums, part, _VECTOR_BYTES), FLOATS, _VECTOR_BYTES)
        kind = ir.VectorType(_BFloat16(), LANES)
        narrow = call(builder, "llvm.x86.avx512bf16.cvtneps2bf16.512", kind, found)
        store(builder, narrow, after(builder, outputs, part, 2 * LANES), 2)


unpack_4_bits, unpack_8_bits = _of_two_addresses(_unpack_4_bits), _of_two_addresses(_unpack_8_bits)
"""(codes, weights): write the numbers of a tile's codes in two columns."""
rounded = _of_two_addresses(_round)
"""(sums, outputs): write a tile's sums as outputs."""


def _to_pointer() -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], BYTE.as_pointer())

    @intrinsic
    def pointer(_: Any, address: Any) -> Any:
        return types.voidptr(types.int64), generate

    return pointer


as_pointer = _to_pointer()
"""(address): the same as a pointer."""


def _float_of() -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.shl(builder.zext(arguments[0], INT), ir.Constant(INT, 16))
        return builder.bitcast(bits, FLOAT)

    @intrinsic
    def number(_: Any, bits: Any) -> Any:
        return types.float32(types.uint16), generate

    return number


float_of = _float_of()
"""(bits): a bfloat16 number as float32."""
