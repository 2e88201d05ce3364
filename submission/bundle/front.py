"""The Pareto front of size and quality, and that of the bundles in one folder: their bytes and mean scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submission.bundle.manifest import NAME, SCORES_FILE
from submission.model.sizes import GB, GIB
from submission.text_table import aligned

METRICS = ("COMET", "BLEU", "chrF")
"""The front is drawn by the first of these that every bundle has on the same test sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEntry:
    """A bundle as a point of the picture."""

    name: str
    """Its folder's name."""
    size_bytes: int
    quality: float
    """Mean over pairs and test sets, higher is better."""


def front_text(folder: Path, campaign: str) -> str:
    """Return the bundles of a campaign in a folder, smallest first, as a table; empty where none has scores.

    Bundles built elsewhere count as well as one's own; what is no readable bundle is left out.
    """
    metric, entries = front_entries(_read(folder, campaign))
    if not entries:
        return ""
    front = pareto_front([(entry.size_bytes, entry.quality) for entry in entries])
    rows = [("bundle", "bytes", "GB", "GiB", f"mean {metric}", "")]
    for index, entry in enumerate(entries):
        sizes = f"{entry.size_bytes:,}", f"{entry.size_bytes / GB:.6f}", f"{entry.size_bytes / GIB:.6f}"
        rows.append((entry.name, *sizes, f"{entry.quality:.1f}", "on the front" if index in front else "dominated"))
    title = f"Quality against size ({folder}, mean {metric} of the test sets that all of them have)"
    return f"{title}\n{aligned(rows, left=(0, 5), indent=2)}"


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points (size, quality) on the front, the smallest size first.

    A point is on the front where no other one is at most as large and at least as good, and better in one of the
    two. Points that are equal in both stand or fall together.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return front


def front_entries(bundles: dict[str, tuple[int, Any]]) -> tuple[str, list[FrontEntry]]:
    """Return the metric and the entries, smallest first; name -> (bytes, the list `scores` of scores.json)."""
    for metric in METRICS:
        values = {
            name: {(s["pair"], s["testset"]): s["value"] for s in scores if s["metric"] == metric}
            for name, (_, scores) in bundles.items()
        }
        shared = set.intersection(*map(set, values.values())) if values else set()
        if shared:
            entries = [
                FrontEntry(
                    name=name,
                    size_bytes=bundles[name][0],
                    quality=sum(of[key] for key in sorted(shared)) / len(shared),
                )
                for name, of in values.items()
            ]
            return metric, sorted(entries, key=lambda e: (e.size_bytes, e.name))
    return METRICS[0], []


def _read(folder: Path, campaign: str) -> dict[str, tuple[int, Any]]:
    """Return name -> (bytes of the model, scores) of the bundles in a folder."""
    found = {}
    for path in sorted(folder.glob(f"*/{NAME}")):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            scores = json.loads((path.parent / SCORES_FILE).read_text(encoding="utf-8"))["scores"]
            if manifest["campaign"]["name"] == campaign:
                found[path.parent.name] = int(manifest["model"]["bytes"]), scores
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
