"""Digests of the source that each stage runs; `python -m tests.support.stage_sources` rewrites the golden file.

A digest covers the stage's function, what it refers to in its module, and every module of this repository that these
import, inside functions too: code without comments and docstrings. `ast.unparse` differs between Python versions, so
digests are compared on one of them.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from submission.store.digests import canonical_json, sha256_text, write_text
from submission.store.store import StageFunction
from submission.system.revisions import REVISIONS

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "goldens" / "stage_sources.json"
COMMAND = "python -m tests.support.stage_sources"
PYTHON = (3, 11)
STAGE_MODULES = ("submission.miniature.stages", "train.stages", "quantize.stages", "segment.stages", "evaluate.stages")
LEFT_OUT = {
    "submission.errors": "how a mistake is reported",
    "submission.cli": "arguments of the command line",
    "submission.progress": "the progress line",
    "submission.text_table": "text on the terminal",
    "submission.benchmarking": "measurements of speed",
    "submission.store.store": "calls stage functions; what it passes to them is in their keys",
    "submission.store.launch": "how processes meet; how they share the work is the stages' own",
    "submission.system.revisions": "the numbers that are raised",
    "submission.system.recipe": "checks options; their values are in the keys",
    "submission.system.schema": "reads options; their values are in the keys",
}
"""Modules that cannot change what a stage writes -> why."""
_REFERENCE = re.compile(r"([a-z_]\w*(?:\.\w+)+):[A-Za-z_]\w*")
"""How a registry names a function."""


def stage_functions() -> dict[str, StageFunction]:
    """Return stage -> its function, of every package."""
    found: dict[str, StageFunction] = {}
    for module in STAGE_MODULES:
        stages = importlib.import_module(module).STAGES
        assert not found.keys() & stages.keys(), f"{module}: a stage has two functions"
        found |= stages
    return found


def stage_sources() -> dict[str, dict[str, int | str]]:
    """Return stage -> {"revision", "digest"}."""
    return {
        name: {"revision": REVISIONS[name], "digest": source_digest(function)}
        for name, function in sorted(stage_functions().items())
    }


def source_digest(function: StageFunction) -> str:
    """Return the digest of all the code that a stage function can run."""
    nodes = _used(_tree(_file(function.__module__)), function.__name__)
    sources = {function.__module__: [ast.unparse(_without_docstrings(node)) for node in nodes]}
    pending = [name for node in nodes for name in _imported(node)]
    while pending:
        module = pending.pop()
        if module in sources or module in LEFT_OUT:
            continue
        tree = _tree(_file(module))
        sources[module] = [ast.unparse(_without_docstrings(tree))]
        pending += _imported(tree)
    return sha256_text(canonical_json(sources))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _used(tree: ast.Module, name: str) -> list[ast.stmt]:
    """Return the statements of a module that define a name and what it refers to, in the module's order."""
    defining = {defined: node for node in tree.body for defined in _defined(node)}
    wanted, pending = set(), [name]
    while pending:
        name = pending.pop()
        if name in wanted or name not in defining:
            continue
        wanted.add(name)
        pending += [node.id for node in ast.walk(defining[name]) if isinstance(node, ast.Name)]
    return [node for node in tree.body if wanted & set(_defined(node))]


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))


def _imported(tree: ast.AST) -> list[str]:
    """Return the modules of this repository that code imports, or names in a registry; packages around them too."""
    names: list[str] = []
    for node in _run(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = _REFERENCE.fullmatch(node.value)
            names += [match[1]] if match else []
    parts = [name.split(".") for name in names]
    every = {".".join(words[:end]) for words in parts for end in range(1, len(words) + 1)}
    return sorted(name for name in every if _file(name).is_file())


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node but those that only a type checker reads."""
    yield tree
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from _run(node)


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)] or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def read_golden() -> dict[str, dict[str, int | str]]:
    """Return the acknowledged sources; nothing where there is no golden file."""
    return json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {}


def complaints(now: dict[str, dict[str, int | str]], golden: dict[str, dict[str, int | str]]) -> Iterable[str]:
    """Yield what is wrong with the source of each stage that differs from the golden file."""
    for stage in sorted(now.keys() | golden.keys()):
        if stage not in now or stage not in golden:
            yield f"stage {stage}: new or gone; run `{COMMAND}`"
        elif now[stage]["revision"] != golden[stage]["revision"]:
            yield f"stage {stage}: its revision is new; run `{COMMAND}`"
        elif now[stage]["digest"] != golden[stage]["digest"]:
            yield (
                f"stage {stage}: its source changed and its revision did not; where its output changes, raise "
                f"REVISIONS[{stage!r}] in submission/system/revisions.py; then run `{COMMAND}`"
            )


def main() -> int:
    """Rewrite the golden file and print which stages changed."""
    if sys.version_info[:2] != PYTHON:
        print(f"error: run this with Python {'.'.join(map(str, PYTHON))}", file=sys.stderr)
        return 2
    now, golden = stage_sources(), read_golden()
    changed = [stage for stage in sorted(now.keys() | golden.keys()) if now.get(stage) != golden.get(stage)]
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    write_text(GOLDEN, canonical_json(now))
    print(f"{GOLDEN.relative_to(ROOT)}: {', '.join(changed) or 'nothing'} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
