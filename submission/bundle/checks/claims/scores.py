"""SCO: whether the scores are complete, belong to these outputs, and lie within the ranges of their metrics."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from submission.bundle.checks.finding import Fault
from submission.bundle.checks.outputs.texts import is_blank, lines_of, read_output, segment_count
from submission.bundle.manifest import SCORES_FILE
from submission.bundle.untrusted.bundle_view import MOST_FAULTS, BundleView
from submission.bundle.untrusted.strict_json import Unreadable
from submission.model.families.json_shape import (
    any_of,
    anything_small,
    flag,
    list_of,
    one_of,
    table,
    table_of,
    text,
    whole,
)
from submission.text.characters import printable

# Metric -> range of its values, in percent. TER counts edits against the reference's length, and loops make many;
# COMET is a regression, close to 0 to 100 and not limited to it.
RANGES = {"BLEU": (0, 100), "chrF": (0, 100), "TER": (0, 100_000), "COMET": (-200, 200)}
FIGURES = ("value", "low", "high")
MOST_RECORDS = 2_000
_NAME, _DIGEST = text(r"[A-Za-z0-9_-]{1,100}"), text(r"[0-9a-f]{64}")
_COUNTS = any_of(one_of(None), table_of(r"[a-z_]{0,40}", whole(0, 10**6)))
_REFERENCES = any_of(one_of(None), whole(0, 10**6))
# What SCO02 and SCO04 check is anything here.
FIGURE = table(
    {"pair": _NAME, "testset": _NAME, "segments": anything_small, "metric": anything_small, "value": anything_small},
    {
        "low": anything_small,
        "high": anything_small,
        "signature": text(r"[\w.:|,=+*/() -]{1,500}"),
        "references": _REFERENCES,
        "resegmented": flag,
        "data_sha256": _DIGEST,
        "hypotheses_sha256": _DIGEST,
    },
)
SUMMARY = table(
    {"pair": _NAME, "testset": _NAME, "segments": anything_small},
    {
        "flags": _COUNTS,
        "flags_without_fallbacks": _COUNTS,
        "fallbacks": _COUNTS,
        "references": _REFERENCES,
        "note": text(),
        "comet": text(),
    },
)
SCORES = table(
    {"scores": list_of(FIGURE, MOST_RECORDS), "testsets": list_of(SUMMARY, MOST_RECORDS)},
    {"comet": table({"state": one_of("computed", "not computed"), "reason": text()}, {"model_sha256": _DIGEST})},
)
"""What `evaluate score` writes, and nothing else: who reads the scores sees no other claim."""


def invalid_scores(view: BundleView) -> Iterator[Fault]:
    """Score the outputs again with `python -m evaluate score` and write the bundle again."""
    try:
        records = _records(view)
    except Unreadable as error:
        yield SCORES_FILE, str(error)
        return
    faults = list(itertools.islice(SCORES(view.table(SCORES_FILE), ""), MOST_FAULTS))
    for fault in faults or _contradictions(view, view.table(SCORES_FILE), records):
        yield SCORES_FILE, fault


def _contradictions(
    view: BundleView, content: dict[str, Any], records: list[tuple[str, dict[str, Any]]]
) -> Iterator[str]:
    """Yield what in scores of the right form contradicts the rest of them, or the campaign's pairs."""
    stated = {_output(record): record.get("references") for key, record in records if key == "testsets"}
    metrics: set[str] = set()
    pairs = {pair.name for pair in view.campaign.pairs}
    known = stated.keys() | view.outputs.keys()  # SCO03 reports an output that is not stated
    for key, record in records:
        if record["pair"] not in pairs:
            yield f"{key}: pair: the campaign has no {record['pair']}"
        elif key == "scores" and _output(record) not in known:
            yield f"scores: {_output(record)} is not among the test sets"
        flags, segments = record.get("flags") or {}, record["segments"]
        if type(segments) is int and any(count > segments for count in flags.values()):
            yield f"{key}: {_output(record)}: flags: more than its {segments:,} segments"
        if key != "scores":
            continue
        output, metrics = _output(record), metrics | {str(record["metric"])}
        lines = record.get("references")
        if lines is not None and stated.get(output, lines) != lines:
            yield f"{output}: references: {lines:,} of a figure, {stated[output] or 'none'} of its test set"
    state = content["comet"]["state"] if "comet" in content else None
    if state is not None and (state == "computed") != ("COMET" in metrics):
        yield f"comet.state: '{state}', and there are {'' if 'COMET' in metrics else 'no '}figures of COMET"


def other_counts(view: BundleView) -> Iterator[Fault]:
    """Score these outputs with `python -m evaluate score` and write the bundle again: the scores belong
    to other outputs.
    """
    expected = {output: _counts(view, output, testset) for output, testset in view.outputs.items()}
    for key, record in readable_records(view):
        output = _output(record)
        got = {"segments": record.get("segments")}
        if key == "testsets":
            flags = record.get("flags")
            got["blank"] = flags.get("blank") if isinstance(flags, dict) else None
        for name, value in got.items():
            for where, count in expected.get(output, {}).get(name, {}).items():
                if type(value) is not int or value != count:
                    found = printable(repr(value)[:80])
                    yield SCORES_FILE, f"{key}: {output}: {name}: expected {count:,} as in {where}, got {found}"
                    break


def uncovered_output(view: BundleView) -> Iterator[Fault]:
    """Score every output with `python -m evaluate score`, which lists those without references too, and each figure
    once; write the bundle again.
    """
    try:
        records = _records(view)
    except Unreadable:
        return  # reported as SCO01
    listed = [_output(record) for key, record in records if key == "testsets"]
    for output in view.outputs:
        if (count := listed.count(output)) != 1:
            yield SCORES_FILE, f"testsets: {output} is listed {count:,} times, expected once"
    figures = Counter((_output(r), str(r.get("metric"))) for key, r in records if key == "scores")
    for (output, metric), count in sorted(figures.items()):
        if count > 1:
            yield SCORES_FILE, f"scores: {printable(output)}: {printable(metric)} is listed {count:,} times"


def impossible_figure(view: BundleView) -> Iterator[Fault]:
    """Score the outputs again with `python -m evaluate score`: the value is outside the range of its metric."""
    for key, record in readable_records(view):
        if key != "scores":
            continue
        metric, where = record.get("metric"), printable(_output(record))
        if not isinstance(metric, str) or metric not in RANGES:
            known = ", ".join(RANGES)
            yield SCORES_FILE, f"{where}: metric: expected one of {known}, got {printable(repr(metric)[:80])}"
            continue
        lowest, highest = RANGES[metric]
        good = {}
        for name in FIGURES:
            value = record.get(name)
            if value is None and name != "value":
                continue  # an interval is optional
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not lowest <= value <= highest:
                found = printable(repr(value)[:80])
                what = f"{name}: expected a number from {lowest} to {highest}, got {found}"
                yield SCORES_FILE, f"{where}: {metric}: {what}"
            else:
                good[name] = value
        inside = "value" not in good or good.get("low", lowest) <= good["value"] <= good.get("high", highest)
        if not inside:
            yield SCORES_FILE, f"{where}: {metric}: its value does not lie in its own interval"


def _output(record: dict[str, Any]) -> str:
    return f"{record.get('pair')}/{record.get('testset')}.txt"


def readable_records(view: BundleView) -> list[tuple[str, dict[str, Any]]]:
    """Return (key, record) of everything that scores.json lists; an empty list where it is not valid."""
    try:
        return _records(view)
    except Unreadable:
        return []  # reported as SCO01


def _records(view: BundleView) -> list[tuple[str, dict[str, Any]]]:
    """Return (key, record) of everything that scores.json lists; Unreadable where it is not valid."""
    content, records = view.table(SCORES_FILE), []
    for key in ("scores", "testsets"):
        listed = content.get(key)
        if not isinstance(listed, list) or not all(isinstance(record, dict) for record in listed):
            raise Unreadable(f"expected a list of records under the key '{key}'")
        records += [(key, record) for record in listed]
    return records


def _counts(view: BundleView, output: str, testset: str) -> dict[str, dict[str, int]]:
    """Return what is counted -> file -> count, for an output; what cannot be read is left out."""
    segments: dict[str, int] = {}
    blank: dict[str, int] = {}
    with suppress(Unreadable):  # reported as SET03
        segments[f"segments/{testset}.yaml"] = segment_count(view, testset)
    with suppress(Unreadable, UnicodeDecodeError):  # reported as SET01, TXT02 or TXT13
        lines = lines_of(read_output(view, output).decode("utf-8"))
        segments[output], blank[output] = len(lines), sum(is_blank(line) for line in lines)
    return {"segments": segments, "blank": blank}
