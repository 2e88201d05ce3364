"""Digests of files and values, and the one way in which text reaches the disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20
ASIDE = ".aside"
"""Ending of a file that is being written; a kill can leave one behind."""


def sha256_file(path: Path, tick: Callable[[float], None] = lambda amount: None) -> str:
    """Return the SHA-256 of a file as hexadecimal digits, in bounded memory; tick: called with each amount."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            tick(len(chunk))
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def canonical_json(value: Any) -> str:
    """Return JSON that equal values spell equally: sorted keys, one-blank indent, a final line feed.

    Raises ValueError for NaN and infinities, which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8 with line feeds, aside and then into place by one rename."""
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def named_place(path: Path) -> Iterator[None]:
    """Let an OSError from within name the file: a full disk is met in `write`, which knows of none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes aside, flush them to the disk, and rename them into place.

    The temporary file has a name of its own, so that two writers never share one.
    """
    if path.is_dir():  # before a file is made beside it, and the error names that one
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=ASIDE, dir=path.parent)
    try:
        with named_place(path), os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_journal(path: Path) -> list[Any]:
    """Return the JSON value of each line of a file that is appended to; an incomplete last line is removed."""
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    write_bytes(path, b"".join(line + b"\n" for line in lines))
    return [json.loads(line) for line in lines]


def files_below(folder: Path) -> list[Path]:
    """Return every file below a folder, through links too, sorted by its POSIX path relative to the folder.

    A link that leads back up is not followed.
    """

    def walk(here: Path, above: tuple[Path, ...]) -> Iterator[Path]:
        real = here.resolve()
        if real in above:
            return
        for path in here.iterdir():
            if path.is_dir():
                yield from walk(path, (*above, real))
            elif path.is_file():
                yield path

    return sorted(walk(folder, ()), key=lambda p: p.relative_to(folder).as_posix()) if folder.is_dir() else []


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed writer left below a folder beside the files that it was to become."""
    for path in folder.rglob(f".*{ASIDE}"):
        path.unlink()


def describe_files(folder: Path) -> dict[str, dict[str, int | str]]:
    """Return relative POSIX path -> {"bytes", "sha256"} for every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in files_below(folder)
    }


def tree_digest(folder: Path) -> str:
    """Return one digest of a folder's file names and contents; times, owners and modes do not count."""
    return sha256_text(canonical_json(describe_files(folder)))
