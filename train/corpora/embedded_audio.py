"""Extract audio that is embedded in parquet or arrow files into files of its own, in its own encoding.

A row of a parquet file cannot be read without its row group, dozens of rows, so training in random order would read the
corpus dozens of times per epoch. Each file is therefore passed over once, in order, and the bytes of the rows that are
needed are written to the corpus stage's output as they are: nothing is decoded or encoded again, the data folder stays
read-only, and what trains on the utterances reads ordinary audio files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute

from train.corpora.formats.arrow_files import read_batches
from train.corpora.formats.corpus_utterance import EmbeddedAudio

EXTRACTED = "audio"
"""Folder beside corpus.jsonl that holds the extracted files."""


def extract_audio(folder: Path, wanted: Mapping[EmbeddedAudio, Path]) -> None:
    """Write the bytes of each embedded audio to its path; a path that exists is whole and is kept."""
    tables: dict[tuple[str, str], dict[int, Path]] = {}
    for audio, path in wanted.items():
        if not path.exists():
            tables.setdefault((audio.table, audio.column), {})[audio.row] = path
    for (table, column), paths in sorted(tables.items()):
        for first, values in read_batches(folder / table, [column], paths.keys()):
            cells = values[column]
            data = pyarrow.compute.struct_field(cells, "bytes") if pa.types.is_struct(cells.type) else cells
            for row in range(first, first + len(data)):
                if row in paths:
                    _write(paths[row], data[row - first].as_buffer())


def _write(path: Path, data: pa.Buffer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def remove_unused(root: Path, used: Iterable[Path]) -> None:
    """Remove the files below `root` that no utterance uses, and folders that are then empty."""
    keep = set(used)
    for path in (*sorted(root.rglob("*"), reverse=True), root):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.exists() and path not in keep:
            path.unlink()
