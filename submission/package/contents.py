"""What lies in a package beside its bundle: scripts, requirements, and the part of this program that translates.

Everything follows from this program alone, and from the bundle's name: so a package from outside can be compared with
it, byte for byte.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = Path(__file__).parent / "templates"
BUNDLE = "bundle"
RUNTIME = "runtime"
SCRIPTS = ("setup.sh", "run.sh")
"""Executable files."""

ENTRY = "evaluate.recordings.packaged"
PACKAGES = ("submission", "segment", "evaluate")
"""Packages of which modules may be needed; training and quantization never are."""
DATA_SUFFIXES = (".toml", ".json", ".jinja")
"""Of files that modules read beside their own source."""
BASE = "submission/miniature/*/*.j*"
"""What a bundle of a miniature is compared with: JSON and the chat template."""

_REFERENCE = re.compile(rf"((?:{'|'.join(PACKAGES)})(?:\.\w+)+):\w+")
"""A registry's entry, `segment.methods.fixed:SEGMENTER`."""


def package_files(name: str) -> dict[str, bytes]:
    """Return path in the package -> content of every file beside the bundle; name: what the system is called."""
    project = _project()
    torch = next(pin for pin in project["dependency-groups"]["package"] if pin.startswith("torch=="))
    readme = (TEMPLATES / "README.md").read_text(encoding="utf-8")
    return {
        "README.md": readme.format(name=name, version=project["project"]["version"]).encode(),
        "LICENSE": (ROOT / "LICENSE").read_bytes(),
        "requirements.txt": (ROOT / "locks" / "package.txt").read_bytes(),
        "requirements-torch.txt": f"{torch}\n".encode(),
        **{script: (TEMPLATES / script).read_bytes() for script in (*SCRIPTS, "Dockerfile")},
        **{f"{RUNTIME}/{path.relative_to(ROOT).as_posix()}": path.read_bytes() for path in _runtime_files()},
    }


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _runtime_files() -> list[Path]:
    """Return the sources that translating needs and the data of their packages, sorted."""
    needed = needed_modules(ENTRY)
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.suffix in DATA_SUFFIXES)
    data = [path for path in found if _package_of(path) in needed]
    return sorted([*(source_path(module) for module in needed), *data, *ROOT.glob(BASE)])


def _package_of(path: Path) -> str:
    """Return the name of the package in whose folder, at any depth, a data file lies."""
    folder = next(parent for parent in path.parents if (parent / "__init__.py").is_file())
    return ".".join(folder.relative_to(ROOT).parts)


def needed_modules(entry: str) -> set[str]:
    """Return the names of this program's modules that a module may import, itself included.

    Imports inside functions and the entries of registries count; imports for type checkers alone do not.
    """
    needed: set[str] = set()
    pending = [entry]
    while pending:
        name = pending.pop()
        if not name or name in needed or name.partition(".")[0] not in PACKAGES or not _is_module(name):
            continue
        needed.add(name)
        pending.append(name.rpartition(".")[0])
        pending += _references(ast.parse(source_path(name).read_text(encoding="utf-8")))
    return needed


def _is_module(name: str) -> bool:
    return source_path(name).is_file()


def source_path(module: str) -> Path:
    """Return the file of a module or package of this program, which need not be there."""
    base = ROOT.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _references(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module imports, each of which is a module or an attribute of one."""
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and (found := _REFERENCE.fullmatch(node.value))
        ):
            yield found[1]


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a module, but not those below `if TYPE_CHECKING`."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        pending.extend(ast.iter_child_nodes(node))
