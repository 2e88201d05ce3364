"""Text tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def aligned(rows: Sequence[Sequence[str]], left: Iterable[int] = (0,), indent: int = 0) -> str:
    """Return rows as aligned columns, those numbered in `left` to the left and the others to the right.

    A row may be shorter than the longest one; its last cell then may have any length.
    """
    left, most = set(left), max(len(row) for row in rows)
    widths = [max(len(row[i]) for row in rows if len(row) > i + (len(row) < most)) for i in range(most)]
    lines = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(" " * indent + line for line in lines)
