"""Read the header of a safetensors file of an untrusted folder."""

from __future__ import annotations

from submission.bundle.untrusted.folder import Folder
from submission.bundle.untrusted.strict_json import Unreadable
from submission.model.safetensors_header import LENGTH_BYTES, BadHeader, SafetensorsHeader, parse_header


def read_header(folder: Folder, path: str, limit: int) -> SafetensorsHeader:
    """Return the header of a safetensors file, at most `limit` bytes long; BadHeader says what is wrong with it."""
    try:
        data = _first_bytes(folder, path, limit)
    except Unreadable as error:
        raise BadHeader("unreadable", str(error)) from None
    return parse_header(data, folder.files[path].size_bytes, limit)


def _first_bytes(folder: Folder, path: str, limit: int) -> bytes:
    """Return the bytes in which a length and a header of at most `limit` bytes lie."""
    data = bytearray()
    for chunk in folder.chunks(path):
        data += chunk
        if len(data) >= LENGTH_BYTES + min(int.from_bytes(data[:LENGTH_BYTES], "little"), limit):
            break
    return bytes(data)
