"""Match names of recordings that are written differently: Unicode forms, and extensions of audio files."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".m4a", ".ogg", ".oga", ".opus", ".aac", ".aif", ".aiff", ".wma"),
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm"),  # of a film, the first audio stream is read
)


def recording_suffix(name: str) -> str:
    """Return the extension of an audio file that a name has, as it is written; "" for any other or none."""
    suffix = PurePosixPath(name).suffix
    return suffix if suffix.lower() in AUDIO_SUFFIXES else ""


def recording_key(name: str) -> str:
    """Return what names of one recording share: Unicode form NFC, without the extension of an audio file."""
    composed = unicodedata.normalize("NFC", name)
    return composed.removesuffix(recording_suffix(composed))


def match_recordings(names: Iterable[str], here: Iterable[str]) -> dict[str, str]:
    """Return name -> the one of `here` that is the same recording; names with none, or with several, are not in it.

    The same name is taken before another Unicode form of it, and that before another extension.
    """
    exact = set(here)
    by_form: dict[str, list[str]] = {}
    by_key: dict[str, list[str]] = {}
    for other in sorted(exact):
        by_form.setdefault(unicodedata.normalize("NFC", other), []).append(other)
        by_key.setdefault(recording_key(other), []).append(other)
    found = {}
    for name in names:
        form = by_form.get(unicodedata.normalize("NFC", name), [])
        alike = [name] if name in exact else form or by_key.get(recording_key(name), [])
        if len(alike) == 1:
            found[name] = alike[0]
    return found
