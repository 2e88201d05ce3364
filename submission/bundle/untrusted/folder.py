"""Reading of an untrusted folder: every entry, lazily, in bounded memory.

Only regular files are ever opened, without following links and without waiting (a named pipe would block).
What cannot be read raises `Unreadable`, never an OSError: a check reports it or leaves it to the check that covers
it.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from submission.bundle.untrusted.strict_json import Unreadable, parse_json
from submission.text.characters import printable

Kind = Literal["file", "folder", "link", "other"]
# A bundle has some sixty files; a folder with more than this is not a bundle, and listing it must still end.
MOST_ENTRIES = 1_000
# Manifest, configuration, safetensors header: half a megabyte for 8 B parameters.
MOST_JSON_BYTES = 2 << 20
# Two hours of speech make about 0.2 MB.
MOST_TEXT_BYTES = 2 << 20
# All that is parsed as JSON of one bundle: a tokenizer's files, and every other file at its bound.
MOST_PARSED_BYTES = 48 << 20
# Values of one JSON file: a vocabulary of half a million tokens and its merges; each costs some hundred bytes.
MOST_VALUES = 1_500_000
HEAD_BYTES = 512
CHUNK_BYTES = 1 << 20
BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own is
MOST_HOLES = 100_000
_OPEN_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name below the bundle."""

    path: str
    """Relative to the bundle, "/" between the parts; undecodable bytes are surrogate escapes."""
    kind: Kind
    size_bytes: int
    names: int
    """How many names the file has; hard links are the others."""
    mode: int
    """Permissions with the bits beside them: set-user-ID and the like."""
    stored_bytes: int
    """Bytes that it takes on the file system; its size where the file system does not say."""


class Folder:
    """Everything below a path; checks read files only through it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unlisted: list[tuple[str, str]] = []
        """Folders that could not be listed, and why; filled by `entries`."""
        self._parsed: dict[str, Any] = {}
        self._left_to_parse = MOST_PARSED_BYTES
        self._left_holes = MOST_HOLES

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Everything below the folder, sorted by path; links are listed, never followed.

        Listing stops at MOST_ENTRIES; `overfull` is true then.
        """
        entries: list[Entry] = []
        waiting = [""]
        while waiting and len(entries) <= MOST_ENTRIES:
            below = waiting.pop()
            try:
                with os.scandir(self.path / below) as listing:
                    for item in itertools.islice(listing, MOST_ENTRIES + 1 - len(entries)):
                        entry = _entry(item, f"{below}{item.name}")
                        entries.append(entry)
                        if entry.kind == "folder":
                            waiting.append(f"{entry.path}/")
            except (OSError, ValueError) as error:
                self.unlisted.append((below.rstrip("/"), _reason(error)))
        return tuple(sorted(entries, key=lambda e: e.path))

    @property
    def overfull(self) -> bool:
        """Whether there is more in the folder than was listed."""
        return len(self.entries) > MOST_ENTRIES

    @cached_property
    def files(self) -> dict[str, Entry]:
        """Path -> entry of every regular file."""
        return {e.path: e for e in self.entries if e.kind == "file"}

    def under(self, folder: str) -> list[Entry]:
        """Return the regular files below one folder of the bundle, sorted."""
        return [e for path, e in self.files.items() if path.startswith(f"{folder}/")]

    def chunks(
        self, path: str, chunk_bytes: int = CHUNK_BYTES, *, begin: int = 0, end: int | None = None
    ) -> Iterator[bytes]:
        """Yield the bytes of a regular file, or those from begin to end, at most `chunk_bytes` at a time.

        They end at the size that was listed, however much the file grows meanwhile.
        """
        left = (self.files[path].size_bytes if end is None else end) - begin
        try:
            descriptor = os.open(self.path / path, _OPEN_FLAGS)
            with open(descriptor, "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise Unreadable("is not a regular file")
                if begin:
                    file.seek(begin)
                while chunk := file.read(min(chunk_bytes, left)):
                    left -= len(chunk)
                    yield chunk
        except (OSError, ValueError) as error:
            raise Unreadable(_reason(error)) from None

    def hole_bytes(self, path: str) -> int:
        """Return how many bytes of a file are holes.

        0 where the system cannot say; a part of them where there are more than MOST_HOLES in all files together.
        """
        if not hasattr(os, "SEEK_HOLE"):
            return 0
        end, holes, place = self.files[path].size_bytes, 0, 0
        try:
            descriptor = os.open(self.path / path, _OPEN_FLAGS)
        except OSError:
            return 0  # reported as FILE07
        try:
            while self._left_holes > 0:
                self._left_holes -= 1
                begin = os.lseek(descriptor, place, os.SEEK_HOLE)
                if begin >= end:
                    break
                try:
                    place = os.lseek(descriptor, begin, os.SEEK_DATA)
                except OSError as error:
                    if error.errno != errno.ENXIO:  # which says that no data follows
                        raise
                    place = end
                holes += place - begin
                if place >= end:
                    break
        except OSError:
            return 0
        finally:
            os.close(descriptor)
        return holes

    def read(self, path: str, limit: int) -> bytes:
        """Return a file's bytes; Unreadable where there is none or it is longer than `limit` bytes."""
        entry = self.files.get(path)
        if entry is None:
            raise Unreadable("is missing")
        if entry.size_bytes > limit:
            raise Unreadable(f"has {entry.size_bytes:,} bytes, more than the {limit:,} that a file of its kind needs")
        return b"".join(self.chunks(path))

    def read_range(self, path: str, begin: int, end: int) -> bytes:
        """Return the bytes of a regular file from begin to end; Unreadable where it does not have them."""
        data = b"".join(self.chunks(path, begin=begin, end=end))
        if len(data) != end - begin:
            raise Unreadable("is shorter than it was")
        return data

    def head(self, path: str) -> bytes:
        """Return the first bytes of a file, HEAD_BYTES at most."""
        return next(self.chunks(path, HEAD_BYTES), b"")

    def json(self, path: str, limit: int = MOST_JSON_BYTES) -> Any:
        """Return the value of a strict JSON file, which is read and parsed once; Unreadable where it is not one.

        Nobody changes the value. All files of a bundle together may have MOST_PARSED_BYTES.
        """
        if path not in self._parsed:
            try:
                data = self.read(path, min(limit, self._left_to_parse))
                self._left_to_parse -= len(data)
                self._parsed[path] = parse_json(data, MOST_VALUES)
            except Unreadable as error:
                self._parsed[path] = error
        if isinstance(value := self._parsed[path], Unreadable):
            raise value
        return value

    def table(self, path: str) -> dict[str, Any]:
        """Return the object that a strict JSON file holds; Unreadable where it is something else."""
        value = self.json(path)
        if not isinstance(value, dict):
            raise Unreadable(f"expected a JSON object, got {type(value).__name__}")
        return value


def _entry(item: os.DirEntry[str], path: str) -> Entry:
    status = item.stat(follow_symlinks=False)
    kinds: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), "other")
    size, blocks = status.st_size, getattr(status, "st_blocks", None)
    stored = size if blocks is None else blocks * BLOCK_BYTES
    mode = stat.S_IMODE(status.st_mode)
    return Entry(path=path, kind=kind, size_bytes=size, names=status.st_nlink, mode=mode, stored_bytes=stored)


def _reason(error: Exception) -> str:
    return printable(error.strerror or str(error)) if isinstance(error, OSError) else printable(str(error))
