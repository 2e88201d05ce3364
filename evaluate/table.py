"""The figures of scores.json as a table for people."""

from __future__ import annotations

from typing import Any

from submission.tabular import aligned

ALWAYS = ("blank", "truncated")
"""Flags that have a column whatever the counts; the others have one where anything has them."""
METRICS = ("BLEU", "chrF")


def table(record: dict[str, Any]) -> str:
    """Return the table of a scores.json: one row a test set and pair, then what was not computed and why."""
    values = {(s["pair"], s["testset"], s["metric"]): f"{s['value']:.1f}" for s in record["scores"]}
    entries = sorted(record["testsets"], key=lambda t: (t["pair"], t["testset"]))
    flags = _flags(entries)
    mending = ("failed", "mended") if any(entry["mended"] for entry in entries) else ()
    rows = [("pair", "test set", "segments", *(flag.replace("_", " ") for flag in flags), *mending, *METRICS)]
    for entry in entries:
        pair, testset = entry["pair"], entry["testset"]
        counts = [entry["segments"], *(entry["flags"][flag] for flag in flags)]
        if mending:
            failed = sum(entry["mended"].values())
            counts += [failed, failed - entry["mended"].get("", 0)]
        scores = [entry["note"]] if entry["note"] else [values[pair, testset, metric] for metric in METRICS]
        rows.append((pair, testset, *(f"{count:,}" for count in counts), *scores))
    return f"{aligned(rows, left=(0, 1))}\nCOMET: {record['comet']['state']}: {record['comet']['reason']}"


def _flags(entries: list[dict[str, Any]]) -> list[str]:
    """Return the flags that have a column."""
    seen = {flag for entry in entries for flag, count in entry["flags"].items() if count}
    return [*ALWAYS, *sorted(seen - set(ALWAYS))]
