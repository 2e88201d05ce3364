"""The header of a safetensors file from a stranger.

`submission.model.safetensors_header` reads the files of this house and stops at the first thing that is not right. This
reader says which kind of wrong it is, and neither a length, a number nor a name in the header can make it
allocate, loop or fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from submission.bundle.checks.strict_json import RepeatedKey, Unreadable, parse_json
from submission.bundle.checks.untrusted_folder import Folder
from submission.model.safetensors_header import DTYPE_BYTES, TensorInfo
from submission.text.characters import printable

LENGTH_BYTES = 8
MOST_DIMENSIONS = 8
# Larger than any file, small enough that a product of eight of them is an ordinary number.
LARGEST_SIZE = 1 << 48

Problem = Literal["unreadable", "repeated", "layout"]


class BadHeader(Exception):
    """A header is not one; `problem` is the kind of wrong."""

    def __init__(self, problem: Problem, what: str) -> None:
        super().__init__(what)
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The tensors of one file of the model folder."""

    size_bytes: int
    """Of the header alone."""
    tensors: dict[str, TensorInfo]


def read_header(folder: Folder, path: str, limit: int) -> Header:
    """Return the header of a safetensors file, at most `limit` bytes long; BadHeader says what is wrong with it."""
    size = folder.files[path].size_bytes
    try:
        data = _first_bytes(folder, path, limit)
    except Unreadable as error:
        raise BadHeader("unreadable", str(error)) from None
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    room = max(min(size - LENGTH_BYTES, limit), 0)
    if size < LENGTH_BYTES or length > room:
        raise BadHeader("unreadable", f"says its header has {length:,} bytes; here it can have {room:,} at most")
    if data[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
        raise BadHeader("unreadable", "header: does not begin with '{'")
    try:
        table = parse_json(data[LENGTH_BYTES : LENGTH_BYTES + length])
    except RepeatedKey as error:
        raise BadHeader("repeated", f"header {error}") from None
    except Unreadable as error:
        raise BadHeader("unreadable", f"header {error}") from None
    if not isinstance(table, dict):
        raise BadHeader("unreadable", f"header: expected a JSON object, got {type(table).__name__}")
    _refuse_metadata(table.pop("__metadata__", {}))
    tensors = {name: _tensor(name, entry) for name, entry in table.items()}
    _refuse_layout(tensors, size - LENGTH_BYTES - length)
    return Header(size_bytes=length, tensors=tensors)


def _first_bytes(folder: Folder, path: str, limit: int) -> bytes:
    """Return the bytes in which a length and a header of at most `limit` bytes lie."""
    data = bytearray()
    for chunk in folder.chunks(path):
        data += chunk
        if len(data) >= LENGTH_BYTES + min(int.from_bytes(data[:LENGTH_BYTES], "little"), limit):
            break
    return bytes(data)


def _refuse_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadHeader("unreadable", "header: __metadata__ is not a table of texts")


def _tensor(name: str, entry: Any) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadHeader("unreadable", f"header: '{printable(name)}' has not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise BadHeader(
            "unreadable", f"header: '{printable(name)}' has the unknown dtype {printable(repr(dtype)[:80])}"
        )
    if not _sizes(shape) or len(shape) > MOST_DIMENSIONS or not _sizes(offsets) or len(offsets) != 2:
        raise BadHeader("unreadable", f"header: '{printable(name)}' has a shape or offsets that are no sizes")
    info = TensorInfo(dtype=dtype, shape=tuple(shape), begin=offsets[0], end=offsets[1])
    expected = DTYPE_BYTES[dtype]
    for size in info.shape:
        expected *= size
    if info.end - info.begin != expected:
        what = f"{dtype} {list(shape)} takes {expected:,} bytes, its offsets give it {info.end - info.begin:,}"
        raise BadHeader("layout", f"'{printable(name)}': {what}")
    return info


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(n) is int and 0 <= n <= LARGEST_SIZE for n in values)


def _refuse_layout(tensors: dict[str, TensorInfo], data_bytes: int) -> None:
    """Hold that the tensors cover the data exactly: no gap, no overlap, nothing beyond the end."""
    offset = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != offset:
            kind = "overlaps the tensor before it" if info.begin < offset else "leaves a gap before it"
            what = f"'{printable(name)}' {kind}: begins at byte {info.begin:,}, expected {offset:,}"
            raise BadHeader("layout", what)
        offset = info.end
    if offset != data_bytes:
        raise BadHeader("layout", f"its tensors take {offset:,} bytes, the file holds {data_bytes:,} after the header")
