"""Find the files of a tokenizer that its tokenizer.json holds already.

A checkpoint on the hub often has vocab.json, merges.txt and added_tokens.json beside tokenizer.json, for libraries that
do not read the latter: megabytes for the vocabulary of Qwen. transformers reads tokenizer.json where it is there. A
file is left out of a packed model only if tokenizer.json says the same, token by token and merge by merge.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

TOKENIZER, VOCABULARY, MERGES, ADDED = "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json"


def repeated_files(folder: Path) -> frozenset[str]:
    """Return which of vocab.json, merges.txt and added_tokens.json repeat what tokenizer.json holds."""
    paths = [folder / name for name in (TOKENIZER, VOCABULARY, MERGES, ADDED)]
    if not paths[0].is_file() or not any(path.is_file() for path in paths[1:]):
        return frozenset()
    marks = tuple((s.st_size, s.st_mtime_ns, s.st_ino) for path in paths if path.is_file() for s in (path.stat(),))
    return _repeated(folder, marks)


@functools.lru_cache
def _repeated(folder: Path, marks: tuple[tuple[int, int, int], ...]) -> frozenset[str]:
    """Return the same; marks: sizes, times and inodes of the files, so that they are read once while they stay."""
    try:
        tokenizer = json.loads((folder / TOKENIZER).read_bytes())
        model, added = tokenizer["model"], {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
        held = {
            VOCABULARY: model["type"] == "BPE" and model["vocab"],
            MERGES: model["type"] == "BPE" and [_merge(merge) for merge in model["merges"]],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
    repeated = {name for name in held if held[name] and _read(folder / name) == held[name]}
    beside = _read(folder / ADDED)
    if isinstance(beside, dict) and beside.items() <= added.items():
        repeated.add(ADDED)
    return frozenset(repeated)


def _merge(merge: Any) -> str:
    """Return a merge as merges.txt has it; tokenizer.json has a text or, in newer files, a list of two."""
    return merge if isinstance(merge, str) else " ".join(merge)


def _read(path: Path) -> Any:
    """Return the lines of a text but its version and blank ones, or the value of a JSON file; None where unreadable."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text)
    except (OSError, ValueError):
        return None
    lines = text.split("\n")
    return [line for line in lines[lines[0].startswith("#version") :] if line]
