"""Helpers that write LLVM code for vectors of 16 numbers, which it turns into instructions of a processor's own width.

Loops over single numbers it vectorizes only at times, and then they are four times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

LANES = 16
"""Numbers of a vector of 32 bits each; one of 16 bits has as many pairs."""

BYTE, WORD, INT, LONG, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
BYTES, INTS, FLOATS = (ir.VectorType(kind, LANES) for kind in (BYTE, INT, FLOAT))


def long(value: int) -> ir.Constant:
    """Return a constant of 64 bits."""
    return ir.Constant(LONG, value)


def constants(kind: ir.VectorType, values: Sequence[float]) -> ir.Constant:
    """Return a vector of constants."""
    return ir.Constant(kind, list(values))


def splat(builder: Any, number: Any) -> Any:
    """Return a vector of one number, 16 times."""
    kind = ir.VectorType(number.type, LANES)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, first, constants(INTS, [0] * LANES))


def shuffled(builder: Any, first: Any, second: Any, places: Sequence[int]) -> Any:
    """Return a vector of the numbers at these places of two vectors, one behind the other."""
    return builder.shuffle_vector(first, second, constants(ir.VectorType(INT, len(places)), places))


def load(builder: Any, address: Any, kind: Any, align: int = 1) -> Any:
    """Return what is at an address in memory."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def store(builder: Any, value: Any, address: Any, align: int = 1) -> None:
    """Write a value to an address in memory."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def after(builder: Any, address: Any, count: Any, size: int = 1) -> Any:
    """Return the address behind so many things of a size in bytes; count: an int or a value of 64 bits."""
    if isinstance(count, int):
        return builder.add(address, long(count * size))
    return builder.add(address, builder.mul(count, long(size)))


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Return what one of LLVM's own functions computes."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    known = builder.module.globals.get(name)
    return builder.call(ir.Function(builder.module, kind, name) if known is None else known, arguments)
