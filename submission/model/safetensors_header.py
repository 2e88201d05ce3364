"""Read and write the headers of safetensors files: where each tensor lies, and the exact header of a file to write.

A file is: 8 bytes, the header's length as little-endian uint64; the header, a JSON object name -> {"dtype",
"shape", "data_offsets"}, padded with blanks to a multiple of 8 bytes; the tensors' bytes without gaps.
(https://github.com/huggingface/safetensors)

The one parser is strict, so that it serves untrusted files too: it says which kind of wrong a header is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from submission.errors import UserError
from submission.text.characters import printable

# In the order of the library, which places tensors of the last dtype first, so that all are aligned.
DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "F64": 8,
    "I64": 8,
    "U64": 8,
}
"""Bytes of one element, by the name of its dtype in the header."""

METADATA = {"format": "pt"}
"""What `transformers` requires and writes as a file's metadata."""

HEADER_LIMIT_BYTES = 100_000_000
"""Longest header that the library reads."""

LENGTH_BYTES = 8
"""Of the length at the beginning of a file."""

MOST_DIMENSIONS = 8

LARGEST_SIZE = 1 << 48
"""Larger than any file, small enough that a product of eight of them is an ordinary number."""

Problem = Literal["unreadable", "repeated", "layout"]


class BadHeader(Exception):
    """A header is malformed; its text is safe to show."""

    def __init__(self, problem: Problem, what: str, tensor: str | None = None) -> None:
        super().__init__(what if tensor is None else f"'{printable(tensor)}': {what}")
        self.problem = problem
        self.what = what
        self.tensor = tensor
        """Name of the tensor that is wrong, as the file gives it; None where it is the whole header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor of a file."""

    dtype: str
    """A key of `DTYPE_BYTES`."""
    shape: tuple[int, ...]
    begin: int
    """Offset of its first byte from the start of the data."""
    end: int
    """Offset after its last byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsHeader:
    """The header of one file."""

    size_bytes: int
    """Of the header alone."""
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]

    @property
    def data_offset(self) -> int:
        """Offset of the data in the file."""
        return LENGTH_BYTES + self.size_bytes


def tensor_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Return how many bytes a tensor takes."""
    return DTYPE_BYTES[dtype] * math.prod(shape)


def lay_out(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, TensorInfo]:
    """Return where the tensors, name -> (dtype, shape), lie in a file, in the order of the file.

    It is the library's own order (dtypes from wide to narrow, then names), so that loading a file and saving
    it again gives the same bytes.
    """
    rank = {dtype: place for place, dtype in enumerate(DTYPE_BYTES)}
    laid, offset = {}, 0
    for name in sorted(tensors, key=lambda name: (-rank[tensors[name][0]], name.encode("utf-8"))):
        dtype, shape = tensors[name]
        end = offset + tensor_bytes(dtype, shape)
        laid[name] = TensorInfo(dtype=dtype, shape=tuple(shape), begin=offset, end=end)
        offset = end
    return laid


def header_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """Return the first bytes of the file that holds these tensors: the length and the header."""
    header: dict[str, Any] = {"__metadata__": METADATA}
    for name, info in lay_out(tensors).items():
        header[name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [info.begin, info.end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def file_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    """Return the size of the file that holds these tensors, header included."""
    return len(header_bytes(tensors)) + sum(tensor_bytes(dtype, shape) for dtype, shape in tensors.values())


def read_header(path: Path) -> SafetensorsHeader:
    """Return the header of a file, having read nothing else of it.

    Raises UserError for a file that is missing, no safetensors, of unknown dtypes, or of another length than its header
    declares.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            data = file.read(LENGTH_BYTES)
            length = int.from_bytes(data, "little")
            data += file.read(length) if length <= HEADER_LIMIT_BYTES else b""
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", "name an existing safetensors file") from error
    try:
        return parse_header(data, size)
    except BadHeader as error:
        where = str(path) if error.tensor is None else f"{path}: {error.tensor}"
        no_header = error.problem == "unreadable" and error.tensor is None
        what = f"has no safetensors header ({error.what})" if no_header else error.what
        raise UserError(where, what, "the file is truncated or damaged: fetch or make it again") from error


def parse_header(data: bytes, file_size: int, limit: int = HEADER_LIMIT_BYTES) -> SafetensorsHeader:
    """Return the header of a file of `file_size` bytes whose first bytes are `data`; BadHeader where it is malformed.

    The header is at most `limit` bytes long. Neither a length nor a number nor a name in it, whoever wrote it, can make
    this function allocate more than that, loop, or raise another error.
    """
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    most = max(min(file_size - LENGTH_BYTES, limit), 0)
    if file_size < LENGTH_BYTES or length > most:
        raise BadHeader("unreadable", f"gives its header {length:,} bytes; here it can have {most:,} at most")
    text = data[LENGTH_BYTES : LENGTH_BYTES + length]
    if text[:1] != b"{":
        raise BadHeader("unreadable", "header: does not begin with '{'")
    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise BadHeader("unreadable", "header: is nested too deeply") from None
    except ValueError as error:
        raise BadHeader("unreadable", f"header: is not JSON in UTF-8: {printable(str(error))}") from None
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadHeader("unreadable", "header: __metadata__ is not a table of texts")
    tensors = {name: _tensor_info(name, entry) for name, entry in table.items()}
    _refuse_layout(tensors, file_size - LENGTH_BYTES - length)
    return SafetensorsHeader(size_bytes=length, tensors=tensors, metadata=metadata)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise BadHeader("repeated", f"header gives the key '{printable(name)}' more than once")
        table[name] = value
    return table


def _tensor_info(name: str, entry: Any) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadHeader("unreadable", "has not exactly dtype, shape and data_offsets", name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        spelled = f"'{printable(dtype, 80)}'" if isinstance(dtype, str) else type(dtype).__name__
        raise BadHeader("unreadable", f"unknown dtype {spelled}; known: {', '.join(DTYPE_BYTES)}", name)
    if not _sizes(shape) or len(shape) > MOST_DIMENSIONS or not _sizes(offsets) or len(offsets) != 2:
        raise BadHeader("unreadable", "has a shape or offsets that are no sizes", name)
    info = TensorInfo(dtype=dtype, shape=tuple(shape), begin=offsets[0], end=offsets[1])
    expected = tensor_bytes(dtype, info.shape)
    if info.end - info.begin != expected:
        what = f"{dtype} {list(shape)} takes {expected:,} bytes, its offsets give it {info.end - info.begin:,}"
        raise BadHeader("layout", what, name)
    return info


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(n) is int and 0 <= n <= LARGEST_SIZE for n in values)


def _refuse_layout(tensors: Mapping[str, TensorInfo], data_bytes: int) -> None:
    """Raise BadHeader unless the tensors cover the data exactly: no gap, no overlap, nothing beyond the end."""
    offset = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != offset:
            kind = "overlaps the tensor before it" if info.begin < offset else "leaves a gap before it"
            raise BadHeader("layout", f"{kind}: begins at byte {info.begin:,}, expected {offset:,}", name)
        offset = info.end
    if offset != data_bytes:
        raise BadHeader("layout", f"its tensors take {offset:,} bytes, the file holds {data_bytes:,} after the header")
