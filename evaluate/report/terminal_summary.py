"""Format the tables of a report for a terminal: figures without intervals, and captions."""

from __future__ import annotations

from collections.abc import Sequence

from evaluate.report.exports import MINIATURE
from evaluate.report.results import Results
from evaluate.report.table import Table
from submission.text_table import aligned


def summary_text(results: Results, tables: Sequence[Table]) -> str:
    """Return every table for a terminal."""
    blocks = [MINIATURE] if results.miniature else []
    return "\n\n".join([*blocks, *map(table_text, tables)])


def table_text(table: Table) -> str:
    """Return a table for a terminal; long texts are omitted."""
    shown = [number for number, column in enumerate(table.columns) if not column.text]
    columns = [table.columns[number] for number in shown]
    rows = [["", *(column.over for column in columns)], [table.head, *(column.title for column in columns)]]
    rows = rows if any(rows[0]) else rows[1:]
    for group in table.groups:
        rows += [[group.title, *[""] * len(columns)]] if group.title else []
        rows += [[row.head, *(row.cells[number].shown for number in shown)] for row in group.rows]
    return f"{table.title}\n{aligned(rows)}\n{table.caption}"
