"""Find the audio files below a folder: by content where a decoder reads it, through links, and what was skipped.

Linked folders are followed, each folder once, so that a link to a folder above ends. A file counts as audio by its
suffix (then it must be readable, or the run stops) or by its first bytes. What is neither is no recording and is only
counted; whatever could be one and is not taken is named with the reason.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WEAK_KINDS = frozenset({"mp3", "adts", "mpegts"})
"""Formats whose mark is so short that other files bear it by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAudio:
    """The audio files below a folder."""

    paths: tuple[Path, ...]
    """Sorted."""
    skipped: tuple[str, ...]
    """What could be a recording or hold one and is left out, with the reason."""


def find_audio(folder: Path, suffixes: tuple[str, ...]) -> FoundAudio:
    """Return the audio files below a folder; suffixes: those, in lower case, that name audio by themselves."""
    paths: list[Path] = []
    skipped: list[str] = []
    for path, problem in _walk(folder, {}):
        name = path.relative_to(folder).as_posix()
        if problem:
            skipped.append(f"{name}: {problem}")
        elif path.name.startswith("."):
            if path.suffix.lower() in suffixes:
                skipped.append(f"{name}: is hidden")
        elif not stat.S_ISREG(path.stat().st_mode):
            skipped.append(f"{name}: is no regular file")
        elif not os.access(path, os.R_OK):
            skipped.append(f"{name}: cannot be read (permission)")
        elif path.suffix.lower() in suffixes or _is_audio(path):
            paths.append(path)
    return FoundAudio(paths=tuple(sorted(paths)), skipped=tuple(sorted(skipped)))


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
            yield from _walk(path, seen)
        else:
            yield path, ""


def _is_audio(path: Path) -> bool:
    """Return whether a decoder reads a file whose suffix names no audio."""
    from submission.runtime.audio import rough_seconds
    from submission.runtime.audio_header import recognised

    try:
        kind = recognised(path)
    except OSError:
        return False
    return bool(kind) and (kind not in WEAK_KINDS or rough_seconds(path) > 0)
