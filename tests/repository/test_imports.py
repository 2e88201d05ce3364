"""Packages import only those that docs/architecture.md allows, which reading their imports shows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Package -> the packages that it may import besides itself and the standard library.
MAY_IMPORT = {
    "submission": set(),
    "submission.runtime": {"submission"},
    "submission.miniature": {"submission", "submission.runtime"},
    "train": {"submission", "submission.runtime", "submission.miniature"},
    "quantize": {"submission", "submission.runtime", "submission.miniature"},
    "segment": {"submission", "submission.runtime", "submission.miniature"},
    "evaluate": {"submission", "submission.runtime", "submission.miniature", "segment"},
}
PACKAGES = {"submission", "train", "quantize", "segment", "evaluate"}
# Folder of checks -> the folders of checks that it may import besides itself.
CHECKS_MAY_IMPORT = {
    "folder": set(),
    "outputs": {"folder"},
    "claims": {"folder", "outputs"},
    "model": {"folder"},
}
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def package_of(module: str) -> str:
    return max((package for package in MAY_IMPORT if f"{module}.".startswith(f"{package}.")), key=len)


# Imported inside functions, where it is needed and there: a codec's file holds layout, encoding and decoding together,
# and sizes are computed where there is no torch; processes that share a stage meet through torch, and a single one
# finds what is built without it.
LATE = {
    "submission/model/codecs": {"torch"},
    "submission/model/codecs/entropy": {"torch", "numpy"},
    "submission/store/launch.py": {"torch", "accelerate"},
}
# Compiled loops are a file that nothing but functions imports.
COMPILED = {
    "submission/model/codecs/entropy/kernels.py": {"numpy", "numba"},
    "submission/model/codecs/entropy/trellis.py": {"numpy", "numba"},
}
COMPILED_MODULES = [path.removesuffix(".py").replace("/", ".") for path in COMPILED]


def imports(path: Path, *, at_once: bool = False) -> set[str]:
    """Return the modules that a file imports anywhere, or at once when it is imported; `from a import b` as `a.b`."""
    names: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_package_imports_only_those_that_it_may(path):
    package = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    location = path.relative_to(ROOT)
    compiled = COMPILED.get(location.as_posix(), set())
    late = LATE.get(location.as_posix(), set()) | LATE.get(location.parent.as_posix(), set()) | compiled
    at_once = imports(path, at_once=True)
    assert not (late - compiled) & {name.split(".")[0] for name in at_once}
    if not compiled:
        assert not any(name.startswith(f"{module}.") for module in COMPILED_MODULES for name in at_once)
    for name in imports(path):
        if name.split(".")[0] in PACKAGES:
            assert package_of(name) in MAY_IMPORT[package] | {package}, f"{package} must not import {name}"
        elif package == "submission":
            assert name.split(".")[0] in sys.stdlib_module_names | late, f"{name} is not in the standard library"


@pytest.mark.parametrize("folder", CHECKS_MAY_IMPORT)
def test_a_folder_of_checks_imports_only_those_before_it(folder):
    checks = "submission.bundle.checks."
    for path in (ROOT / checks.replace(".", "/") / folder).glob("*.py"):
        others = {name.removeprefix(checks).split(".")[0] for name in imports(path) if name.startswith(checks)}
        assert others & CHECKS_MAY_IMPORT.keys() <= CHECKS_MAY_IMPORT[folder] | {folder}, path.name


def test_what_is_built_is_found_without_torch():
    modules = "quantize.stages, evaluate.system_stages, train.stages, segment.stages, submission.miniature.stages"
    imported = f"import sys, {modules}\n"
    code = imported + "print({'torch', 'transformers', 'numpy', 'numba', 'matplotlib'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_noxfile_imports_none_of_the_packages():
    assert not {name.split(".")[0] for name in imports(ROOT / "noxfile.py")} & PACKAGES


def test_no_package_stands_beside_the_five():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == PACKAGES
