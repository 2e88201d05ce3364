"""MAN, SIZE, CAM, REC: does the bundle hold what its manifest says, and is it this campaign's?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from submission.bundle.checks.bundle_view import BundleView
from submission.bundle.checks.finding import Fault
from submission.bundle.checks.strict_json import Unreadable
from submission.bundle.manifest import (
    CAMPAIGN_FILE,
    FORMAT,
    NAME,
    RECIPE_FILE,
    VERSION,
    derived_sections,
)
from submission.model.sizes import GB, GIB, size_text
from submission.store.digests import canonical_json
from submission.text.characters import shown

TABLES = ("campaign", "recipe", "model", "stages", "inputs", "provenance", "files")
LISTS = ("techniques", "data_sets")


def manifest(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again with `python -m submission bundle`; its manifest must be whole."""
    table = view.manifest
    if isinstance(table, Unreadable):
        yield NAME, str(table)
        return
    for key, expected in (("format", FORMAT), ("version", VERSION)):
        if table.get(key) != expected:
            yield NAME, f"{key}: expected {expected!r}, got {shown(repr(table.get(key))[:80])}"
    for keys, kind, name in ((TABLES, dict, "a table"), (LISTS, list, "a list")):
        for key in keys:
            if not isinstance(table.get(key), kind):
                yield NAME, f"{key}: expected {name}, got {shown(repr(table.get(key))[:80])}"
    for key in ("stages", "inputs", "provenance"):
        if isinstance(told := table.get(key), dict) and not all(isinstance(value, str) for value in told.values()):
            yield NAME, f"{key}: expected texts only"
    for path, listed in view.manifest_files.items():
        if not _is_entry(listed):
            yield NAME, f"files: '{shown(path)}' has not exactly bytes and sha256"


def _is_entry(listed: Any) -> bool:
    if not isinstance(listed, dict) or set(listed) != {"bytes", "sha256"}:
        return False
    size, digest = listed["bytes"], listed["sha256"]
    return type(size) is int and size >= 0 and isinstance(digest, str) and bool(re.fullmatch("[0-9a-f]{64}", digest))


def missing_file(view: BundleView) -> Iterator[Fault]:
    """Copy the bundle again, whole: a file that its manifest lists is not there."""
    for path in view.manifest_files:
        if path not in view.files and not _leaves(path):
            yield shown(path), "is in the manifest and not in the folder"


def unlisted_file(view: BundleView) -> Iterator[Fault]:
    """Remove it, or write the bundle again: nothing may lie in a bundle that its manifest does not list."""
    if isinstance(view.manifest, Unreadable) or not isinstance(view.manifest.get("files"), dict):
        return  # MAN01 says so, once
    for path in view.files:
        if path not in view.manifest_files and path != NAME:
            yield shown(path), "is in the folder and not in the manifest"


def wrong_size(view: BundleView) -> Iterator[Fault]:
    """Copy the bundle again: the file was cut short or changed after the manifest was written."""
    for path, listed in view.manifest_files.items():
        if path in view.files and _is_entry(listed) and listed["bytes"] != view.files[path].size_bytes:
            size = view.files[path].size_bytes
            yield shown(path), f"expected {listed['bytes']:,} bytes as in the manifest, got {size:,}"


def wrong_digest(view: BundleView) -> Iterator[Fault]:
    """Copy the bundle again: the file has the right size and other bytes than the manifest says."""
    for path, digest in view.digests.items():
        expected = view.manifest_files[path].get("sha256")
        if digest != expected:
            yield shown(path), f"expected SHA-256 {shown(str(expected)[:64])}, got {digest}"


def leaving_path(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again: a manifest lists files of its own folder only, by plain relative paths."""
    for path in view.manifest_files:
        if _leaves(path):
            yield NAME, f"files: '{shown(path)}' is not a plain path inside the bundle"


def _leaves(path: str) -> bool:
    """Say whether a path could mean something outside the folder on some system."""
    return not path or "\\" in path or ":" in path or "\0" in path or any(p in {"", ".", ".."} for p in path.split("/"))


def wrong_facts(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again: what its manifest says of the system must follow from the files in it."""
    if view.facts is None or isinstance(view.recipe, Unreadable) or isinstance(view.manifest, Unreadable):
        return  # CFG01, REC01 or MAN01 say so
    digests = {name: view.digests.get(name, "") for name in (CAMPAIGN_FILE, RECIPE_FILE)}
    if not all(digests.values()):
        return  # MAN02 or MAN04 say so
    for section, expected in derived_sections(view.campaign, view.recipe, view.facts, digests).items():
        got = view.manifest.get(section)
        if isinstance(got, dict) and isinstance(expected, dict):
            for key in sorted(k for k in got.keys() | expected.keys() if got.get(k) != expected.get(k)):
                said = shown(repr(got.get(key))[:100])
                wanted = shown(repr(expected.get(key)), 1_000)
                yield NAME, f"{section}.{shown(key)}: expected {wanted}, got {said}"
        elif got != expected:
            yield NAME, f"{section}: expected {shown(repr(expected), 1_000)}, got {shown(repr(got)[:200])}"


def over_the_limit(view: BundleView) -> Iterator[Fault]:
    """Pack the model smaller (fewer bits, larger groups); every file in `model/` counts against the limit."""
    limit = view.campaign.size_limit_bytes
    if view.model_bytes > limit:
        over = view.model_bytes - limit
        yield (
            "model",
            f"{size_text(view.model_bytes)} is over the limit of {view.campaign.size_limit} ({size_text(limit)}) "
            f"by {over:,} bytes",
        )


def over_the_decimal_reading(view: BundleView) -> Iterator[Fault]:
    """Ask the organisers which unit counts: the limit is met as written, and missed if its number means GB."""
    limit = view.campaign.size_limit
    if limit.endswith("GiB"):
        decimal = int(view.campaign.size_limit_bytes / GIB * GB)
        if decimal < view.model_bytes <= view.campaign.size_limit_bytes:
            yield "model", f"{size_text(view.model_bytes)} is within {limit} and over {limit.replace('GiB', 'GB')}"


def other_campaign(view: BundleView) -> Iterator[Fault]:
    """Check the bundle against its own campaign (`--campaign`), or build it again for this one."""
    try:
        got = view.table(CAMPAIGN_FILE)
    except Unreadable as error:
        yield CAMPAIGN_FILE, str(error)
        return
    expected = json.loads(canonical_json(asdict(view.campaign)))
    for key in sorted(k for k in got.keys() | expected.keys() if got.get(k) != expected.get(k)):
        said = shown(repr(got.get(key))[:80])
        yield CAMPAIGN_FILE, f"{shown(key)}: expected {shown(repr(expected.get(key))[:80])}, got {said}"


def invalid_recipe(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again: the resolved recipe must be there, and one that this version reads."""
    if isinstance(view.recipe, Unreadable):
        yield RECIPE_FILE, str(view.recipe)
