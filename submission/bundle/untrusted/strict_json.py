"""Strict parsing of untrusted JSON, so that two programs cannot read different values from one file."""

from __future__ import annotations

import json
import math
from typing import Any

from submission.text.characters import printable

# A configuration is nested four deep. The bound keeps later recursion over a value (`repr`) from failing.
DEEPEST = 50


class Unreadable(Exception):
    """A file of the bundle cannot be read or parsed; the message says why."""


class RepeatedKey(Unreadable):
    """A JSON object gives one key twice, so that two programs may read different values."""


def parse_json(data: bytes, most_values: int) -> Any:
    """Return the value of strict JSON: UTF-8, no BOM, every key once, every number finite; Unreadable otherwise.

    most_values: bound on how many values it holds, and so on the memory that they take, counted before parsing.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > most_values:
        raise Unreadable(f"holds more than {most_values:,} values")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, **_NUMBERS)
    except RecursionError:
        raise Unreadable("is nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"is not JSON in UTF-8: {printable(str(error))}") from None
    _refuse_depth(value)
    return value


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    if level:
        raise Unreadable("is nested too deeply")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise RepeatedKey(f"gives the key '{printable(name)}' more than once")
        table[name] = value
    return table


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is not a finite number")
    return number


_NUMBERS: dict[str, Any] = {"parse_constant": _no_constant, "parse_float": _finite}
