"""Utterances in a memory-mapped Arrow file, as a `datasets.Dataset`.

A corpus of hundreds of thousands of utterances takes gigabytes as Python objects, in the training process and in each
of its data workers. Here it is read once, line by line, into an Arrow file beside the run's checkpoints; all processes
map that file, and an `Utterance` exists only while an example is made from it. corpus.jsonl stays the file that
packages exchange. The file is written by pyarrow and opened by `Dataset.from_file`, so that `datasets` builds nothing:
it writes no cache, prints no progress bar and makes no request.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute

from submission.text.corpus import Utterance

if TYPE_CHECKING:
    from datasets import Dataset

BATCH_ROWS = 1000
"""Rows in a record batch: a row is found by its batch first, so few large ones, but one is held while writing."""
SCHEMA = pa.schema([(f.name, pa.int64() if f.type == "int" else pa.string()) for f in fields(Utterance)])


class UtteranceTable(Sequence[Utterance]):
    """A sequence of utterances that are read from a memory-mapped file when they are indexed.

    Pickled, it is the path of its file: a data worker maps the same file.
    """

    def __init__(self, path: Path) -> None:
        """path: a file of `write_utterance_table`."""
        self.path = path
        self._dataset = _open(path)

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)

    def __len__(self) -> int:
        return len(self._dataset)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...
    def __getitem__(self, index: int | slice) -> Utterance | list[Utterance]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Utterance(**self._dataset[index])

    def __iter__(self) -> Iterator[Utterance]:
        for batch in self.arrow.to_batches():
            yield from (Utterance(**row) for row in batch.to_pylist())

    @property
    def arrow(self) -> pa.Table:
        """The columns, mapped: fields of `Utterance`."""
        return self._dataset.data.table

    @property
    def languages(self) -> list[str]:
        """The target languages, sorted."""
        return sorted(self.arrow.column("target_lang").unique().to_pylist())

    @property
    def lengths(self) -> np.ndarray:
        """int64 [utterances]: samples of each utterance."""
        return self.arrow.column("end").to_numpy() - self.arrow.column("start").to_numpy()


def distinct_places(*tables: UtteranceTable) -> pa.Table:
    """Return the columns audio, start and end of all utterances, each stretch of a recording once."""
    columns = ["audio", "start", "end"]
    return pa.concat_tables([table.arrow.select(columns) for table in tables]).group_by(columns).aggregate([])


def shared_places(*tables: UtteranceTable) -> list[tuple[str, int, int]]:
    """Return (audio, start, end) of each stretch of the recordings of which there are several stretches."""
    places = distinct_places(*tables)
    counts = places.group_by("audio").aggregate([("start", "count")])
    several = counts.filter(pyarrow.compute.greater(counts["start_count"], 1))["audio"]
    shared = places.filter(pyarrow.compute.is_in(places["audio"], value_set=several.combine_chunks()))
    return list(zip(*(shared[name].to_pylist() for name in ("audio", "start", "end")), strict=True))


def _open(path: Path) -> Dataset:
    from datasets import Dataset

    return Dataset.from_file(str(path))


def write_utterance_table(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write utterances in the given order; the file is complete when it has its name."""
    partial = path.with_name(f"{path.name}.partial")
    remaining = iter(utterances)
    with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
        while rows := [asdict(u) for u in itertools.islice(remaining, BATCH_ROWS)]:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, SCHEMA))
    partial.replace(path)
