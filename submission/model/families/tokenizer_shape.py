"""What a `tokenizer.json` with a byte-pair encoding may hold: vocabulary, merges, added tokens, and how they fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from submission.model.families.json_shape import (
    Shape,
    any_of,
    flag,
    list_of,
    one_of,
    table,
    text,
    whole,
)

MOST_TOKENS = 1 << 19
TOKEN = whole(0, MOST_TOKENS)
TOKEN_OR_NONE = any_of(one_of(None), TOKEN)
VERSION = text(r"\d{1,3}(\.\w{1,12}){1,4}")
SPECIAL = text(r"[^\s\x00-\x1f\x7f]{1,100}")
ADDED_FLAGS: dict[str, Shape] = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), flag)
ADDED = table({"content": SPECIAL}, ADDED_FLAGS | {"__type": one_of("AddedToken")})
SPECIAL_OR_NONE = any_of(one_of(None), ADDED, SPECIAL)
SEQUENCES = list_of(table({"Sequence": table({"id": one_of("A", "B"), "type_id": one_of(0, 1)})}), 2)


def vocabulary(value: Any, where: str) -> Iterator[str]:
    """Yield what is wrong with a table of token -> id, which are to be 0, 1, 2 and so on."""
    if not isinstance(value, dict) or not 256 <= len(value) <= MOST_TOKENS:
        yield f"{where}: expected an object of 256 to {MOST_TOKENS:,} tokens"
    elif any(type(number) is not int for number in value.values()) or set(value.values()) != set(range(len(value))):
        yield f"{where}: its numbers are not 0 to {len(value) - 1:,}, each once"


def merges(value: Any, where: str) -> Iterator[str]:
    """Yield what is wrong with a list of merges: pairs, or texts of two parts; `tokenizer_faults` holds their parts."""
    if not isinstance(value, list) or len(value) > MOST_TOKENS:
        yield f"{where}: expected a list of at most {MOST_TOKENS:,} merges"
    elif not all(_pair(merge) for merge in value):
        yield f"{where}: holds something else than two parts"


def _pair(merge: Any) -> list[str]:
    """Return the two parts of a merge; nothing where it has others."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    return parts if isinstance(parts, list) and len(parts) == 2 and all(isinstance(p, str) for p in parts) else []


def tokenizer_faults(
    files: Mapping[str, Any], size: int, tokens: Mapping[str, int | None]
) -> Iterator[tuple[str, str]]:
    """Yield (name of the file, what is wrong) where a tokenizer's files do not fit each other or the configuration.

    files: name -> JSON value of those that are there, of their shapes; size: the model's vocabulary; tokens: special
    token -> its number in the configuration.
    """
    name = "tokenizer.json"
    if name not in files:
        return
    model, words = files[name]["model"], dict(files[name]["model"]["vocab"])
    known = words.keys()
    if any(not {*(pair := _pair(merge)), "".join(pair)} <= known for merge in model["merges"]):
        yield name, "a merge makes, or is of, a token that the vocabulary does not have"
    if files.get("vocab.json", words) != words:
        yield "vocab.json", "is another vocabulary than that of tokenizer.json"
    added = files[name]["added_tokens"]
    for token in added:
        if words.setdefault(token["content"], token["id"]) != token["id"]:
            yield name, "an added token has another number than in the vocabulary"
    if len(set(words.values())) < len(words):
        yield name, "two tokens have one number"
    if max(words.values()) >= size:
        yield name, f"has a token beyond the {size:,} of the model"
    for token, expected in tokens.items():
        if words.get(token) != expected:
            yield name, f"{token} is token {words.get(token)}, the configuration has {expected}"
