"""The revision of every stage: raise a number in the commit that changes what the stage writes."""

from __future__ import annotations

REVISIONS = {
    "data": 3,
    "corpus": 5,
    "finetune": 4,
    "merge": 4,
    "sensitivity": 3,
    "awq": 4,
    "calibrate": 6,
    "allocate": 4,
    "quantize": 7,
    "recover": 2,
    "segment": 4,
    "decode": 9,
    "loss": 5,
    "score": 6,
    "comet": 3,
}

REPORTS: dict[str, tuple[str, ...]] = {
    "corpus": ("corpus_report.json",),
    "finetune": ("log.jsonl", "curve.csv", "curve.png", "curve.svg"),
    "merge": ("merge_report.json",),
}
"""Stages whose artifacts stand in later keys by their content -> files of them that no other stage reads."""
