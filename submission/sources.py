"""The data folder: what a participant or `submission.miniature` provides, and the digests of its parts.

models/<model>/      the base checkpoint
models/shas/         the segmentation classifier
corpora/<name>/      training corpora, each in its published layout
acl_6060/{dev,eval}/ ACL 60/60
testsets/<NAME>/     recordings, FILE_ORDER and, where the organisers fix it, segments.yaml
references/<NAME>/   optional: gold segments and translations, for scoring
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from submission.campaign import Campaign
from submission.digest import canonical_json, files_below, sha256_text, tree_digest, write_text
from submission.recipe import Recipe

ACL_6060 = "https://aclanthology.org/2023.iwslt-1.2 (the archive `2/acl_6060`)"
TRACK = "https://iwslt.org/2026/compression"


@dataclass(frozen=True, slots=True, kw_only=True)
class Required:
    """A part of the data folder that a system reads."""

    part: str
    """Path below the data folder."""
    holds: str
    """A file or pattern that must be there, so that an empty folder does not pass."""
    get: str
    """How to get it."""


def required_parts(campaign: Campaign, recipe: Recipe) -> list[Required]:
    """Return what a system needs in its data folder, sorted by path."""
    model = campaign.model
    parts = [
        Required(
            part=f"models/{model.name}",
            holds="config.json",
            get=f"hf download {model.hub} --local-dir DIR/models/{model.name}",
        ),
        Required(part="acl_6060/dev", holds="segmented_wavs/gold/*.wav", get=f"download ACL 60/60 from {ACL_6060}"),
        Required(part="acl_6060/eval", holds="segmented_wavs/gold/*.wav", get=f"download ACL 60/60 from {ACL_6060}"),
    ]
    if recipe.segment.method == "shas" and any(t.segmentation == "free" for t in campaign.testsets):
        parts.append(
            Required(
                part="models/shas",
                holds="config.json",
                get="a SHAS classifier in this repository's format (`python -m segment train --help`)",
            )
        )
    for source in recipe.corpus.sources:
        parts.append(
            Required(
                part=f"corpora/{source.name}",
                holds="*",
                get=f"the corpus {source.name} in its published layout ({source.format})",
            )
        )
    for testset in campaign.testsets:
        parts.append(
            Required(part=f"testsets/{testset.name}", holds="FILE_ORDER", get=f"the blind test set from {TRACK}")
        )
    return sorted(parts, key=lambda r: r.part)


def missing_parts(data: Path, required: list[Required]) -> list[Required]:
    """Return the required parts that are not in a data folder."""
    return [r for r in required if next((data / r.part).glob(r.holds), None) is None]


def cached_tree_digest(folder: Path, cache: Path) -> str:
    """Return `tree_digest(folder)`, from a cache file where no file's size, time or inode has changed since.

    A base model is 16 GB: without the cache every command would spend a minute on reading it.
    """
    stats = [
        [p.relative_to(folder).as_posix(), (s := p.stat()).st_size, s.st_mtime_ns, s.st_ino]
        for p in files_below(folder)
    ]
    entry = cache / f"{sha256_text(str(folder.resolve()))}.json"
    try:
        known = json.loads(entry.read_text(encoding="utf-8"))
        if known["stats"] == stats:
            return known["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache, or not one of ours: it is only a short cut
    digest = tree_digest(folder)
    cache.mkdir(parents=True, exist_ok=True)
    write_text(entry, canonical_json({"digest": digest, "stats": stats}))
    return digest
