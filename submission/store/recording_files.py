"""Which files below a folder are recordings: one rule for what is read of it and for what counts in keys.

A file is a recording by its suffix (then it must be readable, or the run stops) or, where its suffix is neither one of
audio nor one of something else that is known, by its first bytes. Hidden files and folders and what editors leave
behind are none. Linked folders are followed, each folder once, so that a link to a folder above ends. What is no
recording is passed over; whatever could be one and is not taken is named with the reason.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from submission.store.audio_formats import is_audio
from submission.text.recording_names import AUDIO_SUFFIXES

_AUDIO = frozenset(AUDIO_SUFFIXES)
_OTHER = frozenset(
    {
        *(".txt", ".tsv", ".csv", ".json", ".jsonl", ".yaml", ".yml", ".toml"),
        *(".xml", ".sgm", ".sgml", ".html", ".htm"),
        *(".md", ".rst", ".tex", ".pdf", ".log", ".lst", ".srt", ".vtt", ".stm", ".ctm", ".rttm", ".lab", ".textgrid"),
        *(".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".7z", ".rar", ".sha256", ".md5", ".lock", ".metadata"),
        *(".parquet", ".arrow", ".npy", ".npz", ".h5", ".pt", ".pth", ".ckpt", ".safetensors", ".pickle", ".pkl"),
        *(".py", ".pyc", ".sh", ".ipynb", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".heic", ".avif"),
    }
)
"""Suffixes of what is no recording, whose content is not looked at."""
_LEFT_BEHIND = ("~", ".bak", ".orig", ".tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRecordings:
    """The recordings below a folder."""

    paths: tuple[Path, ...]
    """Sorted."""
    skipped: tuple[str, ...]
    """What could be a recording or hold one and is left out, with the reason."""


def is_foreign(name: str) -> bool:
    """Return whether a file or folder of this name counts for nothing: hidden, or left behind by an editor."""
    return name.startswith((".", "#")) or name.endswith(_LEFT_BEHIND)


def is_recording(path: str | Path) -> bool:
    """Return whether a regular file whose name is not foreign is a recording; one that cannot be opened is not."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _AUDIO or suffix in _OTHER:
        return suffix in _AUDIO
    try:
        with open(path, "rb") as file:
            return is_audio(file)
    except OSError:
        return False


def find_recordings(folder: Path) -> FoundRecordings:
    """Return the recordings below a folder, and what could be one and is not taken."""
    paths: list[Path] = []
    skipped: list[str] = []
    for path, problem in _walk(folder, {}):
        problem = problem or _problem(path)
        if problem:
            skipped.append(f"{path.relative_to(folder).as_posix()}: {problem}")
        elif not is_foreign(path.name) and is_recording(path):
            paths.append(path)
    return FoundRecordings(paths=tuple(sorted(paths)), skipped=tuple(sorted(skipped)))


def _problem(path: Path) -> str:
    """Return why a file is not taken although it could be a recording by its name; "" where nothing speaks against it.

    A file that only its content could show to be one is named where it cannot be opened, unless it is foreign.
    """
    if is_foreign(path.name):
        name = path.name.strip("#")
        for end in _LEFT_BEHIND:
            name = name.removesuffix(end)
        why = "is hidden" if path.name.startswith(".") else "is what an editor left behind"
        return why if os.path.splitext(name)[1].lower() in _AUDIO else ""
    if os.path.splitext(path)[1].lower() in _OTHER:
        return ""
    if not stat.S_ISREG(path.stat().st_mode):
        return "is no regular file"
    return "" if os.access(path, os.R_OK) else "cannot be read (permission)"


def _walk(folder: Path, seen: dict[tuple[int, int], Path]) -> Iterator[tuple[Path, str]]:
    """Yield (path, why it is not followed or "") of every file below a folder, links included."""
    about = folder.stat()
    if (about.st_dev, about.st_ino) in seen:
        yield folder, f"is the folder {seen[about.st_dev, about.st_ino]}, which has been read"
        return
    seen[about.st_dev, about.st_ino] = folder
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        yield folder, f"cannot be read ({error.strerror})"
        return
    for path in entries:
        if not path.exists():
            yield path, "is a link to nothing" if path.is_symlink() else "cannot be read"
        elif path.is_dir():
            if is_foreign(path.name):
                yield path, "is a hidden folder" if path.name.startswith(".") else "is a folder left behind"
            else:
                yield from _walk(path, seen)
        else:
            yield path, ""
