"""The safetensors format, headers only: where each tensor of a file lies, the exact header of a file to be.

A file is: 8 bytes, the header's length as little-endian uint64; the header, a JSON object name -> {"dtype",
"shape", "data_offsets"}, padded with blanks to a multiple of 8 bytes; the tensors' bytes without gaps.
(https://github.com/huggingface/safetensors)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submission.errors import UserError

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


def read_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str], int]:
    """Return (name -> TensorInfo, metadata, offset of the data in the file), having read the header only.

    Raises UserError for a file that is missing, no safetensors, of unknown dtypes, or not as long as it says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if length <= HEADER_LIMIT_BYTES else b""
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", "name an existing safetensors file") from error
    try:
        header = json.loads(text.decode("utf-8")) if len(text) == length else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise UserError(str(path), "has no safetensors header", "fetch or make the file again")
    metadata = header.pop("__metadata__", {})
    infos = {name: _tensor_info(path, name, entry) for name, entry in header.items()}
    _check_extent(path, infos.items(), size - 8 - length)
    return infos, metadata, 8 + length


def _tensor_info(path: Path, name: str, entry: Any) -> TensorInfo:
    where = f"{path}: {name}"
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(where, "has no dtype, shape and offsets", "fetch or make the file again") from error
    if dtype not in DTYPE_BYTES:
        raise UserError(where, f"unknown dtype {dtype!r}", f"known: {', '.join(DTYPE_BYTES)}")
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise UserError(where, f"shape {list(shape)} or offsets [{begin}, {end}] are no sizes", "make the file again")
    if end - begin != tensor_bytes(dtype, shape):
        what = f"{dtype} {list(shape)} takes {tensor_bytes(dtype, shape)} bytes, the header gives {end - begin}"
        raise UserError(where, what, "fetch or make the file again")
    return TensorInfo(dtype=dtype, shape=shape, begin=begin, end=end)


def _check_extent(path: Path, infos: Iterable[tuple[str, TensorInfo]], size: int) -> None:
    """Hold that the tensors cover the `size` bytes of data exactly, without gap or overlap."""
    offset = 0
    for name, info in sorted(infos, key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != offset:
            raise UserError(f"{path}: {name}", f"begins at byte {info.begin}, expected {offset}", "make the file again")
        offset = info.end
    if size != offset:
        what = f"holds {size} bytes of tensors, its header promises {offset}"
        raise UserError(str(path), what, "the file is cut short or damaged: fetch or make it again")
