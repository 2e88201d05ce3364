"""Format the scores of scores.json as a text table."""

from __future__ import annotations

from typing import Any

from evaluate.scoring.metrics import METRICS
from submission.text_table import aligned

ALWAYS = ("blank", "truncated")
"""Flags that always have a column; the others have one where any count is positive."""


def table(record: dict[str, Any]) -> str:
    """Return the table of a scores.json: one row a test set and pair, then what was not computed and why.

    A score is followed by the bounds of its 95 % interval.
    """
    values = {(s["pair"], s["testset"], s["metric"]): shown(s) for s in record["scores"]}
    entries = sorted(record["testsets"], key=lambda t: (t["pair"], t["testset"]))
    flags = _flags(entries)
    fallbacks = ("failed", "replaced") if any(entry["fallbacks"] for entry in entries) else ()
    headings = ("pair", "test set", "segments", *(flag.replace("_", " ") for flag in flags), *fallbacks)
    rows = [(*headings, *METRICS, "COMET")]
    for entry in entries:
        pair, testset = entry["pair"], entry["testset"]
        counts = [entry["segments"], *(entry["flags"][flag] for flag in flags)]
        if fallbacks:
            failed = sum(entry["fallbacks"].values())
            counts += [failed, failed - entry["fallbacks"].get("", 0)]
        scores = [entry["note"]]
        if not entry["note"]:
            scores = [*(values[pair, testset, metric] for metric in METRICS), values.get((pair, testset, "COMET"), "-")]
        rows.append((pair, testset, *(f"{count:,}" for count in counts), *scores))
    return "\n".join([aligned(rows, left=(0, 1)), *comet_lines(record)])


def _flags(entries: list[dict[str, Any]]) -> list[str]:
    """Return the flags that have a column."""
    seen = {flag for entry in entries for flag, count in entry["flags"].items() if count}
    return [*ALWAYS, *sorted(seen - set(ALWAYS))]


def comet_lines(record: dict[str, Any]) -> list[str]:
    """Return the lines on COMET: its model, or why it was not computed."""
    comet = record["comet"]
    if comet["state"] != "computed":
        return [f"COMET: {comet['state']}: {comet['reason']}"]
    lines = [f"COMET: model {comet['model_sha256'][:12]}"]
    reasons: dict[str, list[str]] = {}
    for entry in record["testsets"]:
        if entry["comet"]:
            reasons.setdefault(entry["comet"], []).append(f"{entry['pair']}/{entry['testset']}")
    return lines + [f"COMET: not computed: {reason}: {', '.join(names)}" for reason, names in reasons.items()]


def shown(score: dict[str, Any]) -> str:
    """Return a score with its interval: `24.4 (22.1–26.7)`."""
    return f"{score['value']:.1f} ({score['low']:.1f}–{score['high']:.1f})"
