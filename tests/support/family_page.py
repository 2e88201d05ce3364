"""The example of docs/extending/family.md: its code blocks as modules, its campaign as a file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).parents[2] / "docs/extending/family.md"


def code_blocks() -> dict[str, str]:
    """Return title, the path of a file -> its text, for every block of the page that has one."""
    text = PAGE.read_text(encoding="utf-8")
    return dict(re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL))


def load_module(path: str) -> ModuleType:
    """Return the module that a block of the page is, as if it were in the file that it names."""
    name = f"family_page.{path.removesuffix('.py').replace('/', '.')}"
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(code_blocks()[path], path, "exec"), module.__dict__)
    return module
