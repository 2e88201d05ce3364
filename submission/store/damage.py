"""Artifacts whose bytes changed on the disk after they were written, and everything that was made from them.

A stage's inputs are compared with their records before it works, each file once in a process: nothing is made from
bytes that no stage wrote. What is found damaged is moved to `damaged/` together with all that was made from it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from submission.errors import UserError
from submission.progress import progress
from submission.store.digests import sha256_file
from submission.store.records import RECORD, ArtifactRecord, read_content, read_record

if TYPE_CHECKING:
    from submission.store.store import Stage

DAMAGED = "damaged"
"""Below the store: artifacts that were set aside, by key."""
MANY_BYTES = 500 << 20
"""Reading as much shows its progress."""
_INTACT: set[tuple[str, int, int, int, str]] = set()
"""(path, size, time, inode, digest) of the files that this process has read and found as recorded."""


class DamagedArtifact(UserError):
    """Files of an artifact that are not what its stage wrote."""

    def __init__(self, folder: Path, file: str, what: str) -> None:
        super().__init__(str(folder / file), what, f"remove {folder} and all that was made from it, and build again")
        self.folder = folder
        self.file = file


def missized_file(folder: Path, record: ArtifactRecord) -> str | None:
    """Return the first file of an artifact that is missing or has another size than recorded, by its status alone."""
    for name, entry in record.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            return name
    return None


def changed_file(folder: Path, record: ArtifactRecord, below: Path) -> str | None:
    """Return the first file of a part of an artifact whose bytes are not those recorded; each is read once a process.

    below: the part, relative to the artifact.
    """
    unread = []
    for name, entry in record.files.items():
        if not Path(name).is_relative_to(below):
            continue
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            return name
        status = path.stat()
        mark = (str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ino, entry["sha256"])
        if mark not in _INTACT:
            unread.append((name, mark))
    size = sum(mark[1] for _, mark in unread)
    many = size >= MANY_BYTES
    with progress(f"{record.stage}: checking", size, "bytes") if many else nullcontext(lambda amount: None) as tick:
        for name, mark in unread:
            if sha256_file(folder / name, tick) != mark[-1]:
                return name
            _INTACT.add(mark)
    return None


def set_aside(store: Path, key: str) -> list[str]:
    """Move an artifact and everything that was made from it to `damaged/`; return their ids, the artifact's first."""
    moved = []
    for each in [key, *made_from(store, key)]:
        folder, aside = store / "objects" / each, store / DAMAGED / each
        if not folder.exists():
            continue
        record = read_record(folder)
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder, aside)
        moved.append(each if record is None else record.id)
    return moved


def made_from(store: Path, key: str) -> list[str]:
    """Return the keys of all artifacts that were made from one, directly or through others."""
    folders = sorted((store / "objects").glob(f"*/{RECORD}"))
    records = {path.parent.name: record for path in folders if (record := read_record(path.parent))}
    found = [key]
    for known in found:  # which grows
        names = {known, read_content(store, known)}
        found += [
            each
            for each, record in records.items()
            if each not in found and names & {*record.made_from, *record.inputs.values()}
        ]
    return found[1:]


def unbuilt_commands(wanted: Iterable[Stage], built: Iterable[str]) -> list[str]:
    """Return the commands that build what stages lack, in order; built: keys of the artifacts that are there."""
    there, commands = set(built), []

    def visit(stage: Stage) -> None:
        if stage.key in there:
            return
        there.add(stage.key)
        for source in stage.inputs.values():
            if source.stage is not None:
                visit(source.stage)
        if stage.command not in commands:
            commands.append(stage.command)

    for stage in wanted:
        visit(stage)
    return commands
