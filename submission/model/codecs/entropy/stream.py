"""Codes of a weight to a stream of an exact number of bytes, and back.

Every block is coded by itself, so blocks are shared among threads: the compiled loops hold no lock. What a codec needs
beside the stream is how codes become weights, `code × row scale × column scale` say; nothing of that is in here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from submission.model.codecs.entropy import layout
from submission.model.codecs.entropy.classes import list_bits, pack_lists
from submission.model.codecs.entropy.contexts import CENTRE, Contexts, coded_bits
from submission.model.codecs.entropy.exceptions import Exceptions, pack_exceptions, unpack_exceptions
from submission.model.codecs.entropy.layout import HEADER, Block, Grid, check_header
from submission.model.codecs.entropy.parts import map_parts, row_parts
from submission.model.codecs.entropy.tables import HIGHEST_CODE

if TYPE_CHECKING:
    import numpy as np

STATE_BITS = 32
USUAL_EXCEPTIONS = 256
"""One exception in so many codes is looked for at first; more take a second pass."""
SPARE_STATE_BITS = 8
"""Bits of a lane's stored state that hold codes, on average: it lies anywhere between 2 ** 16 and 2 ** 32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Codes of a weight, or of a slice of it."""

    codes: np.ndarray
    """int8 [rows, columns]; a code beyond ±127 is clipped to ±127 here."""
    positions: np.ndarray
    """int64, row-major and ascending: where codes are beyond ±127."""
    remainders: np.ndarray
    """int64: what is to be added to the codes at these positions."""

    def exact(self) -> np.ndarray:
        """Return int32 [rows, columns]: all codes."""
        import numpy as np

        whole = self.codes.astype(np.int32)
        whole.reshape(-1)[self.positions] += self.remainders
        return whole


def encode(codes: np.ndarray, contexts: Contexts, budget_bytes: int, *, workers: int = 1) -> np.ndarray:
    """Return the stream, uint8 [budget_bytes], of codes, integers [rows, columns], padded with zeros.

    Raises ValueError where the stream is longer than that, and where the contexts are of a trellis that codes do not
    follow.
    """
    import numpy as np

    codes = _checked_codes(codes, contexts)
    _check_path(codes, contexts)
    (section, count), classes = _exceptions_section(codes, contexts, workers), _classes_section(contexts)
    grid = _grid(codes, contexts)
    blocks = map_parts(_block_encoder(codes, contexts), grid.blocks(), workers)
    used = grid.classes_start + len(classes) + sum(map(len, blocks)) + len(section)
    if used > budget_bytes:
        what = f"the stream of {codes.shape[0]} × {codes.shape[1]} codes has {used} bytes"
        raise ValueError(f"{what} where {budget_bytes} are allotted; use a larger step or a larger budget")
    head = HEADER.pack(grid.magic, *codes.shape, len(classes), count, len(section), 0)
    head += np.array(contexts.densities, "<u2").tobytes() + _index(blocks) + classes
    check = layout.checksum(head, section).to_bytes(layout.CHECKSUM_BYTES, "little")
    parts = [head[: HEADER.size - len(check)], check, head[HEADER.size :], *blocks, section, bytes(budget_bytes - used)]
    return np.frombuffer(b"".join(parts), np.uint8).copy()


def stream_bytes(codes: np.ndarray, contexts: Contexts, *, workers: int = 1) -> int:
    """Return the bytes of a stream before padding, exactly.

    The words depend on every lane's state, so this takes the time of `encode`; `rate_bits` of a sample of rows is
    what a search begins with. Only one block's words per worker are held.
    """
    codes = _checked_codes(codes, contexts)
    section, _ = _exceptions_section(codes, contexts, workers)
    encode_one = _block_encoder(codes, contexts)
    grid = _grid(codes, contexts)
    sizes = map_parts(lambda block: len(encode_one(block)), grid.blocks(), workers)
    total: int = grid.classes_start + len(_classes_section(contexts)) + sum(sizes) + len(section)
    return total


def rate_bits(sample: np.ndarray, contexts: Contexts, *, rows: int) -> float:
    """Return the expected bits of the stream of a weight of so many rows, from a sample of its rows.

    sample: integers [sampled rows, columns]; contexts: those of the sample. With all rows the result is within about
    0.02 % of the stream's bits.
    """
    sample = _checked_codes(sample, contexts)
    section, _ = _exceptions_section(sample, contexts)
    coded = coded_bits(sample, contexts) + 8 * len(section)
    grid = Grid(rows=rows, columns=sample.shape[1], trellis=contexts.trellis)
    classes = sum(len(list_bits(numbers)) for numbers in _lists(contexts)[1:])
    coded += len(list_bits(_lists(contexts)[0]))
    fixed = 8 * grid.classes_start + (STATE_BITS - SPARE_STATE_BITS) * grid.lanes + classes
    return float(fixed + coded * rows / len(sample))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedStream:
    """A stream whose header is checked and whose exceptions are read, for slices to be decoded one after the other."""

    data: bytes
    header: layout.Header
    contexts: Contexts
    exceptions: Exceptions

    def decode(self, *, rows: range | None = None, columns: range | None = None, workers: int = 1) -> Decoded:
        """Return the codes of a slice, as the function `decode` does."""
        import numpy as np

        grid = self.header.grid
        rows, columns = _inside(rows, grid.rows, "rows"), _inside(columns, grid.columns, "columns")
        codes = np.empty((len(rows), len(columns)), np.int8)
        decode_one = _block_decoder(self.data, self.header, self.contexts, codes, rows, columns)
        map_parts(decode_one, grid.covering(rows, columns), workers)
        return _with_exceptions(codes, self.exceptions, self.contexts, rows, columns)


def open_stream(stream: np.ndarray | bytes, shape: tuple[int, int], *, trellis: bool = False) -> OpenedStream:
    """Return what a stream holds beside its blocks, checked; ValueError as of `decode`."""
    import numpy as np

    data = stream if isinstance(stream, bytes) else np.ascontiguousarray(stream, np.uint8).tobytes()
    header = check_header(data, *shape, len(data), trellis=trellis)
    section = data[header.exceptions_start : header.used_bytes]
    exceptions = unpack_exceptions(section, header.exceptions, shape[0] * shape[1])
    return OpenedStream(data=data, header=header, contexts=_contexts(header), exceptions=exceptions)


def decode(
    stream: np.ndarray | bytes,
    shape: tuple[int, int],
    *,
    trellis: bool = False,
    rows: range | None = None,
    columns: range | None = None,
    workers: int = 1,
) -> Decoded:
    """Return the codes of a weight of this shape, or of a slice of its rows and columns (steps of 1).

    Of a slice only the blocks that it meets are decoded and checked. Raises ValueError for a stream that is not
    whole, beginning with the part at fault. Damage is refused by checksums. Where these were altered as well, bytes
    are decoded to other codes if all words are used up and every lane ends in its first state, and refused if not.
    """
    return open_stream(stream, shape, trellis=trellis).decode(rows=rows, columns=columns, workers=workers)


def _checked_codes(codes: np.ndarray, contexts: Contexts) -> np.ndarray:
    """Return codes in row-major order, int16 or int32; ValueError where they do not fit in or match the contexts."""
    import numpy as np

    if codes.ndim != 2 or not codes.size or codes.dtype.kind not in "iu":
        raise ValueError(f"codes: expected integers [rows, columns], got {codes.dtype} {list(codes.shape)}; reshape")
    if (contexts.row_classes.size, contexts.column_classes.size) != codes.shape:
        raise ValueError(f"contexts: they are of another shape than codes {list(codes.shape)}; fit them to these codes")
    if codes.dtype.itemsize > 4 or codes.dtype.kind == "u":
        limits = np.iinfo(np.int32)
        if int(codes.min()) < limits.min or int(codes.max()) > limits.max:
            raise ValueError("codes: one is beyond int32; use a larger step")
    return np.ascontiguousarray(codes, np.int16 if codes.dtype.kind == "i" and codes.dtype.itemsize <= 2 else np.int32)


def _check_path(codes: np.ndarray, contexts: Contexts) -> None:
    """Raise ValueError where contexts are of a trellis and codes do not follow it."""
    import numpy as np

    if not contexts.trellis:
        return
    from submission.model.codecs.entropy.trellis import first_stray

    row = first_stray(codes, np.array(_grid(codes, contexts).restarts))
    if row >= 0:
        raise ValueError(f"codes: row {row} leaves the trellis; choose codes by a solver that follows it")


def _grid(codes: np.ndarray, contexts: Contexts) -> Grid:
    return Grid(rows=codes.shape[0], columns=codes.shape[1], trellis=contexts.trellis)


def _index(blocks: list[bytes]) -> bytes:
    """Return the ends of blocks in words, and their checksums."""
    import numpy as np

    ends = np.cumsum([len(words) // 2 for words in blocks])
    return np.concatenate([ends, [zlib.crc32(words) for words in blocks]]).astype("<u4").tobytes()


def _block_encoder(codes: np.ndarray, contexts: Contexts) -> Callable[[Block], bytes]:
    """Return a function that makes a block's words, as bytes, of codes in row-major order."""
    import numpy as np

    from submission.model.codecs.entropy.kernels import encode_block

    table, (row_indexes, column_indexes) = contexts.by_place(lambda found: found.coding()), contexts.indexes()

    def encode_one(block: Block) -> bytes:
        words = np.empty(block.most_words, np.uint16)
        down = slice(block.row, block.row + block.rows)
        right = slice(block.column, block.column + block.columns)
        part = np.ascontiguousarray(codes[down, right])  # rows of the whole weight are memory pages apart
        indexes = row_indexes[down], column_indexes[right]
        first = encode_block(part, *indexes, contexts.centres[right], contexts.trellis, table, words)
        return words[first:].astype("<u2").tobytes()

    return encode_one


def _exceptions_section(codes: np.ndarray, contexts: Contexts, workers: int = 1) -> tuple[bytes, int]:
    """Return the bytes of the exceptions and their number."""
    import numpy as np

    from submission.model.codecs.entropy.kernels import find_exceptions

    reach, (row_indexes, column_indexes) = contexts.by_place(lambda found: found.reach), contexts.indexes()

    def find(part: slice) -> tuple[np.ndarray, np.ndarray]:
        there = codes[part]
        places = there.size // USUAL_EXCEPTIONS + 1
        while True:
            positions, values = np.empty(places, np.int64), np.empty(places, np.int32)
            indexes = row_indexes[part], column_indexes
            count = find_exceptions(there, *indexes, contexts.centres, contexts.trellis, reach, positions, values)
            if count <= places:
                return positions[:count] + part.start * codes.shape[1], values[:count]
            places = count

    found = map_parts(find, row_parts(len(codes), workers), workers)
    positions, values = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return pack_exceptions(Exceptions(positions=positions, values=values)), len(positions)


def _classes_section(contexts: Contexts) -> bytes:
    """Return the bytes of classes and shifts."""
    return pack_lists(_lists(contexts))


def _lists(contexts: Contexts) -> list[list[int]]:
    """Return the numbers of rows, columns, centres and shifts as they are stored."""
    arrays = (contexts.row_classes, contexts.column_classes, contexts.centres + CENTRE, contexts.shifts)
    return [array.tolist() for array in arrays]


def _inside(part: range | None, whole: int, name: str) -> range:
    """Return a range of rows or columns; ValueError where it is not within the weight."""
    if part is None:
        return range(whole)
    if part.step != 1 or not 0 <= part.start <= part.stop <= whole:
        raise ValueError(f"{name}: {part} is not within {whole}; give a range with a step of 1")
    return part


def _block_decoder(
    data: bytes, header: layout.Header, contexts: Contexts, codes: np.ndarray, rows: range, columns: range
) -> Callable[[int], None]:
    """Return a function that decodes the block at a place in the index into its part of the codes of a slice."""
    import numpy as np

    from submission.model.codecs.entropy.kernels import OK, decode_block

    row_indexes, column_indexes = contexts.indexes()
    table = contexts.by_place(lambda found: found.decoding())

    def decode_one(index: int) -> None:
        block, packed = header.grid.block(index), data[header.words(index)]
        layout.check_block(packed, header, index)
        top, left = block.row - rows.start, block.column - columns.start
        inside = min(top, left) >= 0 and top + block.rows <= len(rows) and left + block.columns <= len(columns)
        target = codes if inside else np.empty((block.rows, block.columns), np.int8)
        status = decode_block(
            np.frombuffer(packed, "<u2").astype(np.uint16),
            row_indexes[block.row : block.row + block.rows],
            column_indexes[block.column : block.column + block.columns],
            contexts.centres[block.column : block.column + block.columns],
            np.zeros(layout.LANES, np.uint64) if contexts.trellis else None,
            table,
            target,
            *((top, block.rows, left, block.columns) if inside else (0, block.rows, 0, block.columns)),
        )
        if status != OK:
            where = f"row {block.row}, column {block.column}"
            raise ValueError(f"payload: the block at {where} cannot be decoded; the file is damaged")
        if not inside:
            part = target[max(0, -top) : len(rows) - top, max(0, -left) : len(columns) - left]
            down, right = max(0, top), max(0, left)
            codes[down : down + part.shape[0], right : right + part.shape[1]] = part

    return decode_one


def _contexts(header: layout.Header) -> Contexts:
    """Return the contexts that a stream says."""
    import numpy as np

    found = header.classes
    rows, columns, centres, shifts = (
        np.frombuffer(numbers, np.uint8) for numbers in (found.rows, found.columns, found.centres, found.shifts)
    )
    return Contexts(
        row_classes=rows,
        column_classes=columns,
        centres=centres.astype(np.int64) - CENTRE,
        shifts=shifts,
        densities=header.densities,
    )


def _with_exceptions(
    codes: np.ndarray, exceptions: Exceptions, contexts: Contexts, rows: range, columns: range
) -> Decoded:
    """Return the codes of a slice with the exceptions in it."""
    import numpy as np

    row, column = np.divmod(exceptions.positions, contexts.centres.size)
    here = (row >= rows.start) & (row < rows.stop) & (column >= columns.start) & (column < columns.stop)
    row, column, values = row[here] - rows.start, column[here] - columns.start, exceptions.values[here]
    written = contexts.centres[columns.start + column]
    if contexts.trellis:
        written = 2 * (written + ((values >> 1) - written & 1)) + (values & 1)
    if (codes[row, column] != written).any():
        raise ValueError("exceptions: one is a code that the payload holds; the file is damaged")
    capped = np.clip(values, -HIGHEST_CODE, HIGHEST_CODE).astype(np.int8)
    codes[row, column] = capped
    far = values != capped
    positions = row[far] * len(columns) + column[far]
    return Decoded(codes=codes, positions=positions, remainders=values[far].astype(np.int64) - capped[far])
