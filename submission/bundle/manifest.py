"""The manifest: what is in a bundle, byte for byte, and what it was made from.

Sorted canonical JSON without clock, machine or path: equal artifacts give equal bytes, wherever they are bundled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from submission.bundle.description import Facts
from submission.progress import progress
from submission.store.digests import CHUNK_BYTES, files_below
from submission.system.campaign import Campaign
from submission.system.recipe import Recipe

NAME = "manifest.json"
FORMAT = "iwslt-model-compression-bundle"
VERSION = 1

CAMPAIGN_FILE = "campaign.json"
RECIPE_FILE = "recipe.json"
SCORES_FILE = "scores.json"

SEGMENTER = "segmenter"
SEGMENTER_FILES = ("config.json", "model.safetensors")
"""The folder of the segmentation classifier, and what is in it."""


def build_manifest(
    folder: Path,
    *,
    campaign: Campaign,
    recipe: Recipe,
    facts: Facts,
    stages: Mapping[str, str],
    inputs: Mapping[str, str],
    provenance: Mapping[str, str],
) -> dict[str, Any]:
    """Return the manifest of a bundle's folder, which holds everything else already.

    stages: stage -> key; inputs: what came from outside -> digest; provenance: library -> version.
    """
    files = _describe(folder)
    digests = {name: str(files[name]["sha256"]) for name in (CAMPAIGN_FILE, RECIPE_FILE)}
    return {
        "format": FORMAT,
        "version": VERSION,
        **derived_sections(campaign, recipe, facts, digests),
        "stages": dict(stages),
        "inputs": dict(inputs),
        "provenance": dict(provenance),
        "files": files,
    }


def derived_sections(campaign: Campaign, recipe: Recipe, facts: Facts, digests: Mapping[str, str]) -> dict[str, Any]:
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


def _describe(folder: Path) -> dict[str, dict[str, int | str]]:
    """Return path -> {"bytes", "sha256"} of every file, as `describe_files` does, and show how far it is."""
    files = files_below(folder)
    described: dict[str, dict[str, int | str]] = {}
    with progress("bundle: hashing", sum(p.stat().st_size for p in files), "bytes") as tick:
        for path in files:
            digest, size = hashlib.sha256(), 0
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    tick(len(chunk))
            described[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest.hexdigest()}
    return described
