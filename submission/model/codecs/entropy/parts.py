"""Work on parts of a weight, shared among threads: compiled loops hold no lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Found = TypeVar("Found")


def map_parts(work: Callable[[Part], Found], parts: Iterable[Part], workers: int) -> list[Found]:
    """Return what work makes of parts, in their order, by so many threads."""
    if workers <= 1:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, parts))


def row_parts(rows: int, count: int) -> list[slice]:
    """Return rows in so many parts of nearly equal size, none of them empty."""
    count = max(1, min(count, rows))
    return [slice(rows * part // count, rows * (part + 1) // count) for part in range(count)]
