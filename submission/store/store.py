"""The store: finished work under the hash of what it was made from.

    <root>/objects/<key>/     an artifact: the stage's files and `artifact.json`; complete, or not there
    <root>/partial/<key>/     a stage at work, or what a killed one left
    <root>/contents/<key>     digest of an artifact's content, where later keys depend on that and not on its key
    <root>/locks/<key>        held (flock) while a stage is at work, so that two builds make one artifact
    <root>/damaged/<key>      an artifact that changed on the disk, or was made from one that did

An artifact is written in `partial`, described, and moved into `objects` by one rename. Nothing else ever
writes below `objects`.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from submission.errors import UserError
from submission.processors import threads_text
from submission.store.damage import DAMAGED, DamagedArtifact, changed_file, missized_file, set_aside, unbuilt_commands
from submission.store.digests import canonical_json, describe_files, remove_leftovers, sha256_text
from submission.store.locks import lock_file
from submission.store.records import (
    RECORD,
    ArtifactRecord,
    Provenance,
    StageUse,
    append_use,
    begin_journal,
    read_journal,
    read_record,
    write_content,
)

# Libraries whose version can change a result; recorded, never part of a key.
LIBRARIES = (
    "torch",
    "transformers",
    "numba",
    "peft",
    "datasets",
    "numpy",
    "sacrebleu",
    "mweralign",
    "unbabel-comet",
    "espeakng-loader",
    "soxr",
    "av",
    "soundfile",
    "silero-vad",
    "matplotlib",
)


StageFunction = Callable[[dict[str, Any], dict[str, Path], Path], None]
"""The work of a stage: (options, inputs, out). options: those that the key hashes; inputs: name -> where it lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One folder that a stage reads: the digest that stands for it in the key, and where it lies."""

    digest: str
    """Digest of its contents, or the key of the stage that makes it; `absent` where an optional folder is missing."""
    path: Path
    """The folder; relative to the artifact of `stage` where there is one."""
    stage: Stage | None = None
    """The stage that makes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of a system: what it reads, and by that its key."""

    name: str
    part: str = ""
    """Which of several alike, `en-de/ACL`."""
    revision: int
    """Raised when the stage's code changes what it makes."""
    options: dict[str, Any]
    """Every choice that the stage reads, as JSON values."""
    inputs: dict[str, Input]
    reports: tuple[str, ...] | None = None
    """Files of the artifact that no other stage reads, where it stands in later keys by the content of the others; None
    where it stands there by its key."""
    command: str = field(default="", compare=False)
    """The command line that builds it."""

    @property
    def id(self) -> str:
        """Name and part, `decode:en-de/ACL6060-dev`; the name alone where there is one artifact."""
        return f"{self.name}:{self.part}" if self.part else self.name

    @property
    def artifact(self) -> Input:
        """The stage's artifact as another stage's input."""
        return Input(digest=self.key, path=Path(), stage=self)

    @property
    def digests(self) -> dict[str, str]:
        """Name of an input -> its digest."""
        return {name: source.digest for name, source in self.inputs.items()}

    @property
    def key(self) -> str:
        """SHA-256 of name, part, revision, options and inputs: no time, machine or library version."""
        return sha256_text(
            canonical_json(
                {
                    "name": self.name,
                    "part": self.part,
                    "revision": self.revision,
                    "options": self.options,
                    "inputs": self.digests,
                }
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A folder of artifacts; `journal` is where each use of a stage is noted, for the summary of a build."""

    root: Path
    journal: Path | None = None

    def folder(self, stage: Stage) -> Path:
        """Return where the artifact of a stage lies, or will lie."""
        return self.root / "objects" / stage.key

    def record(self, stage: Stage) -> ArtifactRecord | None:
        """Return the artifact's `artifact.json`, or None where the artifact is not built, or its record damaged."""
        record = read_record(self.folder(stage))
        return record if record is not None and record.key == stage.key else None

    def need(self, stage: Stage) -> Path:
        """Return the folder of an artifact that an earlier command built; UserError names that command."""
        if self.record(stage) is None:
            raise UserError(f"stage {stage.id}", "is not built", f"run `{stage.command}` first")
        return self.folder(stage)

    def read(self, stage: Stage, wanted: Iterable[Stage] = ()) -> Path:
        """Return the folder of an artifact as `need` does, and compare its bytes; wanted: as for `check`."""
        folder = self.need(stage)
        self.check(stage.artifact, [stage, *wanted])
        return folder

    def check(self, source: Input, wanted: Iterable[Stage]) -> None:
        """Compare the bytes of a part of an artifact with its record; each file is read once in a process.

        Where they differ, the artifact and everything that was made from it are set aside, and UserError names the
        commands that build again what the stages in `wanted` need.
        """
        if source.stage is None:
            return
        folder = self.need(source.stage)
        record = self.record(source.stage)
        file = changed_file(folder, record, source.path) if record else RECORD
        if file is not None:
            self.refuse_damaged(DamagedArtifact(folder, file, "is not what its stage wrote"), wanted)

    def refuse_damaged(self, damaged: DamagedArtifact, wanted: Iterable[Stage]) -> NoReturn:
        """Set a damaged artifact and everything made from it aside and raise UserError; wanted: as for `check`."""
        key = damaged.folder.name
        with self._locked(key, key):
            moved = set_aside(self.root, key)
        built = [path.parent.name for path in (self.root / "objects").glob(f"*/{RECORD}")]
        others = f" and what was made from it ({', '.join(moved[1:])})" if moved[1:] else ""
        what = f"{damaged.what}; {moved[0] if moved else key}{others} moved to {self.root / DAMAGED}"
        commands = ", ".join(f"`{command}`" for command in unbuilt_commands(wanted, built))
        fix = f"run {commands} and then this command again, or the whole build; the rest stays cached"
        raise UserError(damaged.where, what, fix)

    def obtain(self, stage: Stage, make: Callable[[Path], None], *, resume: bool = False) -> Path:
        """Return the artifact's folder, letting make(folder) fill it where it is missing.

        With resume, `make` finds what a killed run left in its folder and must cope with torn files;
        without, the folder is empty. While another process builds the same stage, wait for it.
        """
        started = time.monotonic()
        with self._locked(stage.key, stage.id):
            record = self._intact_record(stage)
            status = "cached" if record else "built"
            if record is None:
                record = self._build(stage, make, resume)
        self._note(stage, status, record, time.monotonic() - started)
        return self.folder(stage)

    def locate(self, source: Input) -> Path:
        """Return where an input lies; UserError where the stage that makes it is not built."""
        return source.path if source.stage is None else self.need(source.stage) / source.path

    def build(self, stage: Stage, work: StageFunction, *, resume: bool = False) -> Path:
        """Return the artifact's folder, letting `work` fill it where it is missing; resume as in `obtain`.

        Raises UserError, before anything is built, where a stage that makes an input is not built.
        """
        return self.obtain(stage, self.bind(stage, work), resume=resume)

    def bind(self, stage: Stage, work: StageFunction) -> Callable[[Path], None]:
        """Return make(out), which calls `work` with a fresh copy of the stage's options and where its inputs lie."""
        inputs = {name: self.locate(source) for name, source in stage.inputs.items()}
        options = canonical_json(stage.options)
        return lambda out: work(json.loads(options), dict(inputs), out)

    def _build(self, stage: Stage, make: Callable[[Path], None], resume: bool) -> ArtifactRecord:
        for source in stage.inputs.values():
            self.check(source, [each.stage for each in stage.inputs.values() if each.stage])
        partial = self.root / "partial" / stage.key
        if not resume:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, exist_ok=True)
        remove_leftovers(partial)
        (partial / RECORD).unlink(missing_ok=True)  # of a run that was killed before its rename
        print(f"{stage.id}: building with {threads_text()}", file=sys.stderr, flush=True)
        started = time.monotonic()
        make(partial)
        record = ArtifactRecord(
            stage=stage.name,
            part=stage.part,
            key=stage.key,
            revision=stage.revision,
            options=stage.options,
            inputs=stage.digests,
            files=describe_files(partial),
            provenance=Provenance(
                versions=library_versions(),
                seconds=round(time.monotonic() - started, 3),
                peak_bytes=peak_bytes(),
            ),
            made_from=tuple(sorted({source.stage.key for source in stage.inputs.values() if source.stage})),
        )
        record.write(partial)
        if stage.reports is not None:
            write_content(self.root, stage.key, record.content(stage.reports))
        _flush_folder(partial)
        self.folder(stage).parent.mkdir(parents=True, exist_ok=True)
        os.rename(partial, self.folder(stage))
        return record

    def _intact_record(self, stage: Stage) -> ArtifactRecord | None:
        """Return the record of an artifact whose files are all there at their size; set a damaged one aside."""
        record, folder = self.record(stage), self.folder(stage)
        if not folder.exists():
            return None
        wrong = RECORD if record is None else missized_file(folder, record)
        if wrong is None:
            return record
        moved = set_aside(self.root, stage.key)
        others = f" with what was made from it ({', '.join(moved[1:])})" if moved[1:] else ""
        aside = self.root / DAMAGED / stage.key
        print(
            f"{stage.id}: damaged ({wrong}), set aside in {aside}{others} and built again", file=sys.stderr, flush=True
        )
        return None

    def _note(self, stage: Stage, status: str, record: ArtifactRecord, waited: float) -> None:
        """Print in one line what was obtained, and append it to the journal."""
        seconds = record.provenance.seconds if status == "built" else waited
        print(
            f"{stage.id}: {status} in {seconds:.1f} s, {record.size_bytes:,} bytes, {self.folder(stage)}",
            file=sys.stderr,
            flush=True,
        )
        if self.journal is not None:
            use = StageUse(
                stage=stage.name,
                part=stage.part,
                key=stage.key,
                status=status,
                seconds=round(seconds, 3),
                peak_bytes=record.provenance.peak_bytes,
                bytes=record.size_bytes,
            )
            append_use(self.journal, use)

    def begin_journal(self) -> None:
        """Empty the journal but for the time: what is appended from now on belongs to one build."""
        if self.journal is not None:
            begin_journal(self.journal, time.time())

    def read_journal(self) -> tuple[list[StageUse], float | None]:
        """Return the last use of each stage, in the order of their first, and the seconds since the build began.

        The seconds are None where no build was begun, or where the clock was set back since.
        """
        if self.journal is None or not self.journal.is_file():
            return [], None
        uses, begun = read_journal(self.journal)
        seconds = -1.0 if begun is None else time.time() - begun
        return list({(use.stage, use.part): use for use in uses}.values()), seconds if seconds >= 0 else None

    @contextmanager
    def _locked(self, key: str, name: str) -> Iterator[None]:
        path = self.root / "locks" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            lock_file(lock, name, str(self.root), waiting=f"{name}: another process builds it; waiting")
            yield


def library_versions() -> dict[str, str]:
    """Return the installed versions of the libraries that shape results, and Python's."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def peak_bytes() -> int:
    """Return the peak resident memory of this process or of its largest finished child."""
    usages = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(usages) * (1 if sys.platform == "darwin" else 1024)


def _flush_folder(folder: Path) -> None:
    """Bring every file below a folder to the disk, so that a rename never publishes what a power cut can lose."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
