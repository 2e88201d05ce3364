"""Counts with their noun, as text."""

from __future__ import annotations


def counted(number: float, noun: str) -> str:
    """Return a number with its noun, `1 epoch`, `1,200 segments`; the plural is the noun with an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
