"""Read the examples of docs/extending and use them as a reader does."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def titled_blocks(page: str) -> dict[str, str]:
    """Return title -> text of the code blocks of a page of docs/extending."""
    text = (ROOT / "docs/extending" / page).read_text(encoding="utf-8")
    return dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', text, flags=re.MULTILINE | re.DOTALL))


def import_source(monkeypatch: pytest.MonkeyPatch, path: str, source: str) -> types.ModuleType:
    """Return the module that a file of this path and content would be, importable until the test ends."""
    name = path.removesuffix(".py").replace("/", ".")
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(source, path, "exec"), module.__dict__)
    return module
