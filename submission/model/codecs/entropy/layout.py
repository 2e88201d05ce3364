"""The layout of a stream of entropy-coded codes, and what can be checked of it on a bare Python.

A stream holds the integer codes of one weight [rows, columns]; all numbers are little-endian:

    header      magic "EC01", rows, columns, exceptions, bytes of exceptions (uint32 each), density (40 × uint16)
    classes     one byte for every row, one for every column
    index       for every block its end in the payload, in 16-bit words (uint32)
    payload     for every block the first state of each lane (uint32), then the words of interleaved range-ANS
    exceptions  pairs of variable-length integers in row-major order (`exceptions.py`)
    padding     zeros up to the bytes that were allotted to the tensor

A block is at most 4096 rows; its columns are a multiple of 32, so many that it has about 2 ** 18 codes. A lane is a
column modulo 32. Why these numbers: a lane costs 16 bits more than its codes' information, in every block; 32 of them
in 2 ** 18 codes are 0.002 bits a code. 32 lanes are what AVX2 and AVX-512 decoders want, 2 ** 18 codes take a core two
milliseconds, and a weight of 4096 × 4096 has 64 blocks to share among cores.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"EC01"
HEADER = struct.Struct("<4s4I")
DENSITY_BINS = 40
"""Bins of the density of |code| / scale that a tensor stores (`tables.py`)."""
HEADER_BYTES = HEADER.size + 2 * DENSITY_BINS
BLOCK_ROWS = 4096
BLOCK_CODES = 1 << 18
LANES = 32
STATE_WORDS = 2
"""Words of 16 bits in a lane's state."""
HIGHEST_CLASS = 127
"""Row and column classes are 0 … 127."""
HIGHEST_SIZE = (1 << 32) - 1
NO_CLASSES = bytes(range(HIGHEST_CLASS + 1))
CONTINUED = bytes(range(128, 256))
"""Bytes of a variable-length integer that others follow."""
MOST_CODES = 1 << 40
"""Codes of a weight, so that positions are small integers everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A rectangle of codes that is decoded by itself."""

    row: int
    """First row."""
    rows: int
    column: int
    """First column."""
    columns: int

    @property
    def lanes(self) -> int:
        """Number of interleaved coders."""
        return min(LANES, self.columns)

    @property
    def most_words(self) -> int:
        """Words that a block cannot exceed.

        A code of frequency f multiplies a state x by at most 4096 / f * (1 + f / x), and x is at least 16 f: 12 bits
        and log2(17 / 16), taken as 12 1/8.
        """
        return self.lanes * (STATE_WORDS + 1) + -(-self.rows * self.columns * 97 // 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """How a weight is cut into blocks: all have the same size but those at the lower and right edges."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            if not 1 <= getattr(self, name) <= HIGHEST_SIZE:
                raise ValueError(f"{name}: {getattr(self, name)} is not in 1 … {HIGHEST_SIZE}; give a weight's shape")
        if self.rows * self.columns > MOST_CODES:
            raise ValueError(f"rows: {self.rows} × {self.columns} are above {MOST_CODES} codes; split the weight")

    @property
    def block_rows(self) -> int:
        """Rows of a block, nearly equal among blocks: 4097 rows are cut into 2049 and 2048."""
        return -(-self.rows // -(-self.rows // BLOCK_ROWS))

    @property
    def block_columns(self) -> int:
        """Columns of a block, a multiple of the lanes."""
        return LANES * max(1, BLOCK_CODES // (LANES * self.block_rows))

    @property
    def across(self) -> int:
        """Blocks side by side."""
        return -(-self.columns // self.block_columns)

    @property
    def count(self) -> int:
        """Number of blocks."""
        return self.across * -(-self.rows // self.block_rows)

    def block(self, index: int) -> Block:
        """Return a block by its place in the index: from left to right, then downwards."""
        down, right = divmod(index, self.across)
        row, column = down * self.block_rows, right * self.block_columns
        rows = min(self.block_rows, self.rows - row)
        return Block(row=row, rows=rows, column=column, columns=min(self.block_columns, self.columns - column))

    def blocks(self) -> Iterator[Block]:
        """Yield all blocks in the order of the index."""
        return (self.block(index) for index in range(self.count))

    def covering(self, rows: range, columns: range) -> list[int]:
        """Return the places of the blocks that hold a slice of rows and columns, none where it is empty."""
        if not rows or not columns:
            return []
        down = range(rows.start // self.block_rows, (rows.stop - 1) // self.block_rows + 1)
        right = range(columns.start // self.block_columns, (columns.stop - 1) // self.block_columns + 1)
        return [i * self.across + j for i in down for j in right]

    @property
    def index_start(self) -> int:
        """Byte at which the index begins: after header and classes."""
        return HEADER_BYTES + self.rows + self.columns

    @property
    def payload_start(self) -> int:
        """Byte at which the payload begins."""
        return self.index_start + 4 * self.count


def fixed_bytes(rows: int, columns: int) -> int:
    """Return the bytes of a stream that do not depend on the codes: header, classes, index, states.

    No stream of this shape is shorter.
    """
    grid = Grid(rows=rows, columns=columns)
    return grid.payload_start + 2 * STATE_WORDS * sum(block.lanes for block in grid.blocks())


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What `check_header` found: where the parts of a stream lie."""

    grid: Grid
    exceptions: int
    """Number of exceptions."""
    exceptions_start: int
    """Byte at which the exceptions begin, behind the payload."""
    used_bytes: int
    """Bytes before the padding."""
    ends: tuple[int, ...]
    """End of every block in the payload, in words."""
    density: tuple[int, ...]


def check_header(stream: bytes, rows: int, columns: int, size: int) -> Header:
    """Return the parts of a stream for a weight of this shape and `size` allotted bytes, or refuse it.

    Checked are header, classes, index, the exceptions' bounds and count, and the padding: all but the codes. Raises
    ValueError that begins with the part at fault.
    """
    grid = Grid(rows=rows, columns=columns)
    if len(stream) != size:
        raise ValueError(f"stream: {len(stream)} bytes where {size} are allotted; {_BROKEN}")
    if size < grid.payload_start:
        raise ValueError(f"header: {size} bytes cannot hold header, classes and index of {rows} × {columns}; {_BROKEN}")
    magic, *shape, exceptions, exception_bytes = HEADER.unpack_from(stream)
    if magic != MAGIC:
        raise ValueError(f"header: expected {MAGIC!r}, got {magic!r}; this is no stream of entropy-coded codes")
    if tuple(shape) != (rows, columns):
        raise ValueError(f"header: expected {rows} × {columns} codes, got {shape[0]} × {shape[1]}; {_BROKEN}")
    density = struct.unpack_from(f"<{DENSITY_BINS}H", stream, HEADER.size)
    if not any(density):
        raise ValueError(f"density: all of its bins are empty; {_BROKEN}")
    if bytes(stream[HEADER_BYTES : grid.index_start]).translate(None, NO_CLASSES):
        raise ValueError(f"classes: one is above {HIGHEST_CLASS}; {_BROKEN}")
    ends = struct.unpack_from(f"<{grid.count}I", stream, grid.index_start)
    _check_index(grid, ends)
    start = grid.payload_start + 2 * ends[-1]
    if start + exception_bytes > size:
        raise ValueError(f"index: payload and exceptions end at {start + exception_bytes} of {size} bytes; {_BROKEN}")
    _check_exceptions(bytes(stream[start : start + exception_bytes]), exceptions, rows * columns)
    if bytes(stream[start + exception_bytes :]).strip(b"\0"):
        raise ValueError(f"padding: a byte is not zero; {_BROKEN}")
    used = start + exception_bytes
    return Header(
        grid=grid, exceptions=exceptions, exceptions_start=start, used_bytes=used, ends=ends, density=density
    )


_BROKEN = "the file is damaged or belongs to another model"


def _check_index(grid: Grid, ends: tuple[int, ...]) -> None:
    """Raise ValueError where a block has fewer words than its states or more than its codes can take."""
    before = 0
    for block, end in zip(grid.blocks(), ends, strict=True):
        words = end - before
        if not STATE_WORDS * block.lanes <= words <= block.most_words:
            where = f"row {block.row}, column {block.column}"
            raise ValueError(f"index: the block at {where} has {words} words, at most {block.most_words}; {_BROKEN}")
        before = end


def _check_exceptions(section: bytes, exceptions: int, codes: int) -> None:
    """Raise ValueError where these bytes cannot be that many pairs of variable-length integers."""
    if exceptions > codes:
        raise ValueError(f"exceptions: {exceptions} of {codes} codes; {_BROKEN}")
    if len(section.translate(None, CONTINUED)) != 2 * exceptions or section[-1:] > b"\x7f":
        raise ValueError(f"exceptions: {len(section)} bytes do not hold {exceptions} pairs; {_BROKEN}")
