"""Strict TOML into frozen dataclasses: every key known, every type right, or an error that names what to write."""

from __future__ import annotations

import copy
import difflib
import functools
import math
import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from submission.errors import UserError

LARGEST_WHOLE = 1 << 63
"""No option is as large, and libraries take no larger seed."""


class DataclassLike(Protocol):
    """An instance of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=DataclassLike)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the fix for a name that is not known: the nearest valid one first, then all of them."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    known = f"known: {', '.join(valid) or 'none'}"
    return f"did you mean {close[0]!r}? {known}" if close else known


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table of a TOML file; UserError where it cannot be read or is not TOML."""
    try:
        return copy.deepcopy(_parsed(path.read_bytes().decode("utf-8-sig")))
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", "name an existing TOML file") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(str(path), f"is not TOML in UTF-8 ({error})", "fix the syntax there") from error


@functools.lru_cache
def _parsed(text: str) -> dict[str, Any]:
    """Return the table of a TOML text; a list of recipes is read once for each of its systems."""
    return tomllib.loads(text)


def locate(name: str, folder: Path, kind: str) -> Path:
    """Return the file of a shipped name (`primary`) or of a path (`my/recipe.toml`)."""
    if name.endswith(".toml") or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise UserError(
                f"{kind} {name}", "no such file", f"give the path of a TOML file or a name in {folder.name}/"
            )
        return path
    path = folder / f"{name}.toml"
    if not path.is_file():
        raise UserError(f"{kind} {name!r}", "unknown name", nearest(name, (p.stem for p in folder.glob("*.toml"))))
    return path


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return base with over laid on it: tables merge key by key, everything else (arrays too) is replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def parse(kind: type[T], table: dict[str, Any], file: str, path: str = "") -> T:
    """Return the dataclass that a table spells.

    Fields without a default are required; one annotated with a function, `Annotated[Codec, parse_codec]`, is read by
    it: (value, where) -> field. ValueError from the dataclass's own `__post_init__` becomes a
    UserError that names the file and the table.
    """
    if not isinstance(table, dict):
        raise UserError(_where(file, path), f"expected a table, got {_spell(table)}", f"write a [{path}] section")
    hints = _hints(kind)
    known = {field.name: field for field in fields(kind)}
    for key in table:
        if key not in known:
            raise UserError(_where(file, _join(path, key)), "unknown key", nearest(key, known))
    values = {}
    for name, field in known.items():
        if name in table:
            values[name] = _convert(hints[name], table[name], file, _join(path, name))
        elif field.default is MISSING and field.default_factory is MISSING:
            raise UserError(_where(file, _join(path, name)), "missing", f"write {name} = {_name(hints[name])}")
    try:
        return kind(**values)
    except ValueError as error:
        what, _, fix = str(error).partition("; ")
        raise UserError(_where(file, path), what, fix or "change one of them") from error


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Return field -> type of a dataclass: its annotations are compiled once."""
    return get_type_hints(kind, include_extras=True)


def parse_options(kind: type[T], options: Mapping[str, Any]) -> T:
    """Return the dataclass whose fields stand among the options of a stage; UserError as `parse`."""
    known = {field.name for field in fields(kind)}
    return parse(kind, {name: value for name, value in options.items() if name in known}, "options of a stage")


def _where(file: str, path: str) -> str:
    return f"{file}: {path}" if path else file


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _spell(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"


def _name(hint: Any) -> str:
    """Name a type in the terms of TOML."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(repr(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_name(a) for a in arguments if a is not types.NoneType)  # TOML has no null: leave it out
    if origin is tuple:
        return f"a list of {_name(arguments[0])}"
    if origin is Annotated and arguments[0] is str:
        return "a text"
    if origin in (dict, Annotated) or is_dataclass(hint):
        return "a table"
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[hint]


def _convert(hint: Any, value: Any, file: str, path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return arguments[1](value, _where(file, path))
    if isinstance(hint, type) and is_dataclass(hint):
        return parse(hint, value, file, path)
    if origin in (Union, types.UnionType):
        return _convert(
            next((a for a in arguments if _fits(a, value)), None) or _refuse(hint, value, file, path),
            value,
            file,
            path,
        )
    if not _fits(hint, value):
        _refuse(hint, value, file, path)
    if origin is tuple:
        return tuple(_convert(arguments[0], item, file, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        return {key: _convert(arguments[1], item, file, _join(path, key)) for key, item in value.items()}
    return float(value) if hint is float else value


def _fits(hint: Any, value: Any) -> bool:
    """Return whether a TOML value is of the type at its outermost level."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(value == a and type(value) is type(a) for a in arguments)
    if origin is tuple:
        return isinstance(value, list)
    if origin in (dict, Annotated) or is_dataclass(hint):
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return type(value) is int and abs(value) < LARGEST_WHOLE
    return type(value) is hint


def _refuse(hint: Any, value: Any, file: str, path: str) -> Any:
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    fix = nearest(value, choices) if isinstance(value, str) and choices else f"write {_name(hint)}"
    raise UserError(_where(file, path), f"expected {_name(hint)}, got {_spell(value)}", fix)
