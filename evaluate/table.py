"""The figures of scores.json as a table for people."""

from __future__ import annotations

from typing import Any

from evaluate.metrics import METRICS
from submission.tabular import aligned

HEADINGS = ("pair", "test set", "segments", "blank", "truncated", "clipped", "too short", *METRICS)


def table(record: dict[str, Any]) -> str:
    """Return the table of a scores.json: one row a test set and pair, then what was not computed and why.

    A figure stands with the bounds of its 95 % interval.
    """
    values = {(s["pair"], s["testset"], s["metric"]): shown(s) for s in record["scores"]}
    rows = [HEADINGS]
    for entry in sorted(record["testsets"], key=lambda t: (t["pair"], t["testset"])):
        pair, testset, flags = entry["pair"], entry["testset"], entry["flags"]
        counts = [entry["segments"], *(flags[name] for name in ("blank", "truncated", "clipped", "too_short"))]
        scores = [entry["note"]] if entry["note"] else [values[pair, testset, metric] for metric in METRICS]
        rows.append((pair, testset, *(f"{count:,}" for count in counts), *scores))
    return f"{aligned(rows, left=(0, 1))}\nCOMET: {record['comet']['state']}: {record['comet']['reason']}"


def shown(score: dict[str, Any]) -> str:
    """Return a figure with its interval: `24.4 (22.1–26.7)`."""
    return f"{score['value']:.1f} ({score['low']:.1f}–{score['high']:.1f})"
