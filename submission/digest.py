"""Digests of files and values, and the one way in which text reaches the disk."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits, reading it in bounded memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
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


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes aside, flush them to the disk, and rename them into place.

    The temporary file has a name of its own, so that two writers never share one.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def files_below(folder: Path) -> list[Path]:
    """Return every regular file below a folder, sorted by its POSIX path relative to the folder."""
    return sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.relative_to(folder).as_posix())


def describe_files(folder: Path) -> dict[str, dict[str, int | str]]:
    """Return relative POSIX path -> {"bytes", "sha256"} for every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in files_below(folder)
    }


def tree_digest(folder: Path) -> str:
    """Return one digest of a folder's file names and contents; times, owners and modes do not count."""
    return sha256_text(canonical_json(describe_files(folder)))
