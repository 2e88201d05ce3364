"""MAN, SIZE, CAM, REC: whether the bundle holds what its manifest lists, for this campaign and within its limit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from submission.bundle.checks.finding import Fault
from submission.bundle.manifest import (
    CAMPAIGN_FILE,
    NAME,
    RECIPE_FILE,
    derived_sections,
    is_file_entry,
    schema_faults,
)
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.strict_json import Unreadable
from submission.model.sizes import GB, GIB, size_text
from submission.store.digests import canonical_json
from submission.system.campaign import size_bytes
from submission.text.characters import printable


def manifest(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again with `python -m submission bundle`; its manifest must be complete."""
    table = view.manifest
    if isinstance(table, Unreadable):
        yield NAME, str(table)
        return
    for fault in schema_faults(table):
        yield NAME, fault


def missing_file(view: BundleView) -> Iterator[Fault]:
    """Copy the bundle again, whole: a file that its manifest lists is not there."""
    for path in view.manifest_files:
        if path not in view.files and not _leaves(path):
            yield printable(path), "is in the manifest but not in the folder"


def unlisted_file(view: BundleView) -> Iterator[Fault]:
    """Remove it, or write the bundle again: a bundle holds only files that its manifest lists."""
    if isinstance(view.manifest, Unreadable) or not isinstance(view.manifest.get("files"), dict):
        return  # reported as MAN01, once
    for path in view.files:
        if path not in view.manifest_files and path != NAME:
            yield printable(path), "is in the folder but not in the manifest"


def wrong_size(view: BundleView) -> Iterator[Fault]:
    """Copy the bundle again: the file was truncated or changed after the manifest was written."""
    for path, listed in view.manifest_files.items():
        if path in view.files and is_file_entry(listed) and listed["bytes"] != view.files[path].size_bytes:
            size = view.files[path].size_bytes
            yield printable(path), f"expected {listed['bytes']:,} bytes as in the manifest, got {size:,}"


def wrong_digest(view: BundleView) -> Iterator[Fault]:
    """Copy the bundle again: the file has the size that its manifest gives, but other bytes."""
    for path, digest in view.digests.items():
        expected = view.manifest_files[path].get("sha256")
        if digest != expected:
            yield printable(path), f"expected SHA-256 {printable(str(expected)[:64])}, got {digest}"


def unread_file(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again: this file is larger than everything of its kind in a bundle, and was not read."""
    for path in view.beyond_budget:
        if not path.startswith("model/") or view.campaign.size_limit_bytes is None:  # SIZE01 says so of the model
            yield printable(path), f"{view.files[path].size_bytes:,} bytes are beyond what a bundle has; not read"


def leaving_path(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again: a manifest lists files of its own folder only, by plain relative paths."""
    for path in view.manifest_files:
        if _leaves(path):
            yield NAME, f"files: '{printable(path)}' is not a plain path inside the bundle"


def _leaves(path: str) -> bool:
    """Return whether a path could mean something outside the folder on some system."""
    return not path or "\\" in path or ":" in path or "\0" in path or any(p in {"", ".", ".."} for p in path.split("/"))


def wrong_facts(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again: its manifest must follow from the files in it."""
    if view.facts is None or isinstance(view.recipe, Unreadable) or isinstance(view.manifest, Unreadable):
        return  # reported as CFG01, REC01 or MAN01
    digests = {name: view.digests.get(name, "") for name in (CAMPAIGN_FILE, RECIPE_FILE)}
    if not all(digests.values()):
        return  # reported as MAN02 or MAN04
    for section, expected in derived_sections(view.campaign, view.recipe, view.facts, digests).items():
        got = view.manifest.get(section)
        if isinstance(got, dict) and isinstance(expected, dict):
            for key in _differing(got, expected):
                found = printable(repr(got.get(key))[:100])
                wanted = printable(repr(expected.get(key)), 1_000)
                yield NAME, f"{section}.{printable(key)}: expected {wanted}, got {found}"
        elif not _same(got, expected):
            yield NAME, f"{section}: expected {printable(repr(expected), 1_000)}, got {printable(repr(got)[:200])}"

    base = ("base", f"models/{view.campaign.model.name}")
    if not any(name in view.manifest_inputs for name in base) and view.manifest_inputs:
        yield NAME, f"inputs: has none of {', '.join(map(repr, base))}: every model is made from the base model"


def over_the_limit(view: BundleView) -> Iterator[Fault]:
    """Pack the model smaller (fewer bits, larger groups); every file in `model/` counts against the limit."""
    limit = view.campaign.size_limit_bytes
    if limit is not None and view.model_bytes > limit:
        over = view.model_bytes - limit
        yield (
            "model",
            f"{size_text(view.model_bytes)} is over the limit of {view.campaign.size_limit} ({size_text(limit)}) "
            f"by {over:,} bytes; what lies beyond was not hashed",
        )


def over_the_decimal_reading(view: BundleView) -> Iterator[Fault]:
    """Ask the organisers which unit counts: the limit is met as written, and missed if its number means GB."""
    limit = view.campaign.size_limit
    if limit is not None and limit.endswith("GiB"):
        binary = size_bytes(limit)
        if int(binary / GIB * GB) < view.model_bytes <= binary:
            yield "model", f"{size_text(view.model_bytes)} is within {limit} and over {limit.replace('GiB', 'GB')}"


def other_campaign(view: BundleView) -> Iterator[Fault]:
    """Check the bundle against its own campaign (`--campaign`), or build it again for this one."""
    try:
        got = view.table(CAMPAIGN_FILE)
    except Unreadable as error:
        yield CAMPAIGN_FILE, str(error)
        return
    expected = json.loads(canonical_json(asdict(view.campaign)))
    for key in _differing(got, expected):
        inner, wanted = got.get(key), expected.get(key)
        # Of a table, the entries that differ: two long ones side by side would show the same beginning twice.
        pairs = {key: (inner, wanted)}
        if isinstance(inner, dict) and isinstance(wanted, dict):
            pairs = {f"{key}.{name}": (inner.get(name), wanted.get(name)) for name in _differing(inner, wanted)}
        for name, (found, given) in pairs.items():
            shown, right = printable(repr(found)[:80]), printable(repr(given)[:80])
            yield CAMPAIGN_FILE, f"{printable(name)}: expected {right}, got {shown}"


def _differing(got: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return the keys by which two JSON objects differ, sorted."""
    return sorted(key for key in got.keys() | expected.keys() if not _same(got.get(key), expected.get(key)))


def _same(got: Any, expected: Any) -> bool:
    """Return whether two JSON values are written alike: 1, 1.0 and true are equal in Python, and not in a file."""
    return got == expected and canonical_json(got) == canonical_json(expected)


def invalid_recipe(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again: it must hold the resolved recipe, in a form that this version reads."""
    if isinstance(view.recipe, Unreadable):
        yield RECIPE_FILE, str(view.recipe)
