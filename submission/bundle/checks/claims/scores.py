"""SCO: whether the scores are complete, belong to these outputs, and lie within the ranges of their metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from submission.bundle.checks.finding import Fault
from submission.bundle.checks.outputs.texts import is_blank, lines_of, read_output, segment_count
from submission.bundle.manifest import SCORES_FILE
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.strict_json import Unreadable
from submission.text.characters import printable

# Metric -> range of its values, in percent. TER counts edits against the reference's length, and loops make many;
# COMET is a regression, close to 0 to 100 and not limited to it.
RANGES = {"BLEU": (0, 100), "chrF": (0, 100), "TER": (0, 100_000), "COMET": (-200, 200)}
FIGURES = ("value", "low", "high")


def invalid_scores(view: BundleView) -> Iterator[Fault]:
    """Score the outputs again with `python -m evaluate score` and write the bundle again."""
    try:
        _records(view)
    except Unreadable as error:
        yield SCORES_FILE, str(error)


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
    """Score every output with `python -m evaluate score`, which lists those without references too, and write the
    bundle again.
    """
    try:
        records = _records(view)
    except Unreadable:
        return  # reported as SCO01
    listed = [_output(record) for key, record in records if key == "testsets"]
    for output in view.outputs:
        if (count := listed.count(output)) != 1:
            yield SCORES_FILE, f"testsets: {output} is listed {count:,} times, expected once"


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
        good = 0
        for name in FIGURES:
            value = record.get(name)
            if value is None and name != "value":
                continue  # an interval is optional
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not lowest <= value <= highest:
                found = printable(repr(value)[:80])
                what = f"{name}: expected a number from {lowest} to {highest}, got {found}"
                yield SCORES_FILE, f"{where}: {metric}: {what}"
            else:
                good += 1
        if good == len(FIGURES) and not record["low"] <= record["value"] <= record["high"]:
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
    table, records = view.table(SCORES_FILE), []
    for key in ("scores", "testsets"):
        listed = table.get(key)
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
