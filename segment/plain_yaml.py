"""Read untrusted YAML as lists, tables and texts: no aliases, no tags, and nested no deeper than a list of segments.

A few hundred bytes of YAML can stand for gigabytes (aliases of aliases), and brackets without end overflow the stack of
a reader that recurses. The events of the parser are read one by one instead, and a value is built as far as it is
allowed.
"""

from __future__ import annotations

from typing import Any

import yaml

MOST_DEPTH = 6
MOST_VALUES = 1_000_000


class PlainYamlError(ValueError):
    """A text is not YAML, or holds more than plain lists, tables and texts."""


def parse_plain_yaml(text: str) -> Any:
    """Return the value of a YAML document whose scalars stay texts as they are written; None for an empty one.

    Raises PlainYamlError, which says what is wrong on which line.
    """
    try:
        return _Builder().value_of(text)
    except yaml.YAMLError as error:
        raise PlainYamlError(f"is not YAML: {' '.join(str(error).split())[:300]}") from error


class _Builder:
    """The lists and tables that are open, and what they wait for."""

    def __init__(self) -> None:
        self.root: list[Any] = []
        self.open: list[Any] = [self.root]
        self.keys: list[Any] = [None]
        """For each open container the key that waits for its value, None in a list and where a key comes next."""
        self.left = MOST_VALUES

    def value_of(self, text: str) -> Any:
        for event in yaml.parse(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise PlainYamlError(f"line {line}: holds an alias (*name), which a list of segments has no need of")
            if isinstance(event, yaml.ScalarEvent):
                self._add(event.value, line)
            elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
                self._open([] if isinstance(event, yaml.SequenceStartEvent) else {}, line)
            elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                self.open.pop()
                self.keys.pop()
        if len(self.root) > 1:
            raise PlainYamlError("holds more than one document")
        return self.root[0] if self.root else None

    def _open(self, container: Any, line: int) -> None:
        if len(self.open) > MOST_DEPTH:
            raise PlainYamlError(f"line {line}: is nested deeper than {MOST_DEPTH} levels")
        self._add(container, line)
        self.open.append(container)
        self.keys.append(None)

    def _add(self, value: Any, line: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise PlainYamlError(f"holds more than {MOST_VALUES:,} values")
        container = self.open[-1]
        if isinstance(container, list):
            container.append(value)
        elif self.keys[-1] is None:
            if not isinstance(value, str):
                raise PlainYamlError(f"line {line}: has a list or table for a key")
            if value in container:
                raise PlainYamlError(f"line {line}: gives the key {value[:40]!r} twice")
            self.keys[-1] = value
        else:
            container[self.keys[-1]] = value
            self.keys[-1] = None
