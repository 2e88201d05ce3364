"""Read a local snapshot of a hub dataset: parquet or arrow files, a row per utterance, audio in one of the columns.

The recipe names the files and the columns (docs/training.md). An audio column is what `datasets` calls `Audio` (a
struct of bytes and path), a column of bytes, or a column of paths below the corpus folder. Files are read with pyarrow:
no loading script is run, and nothing is downloaded. Embedded audio is yielded as `EmbeddedAudio`, which
train.corpora.embedded_audio extracts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute

from submission.errors import UserError
from submission.system.schema import nearest
from submission.text.recording_names import recording_suffix
from train.corpora.formats.arrow_files import column_type, read_batches, read_schema
from train.corpora.formats.corpus_utterance import CorpusUtterance, EmbeddedAudio, Unparsed, one_line

SUFFIXES = (".parquet", ".arrow")


def read(
    folder: Path,
    languages: Sequence[str],
    *,
    files: Sequence[str],
    columns: Mapping[str, str],
    targets: Mapping[str, str],
) -> Iterator[CorpusUtterance | Unparsed]:
    """Yield every row of the files with its translations in the languages that `targets` has.

    files: paths or patterns below the folder; columns: audio, source, id, recording -> name of the column; targets:
    language -> name of the column. Raises UserError for a pattern without files, a missing column, and a wrong type.
    """
    chosen = {language: targets[language] for language in languages if language in targets}
    for path in _matching(folder, files):
        table = _Table(folder, path, columns, chosen)
        for first, values in read_batches(path, table.names()):
            rows = {name: column.to_pylist() for name, column in values.items() if name != columns["audio"]}
            rows[columns["audio"]] = _audio_cells(values[columns["audio"]])
            for index in range(len(rows[columns["audio"]])):
                yield table.candidate(first + index, {name: cells[index] for name, cells in rows.items()})


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files of all patterns, sorted, each once."""
    found: set[Path] = set()
    for pattern in patterns:
        paths = {path for path in folder.glob(pattern) if path.is_file()}
        if not paths:
            there = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in SUFFIXES)
            what = f"no file matches {pattern!r}"
            raise UserError(str(folder), what, f"correct `files` in the recipe; {_some(there)}")
        if other := sorted(path for path in paths if path.suffix not in SUFFIXES):
            raise UserError(str(other[0]), "is neither .parquet nor .arrow", "correct `files` in the recipe")
        found |= paths
    return sorted(found)


def _some(names: Sequence[str]) -> str:
    return f"there are {len(names)} parquet or arrow files{': ' if names else ''}{', '.join(names[:5])}"


def _audio_cells(column: pa.Array) -> list[tuple[bool, Any]]:
    """Return for each row whether audio is embedded, and the path that it names; bytes are not copied."""
    kind = column.type
    if pa.types.is_struct(kind):
        fields = kind.names
        embedded = pyarrow.compute.struct_field(column, "bytes").is_valid().to_pylist() if "bytes" in fields else None
        paths = pyarrow.compute.struct_field(column, "path").to_pylist() if "path" in fields else [None] * len(column)
        return list(zip(embedded or [False] * len(column), paths, strict=True))
    if _is_bytes(kind):
        return [(valid, None) for valid in column.is_valid().to_pylist()]
    return [(False, path) for path in column.to_pylist()]


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_audio(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return _is_bytes(kind) or _is_text(kind)
    fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    known = [("bytes", _is_bytes), ("path", _is_text)]
    return any(name in fields for name, _ in known) and all(fits(fields[n]) for n, fits in known if n in fields)


@dataclass(frozen=True, slots=True)
class _Table:
    """One file, whose columns have been checked."""

    folder: Path
    path: Path
    columns: Mapping[str, str]
    targets: Mapping[str, str]

    def __post_init__(self) -> None:
        schema = read_schema(self.path)
        for role, name in (*self.columns.items(), *self.targets.items()):
            where = f"{self.path}: column {name!r}"
            kind = column_type(schema, name)
            if kind is None:
                raise UserError(where, "is missing", f"correct the recipe; {nearest(name, schema.names)}")
            if role == "audio" and not _is_audio(kind):
                what = f"expected audio (a struct of bytes and path, bytes, or paths), got {kind}"
                raise UserError(where, what, f"name the audio column in the recipe; known: {schema.names}")
            if role != "audio" and not (_is_text(kind) or (role == "id" and pa.types.is_integer(kind))):
                raise UserError(where, f"expected text for {role}, got {kind}", f"known: {', '.join(schema.names)}")

    def names(self) -> list[str]:
        return sorted({*self.columns.values(), *self.targets.values()})

    def candidate(self, row: int, cells: Mapping[str, Any]) -> CorpusUtterance | Unparsed:
        """Return the utterance of a row; cells: column -> value, of audio as `_audio_cells` has it."""
        table = self.path.relative_to(self.folder).as_posix()
        where, name = f"{table} row {row}", f"{table}/{row:07d}"
        if "id" in self.columns:
            name = cells[self.columns["id"]]
            if name is None or name == "":
                return Unparsed(id=where, why="the id is empty")
        embedded, path = cells[self.columns["audio"]]
        if not embedded and not path:
            return Unparsed(id=where, why="neither bytes nor a path", reason="audio missing")
        place = PurePosixPath(path or "")
        if not embedded and (place.is_absolute() or ".." in place.parts):
            return Unparsed(id=where, why=f"{path!r} leaves the corpus folder", reason="audio outside the corpus")
        suffix = recording_suffix(place.name).lower() or ".audio"
        return CorpusUtterance(
            id=str(name),
            audio=f"{table}/{row:07d}{suffix}" if embedded else place.as_posix(),
            embedded=EmbeddedAudio(table=table, column=self.columns["audio"], row=row) if embedded else None,
            start=0,
            end=None,
            recording=self._recording(cells, str(name) if embedded else place.name),
            source=one_line(cells[self.columns["source"]]),
            targets={language: one_line(cells[column]) for language, column in self.targets.items()},
        )

    def _recording(self, cells: Mapping[str, Any], default: str) -> str:
        return cells[self.columns["recording"]] or default if "recording" in self.columns else default
