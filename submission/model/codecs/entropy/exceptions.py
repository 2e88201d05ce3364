"""Codes that the payload does not hold, as a list of positions and values.

In the payload such a code is written as its column's centre, the cheapest, and here exactly. Positions are row-major
and ascending. Each exception is two variable-length integers (7 bits a byte, lowest first): the codes passed over since
the one before, and the value in zigzag form (0, -1, 1, -2 … become 0, 1, 2, 3 …), three to four bytes in all. A
position that is repeated or descends cannot be written in this form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Exceptions:
    """Codes that are not in the payload."""

    positions: np.ndarray
    """int64, row-major: row × columns + column, strictly ascending."""
    values: np.ndarray
    """int32."""


def pack_exceptions(exceptions: Exceptions) -> bytes:
    """Return the bytes of a list of exceptions."""
    import numpy as np

    from submission.model.codecs.entropy.kernels import write_varints

    values = exceptions.values.astype(np.int64)
    numbers = np.empty(2 * values.size, np.uint64)
    numbers[0::2] = np.diff(exceptions.positions, prepend=-1) - 1
    numbers[1::2] = np.where(values < 0, -2 * values - 1, 2 * values)
    out = np.empty(11 * values.size, np.uint8)  # 40 and 32 bits take 6 and 5 bytes
    return out[: write_varints(numbers, out)].tobytes()


def unpack_exceptions(section: bytes, count: int, codes: int) -> Exceptions:
    """Return `count` exceptions of a weight with so many codes; ValueError where these bytes are no such list."""
    import numpy as np

    from submission.model.codecs.entropy.kernels import OK, POSITION, read_exceptions

    if 2 * count > len(section):
        raise ValueError(f"exceptions: {len(section)} bytes do not hold {count} pairs; the file is damaged")
    positions, values = np.empty(count, np.int64), np.empty(count, np.int32)
    status = read_exceptions(np.frombuffer(section, np.uint8), codes, positions, values)
    if status == POSITION:
        raise ValueError(f"exceptions: a position is beyond the {codes} codes; the file is damaged")
    if status != OK:
        raise ValueError(f"exceptions: {len(section)} bytes are not {count} pairs of integers; the file is damaged")
    return Exceptions(positions=positions, values=values)
