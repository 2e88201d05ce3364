"""The archive for upload: a bundle as one deterministic `.tar`, and its SHA-256 beside it.

Sorted members below one folder of the bundle's name, modes 644 and 755, owner 0 without names, time 0: equal
bundles of one name give equal bytes. It is written aside and moved into place by a rename; the checksum comes last.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from submission.bundle.checks import exit_status, verify
from submission.errors import UserError
from submission.progress import progress
from submission.store.digests import ASIDE, CHUNK_BYTES, files_below, named_place, write_text

BLOCK_BYTES = tarfile.BLOCKSIZE


def archive(bundle: Path, out: Path, campaign: str | None = None) -> str:
    """Write the archive of a bundle to `out`, `<out>.sha256` beside it, and return its SHA-256.

    Raises UserError where the bundle has errors, `out` is a folder or lies in the bundle, or the disk is too full.
    """
    bundle, out = bundle.resolve(), out.absolute()
    if out.is_dir() or out.resolve().is_relative_to(bundle):
        raise UserError(str(out), "is a folder or lies in the bundle", "name a file beside the bundle with --out")
    if exit_status(verify(bundle, campaign)):
        fix = f"run `python -m submission verify {bundle}` and fix what it reports"
        raise UserError(f"bundle {bundle}", "has errors and is not packed for upload", fix)
    paths = [bundle, *sorted(bundle.rglob("*"), key=lambda p: p.relative_to(bundle).as_posix())]
    sizes = {path: path.stat().st_size for path in files_below(bundle)}
    out.parent.mkdir(parents=True, exist_ok=True)
    content_bytes = sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in sizes.values())
    refuse_full_disk(out.parent, content_bytes + len(paths) * BLOCK_BYTES + tarfile.RECORDSIZE, "archive")
    for left in out.parent.glob(f".{out.name}.*{ASIDE}"):  # of a killed run
        left.unlink()
    descriptor, aside = tempfile.mkstemp(prefix=f".{out.name}.", suffix=ASIDE, dir=out.parent)
    try:
        with named_place(out), os.fdopen(descriptor, "w+b") as file:
            with progress("archive", sum(sizes.values()), "bytes") as tick:
                _write(file, bundle, paths, tick)
            digest = _flushed_digest(file)
        os.chmod(aside, 0o644)
        checksum = out.with_name(f"{out.name}.sha256")
        checksum.unlink(missing_ok=True)  # an old one must never lie beside new bytes
        os.replace(aside, out)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    write_text(checksum, f"{digest}  {out.name}\n")
    return digest


def refuse_full_disk(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise UserError where a folder's disk has too little space for what is about to be written."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        fix = "free some, or name a place on another disk with --out"
        raise UserError(str(folder), f"has {free:,} bytes free, and the {what} needs {needed_bytes:,}", fix)


def _write(file: BinaryIO, bundle: Path, paths: list[Path], tick: Callable[[float], None]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in paths:
            info = tarfile.TarInfo((Path(bundle.name) / path.relative_to(bundle)).as_posix())
            if path.is_dir():
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
                continue
            info.mode, info.size = 0o644, path.stat().st_size
            with path.open("rb") as content:
                tar.addfile(info, content)
            tick(info.size)


def _flushed_digest(file: BinaryIO) -> str:
    """Flush a file to the disk and return the SHA-256 of its content."""
    file.flush()
    os.fsync(file.fileno())
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
