"""Names and words: a name has one meaning in the whole tree, a folder stays small, messages use standard terms."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("submission", "train", "quantize", "segment", "evaluate")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MOST_MODULES = 16

SEVERAL_MODULES = {
    "__init__": "every package has one",
    "__main__": "every package with a command has one",
    "stages": "every package has its stage functions there",
    "family": "the interface of a family: shapes in model/families, inputs and model class in runtime/families",
    "qwen2_audio": "a family: shapes in model/families, inputs and model class in runtime/families",
    "gemma4_unified": "a family: shapes in model/families, inputs and model class in runtime/families",
    "codec": "the interface of codecs, and the codec of a folder",
    "budgets": "budgets of bytes as a model stores them, and how packing allots them",
    "fallbacks": "the list that recipes are checked by in submission/system, the work in evaluate/decoding",
    "kernels": "compiled loops: of entropy coding, and of matrix products with packed weights",
    "model": "the model of a package: fine-tuned, of segmentation, of the miniature",
    "training": "training of a package's model: the segmentation classifier, the miniature",
    "full_size": "a benchmark at the size of the campaign's model: of decoding, of training",
    "step": "a benchmark of one step: of decoding, of training",
    "generation": "generation of texts, and its benchmark",
    "loading": "loading of models, and its benchmark",
    "sweep": "the sweep over layers, and its benchmark",
}
"""Modules whose name stands in several folders -> why."""

REPLACED_WORDS = (
    r"house|rooms?|strangers?|told|tells?|asked|asks|hears?|heard|hearing|mend(?:s|ed|ing)?|anew|tired",
    r"goes on|go on with|gone on|goes? home|what there is to|brought to|held against|people who",
    r"schools?|lessons?|examinations?",
)
"""Words that the project's vocabulary replaced (docs/glossary.md)."""
PATTERN = re.compile(rf"\b(?:{'|'.join(REPLACED_WORDS)})\b", re.IGNORECASE)
LANGUAGE_DATA = (
    "submission/miniature/language/",
    "submission/miniature/curriculum.py",
    "submission/text/language_profiles.py",
)
"""Sentences and words of languages."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string of a module: docstrings, help, messages."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_no_public_class_name_stands_twice():
    holders = defaultdict(set)
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                holders[node.name].add(name_of(path))
    assert not {name: sorted(paths) for name, paths in holders.items() if len(paths) > 1}


def test_no_module_name_stands_twice_without_a_reason():
    holders = defaultdict(list)
    for path in FILES:
        holders[path.stem].append(name_of(path))
    assert not {name: paths for name, paths in holders.items() if len(paths) > 1 and name not in SEVERAL_MODULES}


def test_no_folder_has_many_modules():
    modules = defaultdict(int)
    for path in FILES:
        modules[name_of(path.parent)] += path.stem not in ("__init__", "__main__")
    assert not {folder: count for folder, count in modules.items() if count > MOST_MODULES}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_docstrings_help_and_messages_use_no_replaced_word(path):
    if not name_of(path).startswith(LANGUAGE_DATA):
        assert not [(line, found[0]) for line, text in texts(path) if (found := PATTERN.search(text))]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_begins_with_a_sentence_that_describes_it(path):
    first = (ast.get_docstring(tree_of(path)) or "").split("\n\n")[0]
    assert first and first.rstrip().endswith((".", ":"))


def test_no_test_module_imports_another():
    modules = sorted((ROOT / "tests").rglob("*.py"))
    found = {
        str(path.relative_to(ROOT)): node.module
        for path in modules
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2].startswith("test_")
    }
    assert found == {}, "move what they share to a support module"
