"""What the store writes beside stages: `artifact.json` of each artifact, and the journal of a build."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from submission.store.digests import canonical_json, sha256_text, write_text

RECORD = "artifact.json"
CONTENTS = "contents"
"""Below the store: a file for each artifact that stands for its content, by the key of its stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How an artifact was made: what a key leaves out."""

    versions: dict[str, str]
    """Library -> version."""
    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRecord:
    """What `artifact.json` says of an artifact."""

    stage: str
    part: str
    key: str
    revision: int
    options: dict[str, Any]
    inputs: dict[str, str]
    """Name of an input -> its digest."""
    files: dict[str, dict[str, Any]]
    """Path below the artifact -> {"bytes", "sha256"}."""
    provenance: Provenance
    made_from: tuple[str, ...] = ()
    """Keys of the artifacts that it read; `inputs` may name these by their content, or by one of their parts."""

    @property
    def id(self) -> str:
        """Stage and part, as `Stage.id`."""
        return f"{self.stage}:{self.part}" if self.part else self.stage

    @property
    def digest(self) -> str:
        """One digest of all files."""
        return sha256_text(canonical_json(self.files))

    def content(self, reports: tuple[str, ...]) -> str:
        """Return one digest of all files but reports, which nothing reads that is made from the artifact."""
        return sha256_text(canonical_json({name: self.files[name] for name in self.files.keys() - set(reports)}))

    @property
    def size_bytes(self) -> int:
        """Bytes of all files, the record itself left out."""
        return sum(entry["bytes"] for entry in self.files.values())

    def write(self, folder: Path) -> None:
        """Write `artifact.json` into an artifact."""
        write_text(folder / RECORD, canonical_json({**asdict(self), "digest": self.digest}))


def read_record(folder: Path) -> ArtifactRecord | None:
    """Return the record of an artifact, or None where it is missing, damaged, or says another digest than its files."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        digest, provenance = record.pop("digest"), Provenance(**record.pop("provenance"))
        found = ArtifactRecord(**record, provenance=provenance)
        return found if found.digest == digest else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_content(store: Path, key: str, digest: str) -> None:
    """Note the digest of an artifact's content; it stays when the artifact is removed to free its space."""
    (store / CONTENTS).mkdir(parents=True, exist_ok=True)
    write_text(store / CONTENTS / key, f"{digest}\n")


def read_content(store: Path, key: str) -> str | None:
    """Return the digest of the content of an artifact; None where it was never built, or stands for its key alone."""
    try:
        return (store / CONTENTS / key).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def contents_changed(store: Path) -> int:
    """Return a number that changes when `write_content` notes something."""
    try:
        return (store / CONTENTS).stat().st_mtime_ns
    except OSError:
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageUse:
    """One use of a stage in a build, a line of the journal."""

    stage: str
    part: str
    key: str
    status: str
    """`built` or `cached`."""
    seconds: float
    peak_bytes: int
    bytes: int
    """Size of the artifact."""


def append_use(journal: Path, use: StageUse) -> None:
    """Append a line to the journal."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(asdict(use), sort_keys=True) + "\n")


def begin_journal(journal: Path, time: float) -> None:
    """Empty the journal but for the time at which a build begins."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    write_text(journal, json.dumps({"begun": time}) + "\n")


def read_journal(journal: Path) -> tuple[list[StageUse], float | None]:
    """Return every use in order, and the time at which the build began; incomplete lines are left out."""
    lines = [line for text in journal.read_text(encoding="utf-8").splitlines() if (line := _parsed(text))]
    names = {field.name for field in fields(StageUse)}
    begun = lines[0].get("begun") if lines else None
    return [StageUse(**line) for line in lines if line.keys() == names], begun


def _parsed(text: str) -> dict[str, Any]:
    """Return the values of a line; none of one that a kill or a full disk cut short, which the next one may follow."""
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}
