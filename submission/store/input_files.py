"""Digests of the files that stages read of an input folder; what else lies there counts for nothing.

Two kinds count. Tables, weights, texts and recordings count by their content. The clips of a corpus, of which there may
be millions, count by name and size: the stage corpus reads those that it takes, and digests them then.

A digest is kept in a cache. A file is read again when its size, time or inode has changed. A folder of clips is listed
again when its own time has changed, that is when something was added to it, removed or renamed: a million clips cannot
be listed by every command. A clip that is overwritten in place is found when it is trained on.

Which files are recordings, `submission.store.recording_files` says, for the keys as for what is read. Hidden files and
folders (`.cache`, `.DS_Store`), and what editors leave behind (`x~`, `x.bak`), match no pattern.
Links are followed, to files and to folders, but not in a circle.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from submission.progress import progress
from submission.store.digests import CHUNK_BYTES, canonical_json, sha256_text, write_text
from submission.store.recording_files import find_recordings, is_foreign, is_recording

OR = " | "
"""Between patterns of which the first that matches counts."""
MANY_FILES = 20_000
MANY_BYTES = 500 << 20
"""Listing and reading as much shows its progress."""
SETTLED_SECONDS = 2.0
"""What has changed this recently is not cached: it may change again within the resolution of the clock of its disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """Which files of a folder are read.

    A pattern is a path below the folder with `*` in its parts; `**/` before its last part is any depth. Patterns with
    ` | ` between them are alternatives: the first that matches a file counts.
    """

    content: tuple[str, ...] = ()
    """Patterns of files that count by content."""
    recordings: tuple[str, ...] = ()
    """Folders below which every recording counts by content; `.` is the folder itself."""
    clips: tuple[str, ...] = ()
    """Folders, or alternatives, below which every recording counts by name and size."""

    def __or__(self, other: Reads) -> Reads:
        """Return what either reads."""
        names = ("content", "recordings", "clips")
        return Reads(**{name: tuple(dict.fromkeys(getattr(self, name) + getattr(other, name))) for name in names})


def find_files(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the files that the first matching alternative of a pattern matches, lazily and in any order."""
    for alternative in pattern.split(OR):
        matches = _matching(folder, alternative.split("/"), ())
        first = next(matches, None)
        if first is not None:
            yield first
            yield from matches
            return


def has_recordings(folder: Path) -> bool:
    """Return whether there is a recording below a folder; no more is looked at than the first one."""
    return any(is_recording(path) for path in _walk(folder, ()))


def _matching(folder: Path, parts: list[str], above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from (path for path in _walk(folder, above) if fnmatchcase(path.name, rest[0]))
    elif "*" not in part:
        path = folder / part
        if rest:
            yield from _matching(path, rest, above)
        elif path.is_file():
            yield path
    else:
        for entry in _entries(folder):
            if fnmatchcase(entry.name, part) and not is_foreign(entry.name):
                if rest and entry.is_dir():
                    yield from _matching(folder / entry.name, rest, above)
                elif not rest and entry.is_file():
                    yield folder / entry.name


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yield every file below a folder but foreign ones; a link that leads back up is not followed."""
    if not folder.is_dir():
        return
    stat = os.stat(folder)
    here = stat.st_dev, stat.st_ino
    if here in above:
        return
    for entry in _entries(folder):
        if is_foreign(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(folder / entry.name, (*above, here))
        elif entry.is_file():
            yield folder / entry.name


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


class InputDigests:
    """Digests of input folders, cached in a folder: one file for each input folder."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def digest(self, folder: Path, reads: Reads) -> str:
        """Return one digest of what is read of a folder; times, owners and modes do not count."""
        entry = self._cache / f"{sha256_text(str(folder.resolve()))}.json"
        known = _read_cache(entry)
        before = canonical_json(known)
        wanted = {path for pattern in reads.content for path in find_files(folder, pattern)}
        for place in (folder / below for below in reads.recordings):
            wanted |= set(find_recordings(place).paths) if place.is_dir() else set()
        files = _digest_files(folder, wanted, known["files"])
        clips = {}
        for below in reads.clips:
            root = next((folder / name for name in below.split(OR) if (folder / name).is_dir()), None)
            if root is not None:
                clips[root.relative_to(folder).as_posix()] = _list_clips(folder, root, known["folders"])
        if (after := canonical_json(known)) != before:
            self._cache.mkdir(parents=True, exist_ok=True)
            write_text(entry, after)
        return sha256_text(canonical_json({"files": files, "clips": clips}))


def _read_cache(entry: Path) -> dict[str, dict[str, list[Any]]]:
    """Return {"files": path -> [size, time, inode, digest], "folders": path -> [time, inode, folders, digest]}."""
    try:
        known = json.loads(entry.read_text(encoding="utf-8"))
        if all(isinstance(known[kind], dict) for kind in ("files", "folders")):
            return {kind: known[kind] for kind in ("files", "folders")}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache, or not one of ours: it is only a short cut
    return {"files": {}, "folders": {}}


def _digest_files(folder: Path, paths: Iterable[Path], known: dict[str, list[Any]]) -> dict[str, str]:
    """Return path below the folder -> SHA-256 of its content, and enter in `known` what was read."""
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in sorted(paths)}
    marks = {name: [stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in stats.items()}
    changed = [name for name, mark in marks.items() if known.get(name, [])[:3] != mark]
    now, size = time.time(), sum(stats[name].st_size for name in changed)
    many = size >= MANY_BYTES
    with progress(f"digest of {folder}", size / 1e6, "MB") if many else nullcontext(lambda amount: None) as tick:
        for name in changed:
            digest = hashlib.sha256()
            with (folder / name).open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    tick(len(chunk) / 1e6)
            known[name] = [*marks[name], digest.hexdigest()]
    digests = {name: known[name][3] for name in marks}
    for name in changed:
        if not _settled(stats[name], now):
            del known[name]
    return digests


def _settled(stat: os.stat_result, now: float) -> bool:
    return abs(now - stat.st_mtime) >= SETTLED_SECONDS


def _list_clips(folder: Path, root: Path, known: dict[str, list[Any]]) -> str:
    """Return a digest of names and sizes of the recordings below a folder, and enter in `known` what was listed."""
    listed: dict[str, str] = {}

    def visit(here: Path, above: tuple[tuple[int, int], ...]) -> None:
        stat = os.stat(here)
        if (stat.st_dev, stat.st_ino) in above:
            return
        name = here.relative_to(folder).as_posix()
        mark, entry = [stat.st_mtime_ns, stat.st_ino], known.pop(name, [])
        if entry[:2] != mark:
            now = time.time()
            entry = [*mark, *_list_folder(here)]
            if _settled(stat, now):
                known[name] = entry
        else:
            known[name] = entry
        _, _, below, digest = entry
        if digest:
            listed[here.relative_to(root).as_posix()] = digest
        for child in below:
            visit(here / child, (*above, (stat.st_dev, stat.st_ino)))

    visit(root, ())
    return sha256_text(canonical_json(listed))


def _list_folder(folder: Path) -> tuple[list[str], str]:
    """Return the names of the folders in a folder, and a digest of names and sizes of its recordings ("" for none)."""
    entries = [entry for entry in _entries(folder) if not is_foreign(entry.name)]
    many = len(entries) >= MANY_FILES
    folders, lines = [], []
    with progress(f"listing {folder}", len(entries), "files") if many else nullcontext(lambda amount: None) as tick:
        for entry in entries:
            if entry.is_dir():
                folders.append(entry.name)
            elif entry.is_file() and is_recording(entry.path):
                lines.append(f"{entry.stat().st_size} {entry.name}\n".encode("utf-8", "surrogateescape"))
            tick(1)
    return sorted(folders), hashlib.sha256(b"".join(sorted(lines))).hexdigest() if lines else ""
