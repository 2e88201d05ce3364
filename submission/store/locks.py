"""Lock a file against other processes, and say so where its file system has no locks."""

from __future__ import annotations

import errno
import fcntl
import sys
from typing import TextIO

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors by which a file system without locks answers."""


def lock_file(file: TextIO, name: str, place: str, *, waiting: str = "") -> bool:
    """Lock an opened file until it is closed; return False where another process has it and `waiting` is empty.

    name: what is locked, for messages; place: where it is; waiting: what to print before waiting for the other process.
    Without locks nothing is held, and a line on stderr says what follows from that.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not waiting:
            return False
        print(waiting, file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        line = f"{name}: {place} is on a file system without locks ({error.strerror}): "
        print(f"{line}run one build at a time, or name a place elsewhere", file=sys.stderr, flush=True)
    return True
