"""Read a text that somebody else wrote: a regular file only, of bounded size, in UTF-8.

A named pipe would be waited for, and a link to a device read without end; neither is opened for reading.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from submission.errors import UserError

MOST_BYTES = 8 << 20
"""A list of the segments of a hundred hours has two megabytes."""

_OPEN_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


def read_bytes(path: Path, fix: str, most_bytes: int = MOST_BYTES) -> bytes:
    """Return a file's bytes; UserError, with this fix, for what is no regular file or is longer than most_bytes."""
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UserError(str(path), "is not a regular file", fix)
            data = file.read(most_bytes + 1)
    except FileNotFoundError as error:
        raise UserError(str(path), "no such file", fix) from error
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", fix) from error
    if len(data) > most_bytes:
        raise UserError(str(path), f"has more than {most_bytes:,} bytes, more than a file of its kind needs", fix)
    return data


def read_text(path: Path, fix: str, most_bytes: int = MOST_BYTES) -> str:
    """Return a file's text, without the byte order mark that it may have.

    Raises UserError as `read_bytes` does, and for what is not UTF-8.
    """
    try:
        return read_bytes(path, fix, most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(str(path), f"cannot be read as UTF-8 text ({error})", fix) from error
