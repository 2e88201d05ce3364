"""Digests of the audio that a corpus takes, by which later stages know it without reading all of it again.

A file counts by its size and by its first and last 64 KiB: all of a clip of a few seconds, and of a long recording
enough to distinguish it from another. Audio that the stage corpus extracted lies in its artifact, whose record digests
it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from submission.errors import UserError
from submission.progress import progress
from submission.store.digests import write_text

AUDIO = "audio.jsonl"
"""One file a line, sorted by path: audio (below the data folder), bytes, sha256_of_ends."""
END_BYTES = 64 << 10


def ends_digest(path: Path) -> tuple[int, str]:
    """Return the size of a file and the SHA-256 of its first and last 64 KiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        digest.update(file.read(END_BYTES))
        if size > END_BYTES:
            file.seek(max(END_BYTES, size - END_BYTES))
            digest.update(file.read(END_BYTES))
    return size, digest.hexdigest()


def write_audio_digests(out: Path, data: Path, names: Iterable[str]) -> None:
    """Write audio.jsonl into `out`; names: paths below the data folder."""
    lines, names = [], sorted(set(names))
    with progress("corpus: audio digests", len(names), "files") as tick:
        for name in names:
            size, digest = ends_digest(data / name)
            lines.append(json.dumps({"audio": name, "bytes": size, "sha256_of_ends": digest}, ensure_ascii=False))
            tick(1)
    write_text(out / AUDIO, "".join(line + "\n" for line in lines))


def check_audio(corpus: Path, data: Path) -> None:
    """Raise UserError where audio of a corpus is gone, or has another size than when it was sampled."""
    wrong, count = [], 0
    with (corpus / AUDIO).open(encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            count += 1
            try:
                if (data / entry["audio"]).stat().st_size != entry["bytes"]:
                    wrong.append(f"{entry['audio']} has another size")
            except OSError:
                wrong.append(f"{entry['audio']} is gone")
    if wrong:
        what = f"{len(wrong):,} of {count:,} audio files have changed since the corpus was sampled ({wrong[0]})"
        fix = "restore them; or remove the folder sources/ of the store, and the corpus is sampled again"
        raise UserError(str(data), what, fix)
