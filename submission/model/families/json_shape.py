"""Descriptions of JSON values by kind, range and known keys, and the faults of an untrusted value against them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from submission.text.characters import printable

Shape = Callable[[Any, str], Iterator[str]]
"""(value, its place, `text_config.hidden_size`) -> what is wrong with it, texts that are safe to show; nothing for a
value of this shape. The value is finite JSON; its kind, size and depth are anybody's choice."""

MOST_ITEMS = 10_000


def shown(value: Any) -> str:
    """Return an untrusted JSON value as a message shows it, briefly, however large it is."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    if isinstance(value, int) and not -(1 << 200) < value < 1 << 200:
        return "a number of very many digits"
    return printable(repr(value[:80]) if isinstance(value, str) else repr(value), 80)


def _fault(where: str, expected: str, value: Any) -> Iterator[str]:
    yield f"{printable(where)}: expected {expected}, got {shown(value)}"


def _same(value: Any, other: Any) -> bool:
    """Return whether two JSON scalars are one value; True is not 1."""
    return isinstance(value, bool) == isinstance(other, bool) and type(value) not in (dict, list) and value == other


def one_of(*values: str | float | bool | None) -> Shape:
    """Return the shape of a value that is one of these."""

    def faults(value: Any, where: str) -> Iterator[str]:
        if not any(_same(value, known) for known in values):
            yield from _fault(where, " or ".join("null" if v is None else repr(v) for v in values), value)

    return faults


def whole(low: int, high: int) -> Shape:
    """Return the shape of a whole number within a range."""

    def faults(value: Any, where: str) -> Iterator[str]:
        if type(value) is not int or not low <= value <= high:
            yield from _fault(where, f"a whole number from {low:,} to {high:,}", value)

    return faults


def number(low: float, high: float) -> Shape:
    """Return the shape of a number within a range."""

    def faults(value: Any, where: str) -> Iterator[str]:
        if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
            yield from _fault(where, f"a number from {low:g} to {high:g}", value)

    return faults


def text(pattern: str = r"[^\x00-\x1f\x7f]{0,200}") -> Shape:
    """Return the shape of a text that matches a pattern as a whole."""

    def faults(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, str) or len(value) > 1_000 or not re.fullmatch(pattern, value):
            yield from _fault(where, "a text of its kind", value)

    return faults


def flag(value: Any, where: str) -> Iterator[str]:
    """Yield what is wrong with a value that is to be true or false."""
    yield from one_of(True, False)(value, where)


def anything_small(value: Any, where: str) -> Iterator[str]:
    """Yield what is wrong with a scalar, or a short list of scalars, that nothing reads."""
    items = value if isinstance(value, list) and len(value) <= 100 else [value]
    for item in items:
        if isinstance(item, (dict, list)) or (isinstance(item, str) and len(item) > 1_000):
            yield from _fault(where, "a number or short text", value)


def list_of(shape: Shape, most: int = MOST_ITEMS) -> Shape:
    """Return the shape of a list of at most so many values of one shape."""

    def faults(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, list) or len(value) > most:
            yield from _fault(where, f"a list of at most {most:,}", value)
        else:
            for place, item in enumerate(value):
                yield from shape(item, f"{where}[{place}]")

    return faults


def any_of(*shapes: Shape) -> Shape:
    """Return the shape of a value of any of these shapes; of others the faults against the last are named."""

    def faults(value: Any, where: str) -> Iterator[str]:
        found: list[str] = []
        for shape in shapes:
            if not (found := list(shape(value, where))):
                return
        yield from found

    return faults


def table(required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None) -> Shape:
    """Return the shape of an object with exactly these keys, the optional ones present or not."""
    known = {**required, **(optional or {})}

    def faults(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield from _fault(where, "an object", value)
            return
        below = f"{where}." if where else ""
        for key in required.keys() - value.keys():
            yield f"{printable(below + key)}: is missing"
        for key, item in value.items():
            if key in known:
                yield from known[key](item, f"{below}{key}")
            else:
                yield f"{printable(below + key)}: is no key of a file of its kind"

    return faults


def table_of(keys: str, shape: Shape, most: int = MOST_ITEMS) -> Shape:
    """Return the shape of an object of at most so many entries: keys that match a pattern, values of one shape."""

    def faults(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, dict) or len(value) > most:
            yield from _fault(where, f"an object of at most {most:,} entries", value)
            return
        for key, item in value.items():
            if not re.fullmatch(keys, key):
                yield f"{printable(f'{where}.{key}')}: is no key of a file of its kind"
            else:
                yield from shape(item, f"{where}.{key}")

    return faults
