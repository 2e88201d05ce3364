"""What a model folder weighs, as a person reads it."""

from __future__ import annotations

from typing import Any

from submission.description import GB, GIB, size_text
from submission.forecast import Forecast


def forecast_record(cast: Forecast, limit_bytes: int) -> dict[str, Any]:
    """Return a forecast as JSON values."""
    return {
        "roles": [
            {
                "role": role.role,
                "codecs": list(role.codecs),
                "tensors": role.tensors,
                "parameters": role.parameters,
                "bytes": role.size_bytes,
            }
            for role in cast.roles
        ],
        "header_bytes": cast.header_bytes,
        "config_bytes": cast.config_bytes,
        "other_bytes": cast.other_bytes,
        "weights_bytes": cast.weights_bytes,
        "total_bytes": cast.total_bytes,
        "limit_bytes": limit_bytes,
        "parameters": cast.parameters,
        "codecs": {name: codec.name for name, codec in cast.codecs.items()},
    }


def forecast_table(cast: Forecast, limit_bytes: int) -> str:
    """Return a forecast as a table by role, with its total against the limit."""
    decimals = 3 if cast.total_bytes >= GB // 10 else 6  # so that those of the miniature do not all read 0.003
    rows = [("role", "stored as", "tensors", "parameters", "bytes", "GB", "GiB")]
    for role in cast.roles:
        rows.append(
            _row(
                role.role,
                ", ".join(role.codecs),
                f"{role.tensors:,}",
                f"{role.parameters:,}",
                role.size_bytes,
                decimals,
            )
        )
    for name, size in (
        ("header", cast.header_bytes),
        ("config.json", cast.config_bytes),
        ("tokenizer and others", cast.other_bytes),
    ):
        rows.append(_row(name, "", "", "", size, decimals))
    rows.append(_row("total", "", "", f"{cast.parameters:,}", cast.total_bytes, decimals))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if not cast.other_bytes:
        lines += ["", "The tokenizer counts 0 until a model folder is named (--data or --checkpoint)."]
    return "\n".join([*lines, "", *size_against_limit(cast.total_bytes, limit_bytes)])


def _row(name: str, codecs: str, tensors: str, parameters: str, size: int, decimals: int) -> tuple[str, ...]:
    return name, codecs, tensors, parameters, f"{size:,}", f"{size / GB:.{decimals}f}", f"{size / GIB:.{decimals}f}"


def size_against_limit(total_bytes: int, limit_bytes: int) -> list[str]:
    """Return two lines: the size in every unit, and how it stands to the limit."""
    room = limit_bytes - total_bytes
    verdict = f"{room:,} bytes below it" if room >= 0 else f"{-room:,} bytes OVER it"
    return [f"model folder: {size_text(total_bytes)}", f"limit:        {size_text(limit_bytes)}; {verdict}"]
