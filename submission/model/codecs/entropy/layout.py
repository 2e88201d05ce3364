"""The layout of a stream of entropy-coded codes, and what can be checked of it on a bare Python.

A stream holds the integer codes of one weight [rows, columns]; all numbers are little-endian:

    header      magic "EC01", rows, columns, bytes of classes, exceptions, bytes of exceptions, CRC-32 of all but
                payload and padding (uint32 each), density (40 × uint16, `tables.py`); with a trellis the magic is
                "ET01", and there are two densities
    index       for every block its end in the payload, in 16-bit words; then for every block its CRC-32 (uint32)
    classes     of every row and every column, the centre of every column, a shift for every sum of both classes
                (`classes.py`, `contexts.py`)
    payload     for every block the first state of each lane (uint32), then the words of interleaved range-ANS
    exceptions  pairs of variable-length integers in row-major order (`exceptions.py`)
    padding     zeros up to the bytes that were allotted to the tensor

A block is at most 4096 rows; its columns are a multiple of 32, so many that it has 2 ** 18 codes or somewhat more. A
lane is a column modulo 32. Why these numbers: a lane costs about 24 bits more than its codes' information, in every
block; 32 of them in 2 ** 18 codes are 0.003 bits a code. 32 lanes are what AVX2 and AVX-512 decoders want, 2 ** 18
codes take a core one to two milliseconds, and a weight of 4096 × 4096 has 64 blocks to share among cores.

With a trellis (`trellis.py`) the payload holds a code's index in the superset that the state machine of its column is
in. The machine begins at the state 0 in the first row of a block and in every 512th after it, so that blocks are
decoded by themselves.

Checksums find damage. The coder by itself sees only whether a block's words and last states come out, and an altered
bit may stand for another code of the same frequency. They are no defence against intent: whoever alters a stream and
its checksums gets other codes or a refusal, never a read out of bounds.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from submission.model.codecs.entropy.classes import ListReader, least_bytes

MAGIC = b"EC01"
TRELLIS_MAGIC = b"ET01"
HEADER = struct.Struct("<4s6I")
DENSITY_BINS = 40
"""Bins of the density of |code| / scale that a tensor stores (`tables.py`)."""
CHECKSUM_BYTES = 4
"""Bytes of the header's last field."""
BLOCK_ROWS = 4096
BLOCK_CODES = 1 << 18
LANES = 32
RESTART_ROWS = 512
"""Rows of a block after which the state machines of a trellis begin again: the Viterbi algorithm then works in a core's
cache. A path that has just begun is bound for three rows, which costs 0.1 % of the error."""
STATE_WORDS = 2
"""Words of 16 bits in a lane's state."""
CLASS_LISTS = 4
MOST_NUMBER_BITS = 9
"""Bits of a class at the width 7: one more 1 at most, a 0, and 7 low bits. A list's width is the best."""
MOST_SHIFTS = 255
"""Sums of two classes 0 … 127."""
HIGHEST_SIZE = (1 << 32) - 1
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
    trellis: bool = False
    """Whether codes follow a trellis."""

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
        """Columns of a block, a multiple of the lanes, nearly equal among blocks."""
        blocks = max(1, self.block_rows * self.columns // BLOCK_CODES)
        return LANES * -(-self.columns // (LANES * blocks))

    @property
    def across(self) -> int:
        """Blocks side by side."""
        return -(-self.columns // self.block_columns)

    @property
    def lanes(self) -> int:
        """Lanes of all blocks, at once for any shape that a file may claim."""
        last = self.columns - (self.across - 1) * self.block_columns
        return -(-self.rows // self.block_rows) * (LANES * (self.across - 1) + min(LANES, last))

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
    def supersets(self) -> int:
        """Number of supersets that codes are taken from, each with a density of its own."""
        return 2 if self.trellis else 1

    @property
    def magic(self) -> bytes:
        """What a stream begins with."""
        return TRELLIS_MAGIC if self.trellis else MAGIC

    @property
    def restarts(self) -> tuple[int, ...]:
        """Rows in which the state machines begin, ascending; none without a trellis."""
        tops = range(0, self.rows if self.trellis else 0, self.block_rows)
        return tuple(row for top in tops for row in range(top, min(top + self.block_rows, self.rows), RESTART_ROWS))

    @property
    def index_start(self) -> int:
        """Byte at which the index begins: after the header and its densities."""
        return HEADER.size + 2 * DENSITY_BINS * self.supersets

    @property
    def classes_start(self) -> int:
        """Byte at which the classes begin: after header and index."""
        return self.index_start + 8 * self.count

    @property
    def least_class_bytes(self) -> int:
        """The fewest bytes of classes."""
        return least_bytes(self.rows + 2 * self.columns + 1, CLASS_LISTS)

    @property
    def most_class_bytes(self) -> int:
        """The most bytes of classes, so that what reads them is bounded."""
        numbers = self.rows + 2 * self.columns + MOST_SHIFTS
        return least_bytes(MOST_NUMBER_BITS * numbers, CLASS_LISTS)


def fixed_bytes(rows: int, columns: int, *, trellis: bool = False) -> int:
    """Return the fewest bytes that a stream of this shape has.

    That is header, index, states, and one bit for every class and centre.
    """
    grid = Grid(rows=rows, columns=columns, trellis=trellis)
    return grid.classes_start + grid.least_class_bytes + 2 * STATE_WORDS * grid.lanes


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """The classes of a stream, one byte each, 0 … 127."""

    rows: bytes
    columns: bytes
    centres: bytes
    """64 and what is added to the codes of a column."""
    shifts: bytes
    """For every sum of a row and a column class, from the lowest: 64 and the shift of its context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What `check_header` found: where the parts of a stream lie."""

    grid: Grid
    densities: tuple[tuple[int, ...], ...]
    """One, or with a trellis one for each superset."""
    classes: Classes
    payload_start: int
    exceptions: int
    """Number of exceptions."""
    exceptions_start: int
    """Byte at which the exceptions begin, behind the payload."""
    used_bytes: int
    """Bytes before the padding."""
    ends: tuple[int, ...]
    """End of every block in the payload, in words."""
    checksums: tuple[int, ...]
    """CRC-32 of every block's bytes."""

    def words(self, index: int) -> slice:
        """Return where the words of a block lie in the stream, in bytes."""
        start = self.ends[index - 1] if index else 0
        return slice(self.payload_start + 2 * start, self.payload_start + 2 * self.ends[index])


def checksum(head: bytes, exceptions: bytes) -> int:
    """Return the CRC-32 of header (but for that field), index, classes, and exceptions."""
    start = zlib.crc32(head[: HEADER.size - CHECKSUM_BYTES])
    return zlib.crc32(exceptions, zlib.crc32(head[HEADER.size :], start))


def check_payload(stream: bytes, header: Header) -> None:
    """Raise ValueError where the bytes of a block are not those of its checksum. Codes are not decoded."""
    for index in range(header.grid.count):
        check_block(stream[header.words(index)], header, index)


def check_block(words: bytes, header: Header, index: int) -> None:
    """Raise ValueError where these are not the bytes of the block at a place in the index."""
    if zlib.crc32(words) != header.checksums[index]:
        block = header.grid.block(index)
        raise ValueError(f"payload: the block at row {block.row}, column {block.column} is damaged; {_BROKEN}")


def check_header(stream: bytes, rows: int, columns: int, size: int, *, trellis: bool = False) -> Header:
    """Return the parts of a stream for a weight of this shape and `size` allotted bytes, or refuse it.

    trellis: whether its codes are to follow a trellis; a stream of the other form is refused.

    Checked are header, index, classes, the exceptions' bounds and count, the padding, and the checksum of all these:
    all but the payload (`check_payload`). Raises ValueError that begins with the part at fault.
    """
    grid = Grid(rows=rows, columns=columns, trellis=trellis)
    if len(stream) != size:
        raise ValueError(f"stream: {len(stream)} bytes where {size} are allotted; {_BROKEN}")
    if size < fixed_bytes(rows, columns, trellis=trellis):
        raise ValueError(f"header: {size} bytes cannot hold a stream of {rows} × {columns} codes; {_BROKEN}")
    magic, *shape, class_bytes, exceptions, exception_bytes, expected = HEADER.unpack_from(stream)
    if magic != grid.magic:
        what = "this is no stream of entropy-coded codes" if magic not in (MAGIC, TRELLIS_MAGIC) else _OTHER_FORM
        raise ValueError(f"header: expected {grid.magic!r}, got {magic!r}; {what}")
    if tuple(shape) != (rows, columns):
        raise ValueError(f"header: expected {rows} × {columns} codes, got {shape[0]} × {shape[1]}; {_BROKEN}")
    index = struct.unpack_from(f"<{2 * grid.count}I", stream, grid.index_start)
    ends, checksums = index[: grid.count], index[grid.count :]
    _check_index(grid, ends)
    if class_bytes > grid.most_class_bytes:
        raise ValueError(f"classes: {class_bytes} bytes, at most {grid.most_class_bytes}; {_BROKEN}")
    payload = grid.classes_start + class_bytes
    used = (start := payload + 2 * ends[-1]) + exception_bytes
    if used > size:
        raise ValueError(f"index: classes, payload and exceptions end at {used} of {size} bytes; {_BROKEN}")
    _check_exceptions(bytes(stream[start:used]), exceptions, rows * columns)
    header = Header(
        grid=grid,
        densities=tuple(_read_density(stream, superset) for superset in range(grid.supersets)),
        classes=_read_classes(grid, bytes(stream[grid.classes_start : payload])),
        payload_start=payload,
        exceptions=exceptions,
        exceptions_start=start,
        used_bytes=used,
        ends=ends,
        checksums=checksums,
    )
    if bytes(stream[used:]).strip(b"\0"):
        raise ValueError(f"padding: a byte is not zero; {_BROKEN}")
    if checksum(bytes(stream[:payload]), bytes(stream[start:used])) != expected:
        raise ValueError(f"header: the checksum of header, index, classes and exceptions is another; {_BROKEN}")
    return header


def _read_density(stream: bytes, superset: int) -> tuple[int, ...]:
    """Return the density of a superset; ValueError where it has no mass."""
    density = struct.unpack_from(f"<{DENSITY_BINS}H", stream, HEADER.size + 2 * DENSITY_BINS * superset)
    if not any(density):
        raise ValueError(f"density: all of its bins are empty; {_BROKEN}")
    return density


def _read_classes(grid: Grid, section: bytes) -> Classes:
    """Return what the section of classes holds; ValueError where that is anything else."""
    reader = ListReader(section)
    rows, columns, centres = reader.read(grid.rows), reader.read(grid.columns), reader.read(grid.columns)
    shifts = reader.read(max(rows) + max(columns) - min(rows) - min(columns) + 1)
    reader.finish()
    return Classes(rows=rows, columns=columns, centres=centres, shifts=shifts)


_BROKEN = "the file is damaged or belongs to another model"
_OTHER_FORM = "its codes are stored in the other form, and `trellis` in the configuration says which"


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
