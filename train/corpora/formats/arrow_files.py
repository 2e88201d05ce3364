"""Read parquet and Arrow files as record batches, with columns named by dotted paths."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from submission.errors import UserError

BATCH_ROWS = 256


def _failed(path: Path, error: Exception) -> UserError:
    return UserError(str(path), f"cannot be read as a parquet or arrow file ({error})", "download the snapshot again")


def _open_arrow(path: Path) -> pa.RecordBatchStreamReader | pa.RecordBatchFileReader:
    """Open a memory-mapped IPC stream, as `datasets` writes it, or an IPC file."""
    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_file(source)


def read_schema(path: Path) -> pa.Schema:
    """Return the columns of a file and their types; UserError where it is neither parquet nor arrow."""
    try:
        return pq.read_schema(path) if path.suffix == ".parquet" else _open_arrow(path).schema
    except (pa.ArrowException, OSError) as error:
        raise _failed(path, error) from error


def column_type(schema: pa.Schema, name: str) -> pa.DataType | None:
    """Return the type of a column, `a.b` for field b of the struct a; None where there is none."""
    if name in schema.names:
        return schema.field(name).type
    root, _, rest = name.partition(".")
    kind = schema.field(root).type if root in schema.names else None
    for part in rest.split(".") if rest else [""]:
        if kind is None or not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            return None
        kind = kind.field(part).type
    return kind


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    if name in batch.schema.names:
        return batch.column(name)
    root, *parts = name.split(".")
    return pyarrow.compute.struct_field(batch.column(root), parts)


def read_batches(
    path: Path, columns: Collection[str], rows: Collection[int] | None = None
) -> Iterator[tuple[int, dict[str, pa.Array]]]:
    """Yield (number of its first row, column -> values) for each batch of a file, in order.

    rows: only batches near these rows are needed; row groups that hold none of them are not read.
    """
    try:
        if path.suffix == ".parquet":
            batches = _parquet_batches(path, columns, rows)
        else:
            batches = _numbered(iter(_arrow_batches(path)))
        for first, batch in batches:
            yield first, {name: _column(batch, name) for name in columns}
    except (pa.ArrowException, OSError) as error:
        raise _failed(path, error) from error


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    reader = _open_arrow(path)
    if isinstance(reader, pa.RecordBatchStreamReader):
        yield from reader
    else:
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))


def _numbered(batches: Iterator[pa.RecordBatch], first: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
    for batch in batches:
        yield first, batch
        first += batch.num_rows


def _parquet_batches(
    path: Path, columns: Collection[str], rows: Collection[int] | None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        roots = sorted({name if name in names else name.partition(".")[0] for name in columns})
        needed, first = None if rows is None else sorted(rows), 0
        for index in range(file.num_row_groups):
            end = first + file.metadata.row_group(index).num_rows
            if needed is None or bisect_left(needed, first) < bisect_left(needed, end):
                yield from _numbered(file.iter_batches(BATCH_ROWS, row_groups=[index], columns=roots), first)
            first = end
