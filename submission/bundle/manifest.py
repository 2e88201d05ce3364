"""manifest.json: the files of a bundle with sizes and digests, and the stages and inputs behind them.

Sorted canonical JSON without time, host name or path: equal artifacts give equal bytes on every machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from submission.bundle.description import Facts
from submission.progress import progress
from submission.store.digests import CHUNK_BYTES, canonical_json, files_below, write_text
from submission.system.campaign import Campaign
from submission.system.recipe.recipe import Recipe
from submission.text.characters import printable

NAME = "manifest.json"
FORMAT = "iwslt-model-compression-bundle"
VERSION = 1

CAMPAIGN_FILE = "campaign.json"
RECIPE_FILE = "recipe.json"
SCORES_FILE = "scores.json"

SEGMENTER = "segmenter"
SEGMENTER_FILES = ("config.json", "model.safetensors")
"""The folder of the segmentation classifier, and its files."""


class FileEntry(TypedDict):
    """A file that the manifest lists."""

    bytes: int
    sha256: str


class DerivedSections(TypedDict):
    """The part of a manifest that follows from the rest of the bundle."""

    campaign: dict[str, str]
    recipe: dict[str, str]
    model: dict[str, Any]
    techniques: list[str]
    data_sets: list[str]


class Manifest(DerivedSections):
    """What manifest.json holds."""

    format: str
    version: int
    stages: dict[str, str]
    """Stage -> key."""
    inputs: dict[str, str]
    """Name of what came from outside -> digest."""
    provenance: dict[str, str]
    """Library -> version."""
    files: dict[str, FileEntry]
    """Path of every file but the manifest -> its size and digest."""


TABLES = ("campaign", "recipe", "model", "stages", "inputs", "provenance", "files")
LISTS = ("techniques", "data_sets")
DIGEST = r"[0-9a-f]{64}"
TABLES_OF_TEXT = {"stages": DIGEST, "inputs": DIGEST, "provenance": r"[^\x00-\x1f\x7f]{1,200}"}
"""Table -> what each of its values is."""
LONGEST_NAME = 300


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a bundle into its folder."""
    write_text(folder / NAME, canonical_json(manifest))


def schema_faults(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield what distinguishes an untrusted JSON object from a Manifest; nothing for a valid one."""
    for key, expected in (("format", FORMAT), ("version", VERSION)):
        if table.get(key) != expected or type(table.get(key)) is not type(expected):
            yield f"{key}: expected {expected!r}, got {_got(table, key)}"
    for keys, kind, name in ((TABLES, dict, "a table"), (LISTS, list, "a list")):
        for key in keys:
            if not isinstance(table.get(key), kind):
                yield f"{key}: expected {name}, got {_got(table, key)}"
    for key in sorted(table.keys() - {"format", "version", *TABLES, *LISTS}):
        yield f"{printable(key)}: is no key of a manifest"
    for key, pattern in TABLES_OF_TEXT.items():
        yield from _text_faults(key, table.get(key), pattern)
    files = table.get("files")
    for path, listed in files.items() if isinstance(files, dict) else ():
        if not is_file_entry(listed):
            yield f"files: '{printable(path)}' has not exactly bytes and sha256"


def _text_faults(key: str, values: Any, pattern: str) -> Iterator[str]:
    """Yield what is wrong with a table of names and texts; nothing of what is no table."""
    if not isinstance(values, dict):
        return
    if not values:
        yield f"{key}: is empty, and every bundle is made by stages, from inputs, with libraries"
    elif key == "stages" and "quantize" not in values:
        yield "stages: has no 'quantize', which packs the model of every bundle"
    for name, value in values.items():
        if not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
            yield f"{key}: '{printable(name)}' is no name that can be shown"
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            kind = "a SHA-256 in hexadecimal" if pattern == DIGEST else "a short text"
            yield f"{key}.{printable(name)}: expected {kind}, got {printable(repr(value)[:80])}"


def _got(table: Mapping[str, Any], key: str) -> str:
    return printable(repr(table.get(key))[:80])


def is_file_entry(listed: Any) -> bool:
    """Return whether an untrusted value is a FileEntry."""
    if not isinstance(listed, dict) or set(listed) != {"bytes", "sha256"}:
        return False
    size, digest = listed["bytes"], listed["sha256"]
    return type(size) is int and size >= 0 and isinstance(digest, str) and bool(re.fullmatch(DIGEST, digest))


def build_manifest(
    folder: Path,
    *,
    campaign: Campaign,
    recipe: Recipe,
    facts: Facts,
    stages: Mapping[str, str],
    inputs: Mapping[str, str],
    provenance: Mapping[str, str],
) -> Manifest:
    """Return the manifest of a bundle's folder, which holds everything else already.

    stages: stage -> key; inputs: what came from outside -> digest; provenance: library -> version.
    """
    files = _describe(folder)
    digests = {name: files[name]["sha256"] for name in (CAMPAIGN_FILE, RECIPE_FILE)}
    return Manifest(
        format=FORMAT,
        version=VERSION,
        **derived_sections(campaign, recipe, facts, digests),
        stages=dict(stages),
        inputs=dict(inputs),
        provenance=dict(provenance),
        files=files,
    )


def derived_sections(campaign: Campaign, recipe: Recipe, facts: Facts, digests: Mapping[str, str]) -> DerivedSections:
    """Return the part of a manifest that follows from the rest of the bundle, so that a check can derive it again.

    digests: SHA-256 of campaign.json and recipe.json.
    """
    return {
        "campaign": {"name": campaign.name, "sha256": digests[CAMPAIGN_FILE]},
        "recipe": {"name": recipe.name, "sha256": digests[RECIPE_FILE], **asdict(recipe.upload)},
        "model": {
            "bytes": facts.size_bytes,
            "parameters": facts.parameters,
            "base": campaign.model.name,
            "names": facts.names,
        },
        "techniques": list(facts.techniques),
        "data_sets": list(facts.data_sets),
    }


def _describe(folder: Path) -> dict[str, FileEntry]:
    """Return path -> size and digest of every file, with progress on stderr."""
    files = files_below(folder)
    described: dict[str, FileEntry] = {}
    with progress("bundle: hashing", sum(p.stat().st_size for p in files), "bytes") as tick:
        for path in files:
            described[path.relative_to(folder).as_posix()] = describe_file(path, tick)
    return described


def describe_file(path: Path, tick: Callable[[float], None] = lambda amount: None) -> FileEntry:
    """Return size and digest of a file, read in bounded memory."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            tick(len(chunk))
    return FileEntry(bytes=size, sha256=digest.hexdigest())
