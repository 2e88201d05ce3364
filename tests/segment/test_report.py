"""segmentation_report.json: what is written is read, and a file of another schema is refused by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segment.segmentation_report import (
    REPORT,
    Coverage,
    coverage_lines,
    make_report,
    order_lines,
    read_report,
    write_report,
)
from segment.testset import TestSetFolder
from submission.errors import UserError

RATE = 16_000
TESTSET = TestSetFolder(recordings=(), unlisted=("extra.wav",), missing=("gone",))
COVERAGES = [
    Coverage(recording="a.wav", recorded=9 * RATE, segments=(2 * RATE, 3 * RATE), speech=6 * RATE, dropped=RATE),
    Coverage(recording="long.wav", recorded=RATE, segments=(), speech=0, dropped=0),
]


def test_a_report_is_read_as_it_was_written(tmp_path):
    report = make_report({"segmentation": "free", "method": "shas"}, COVERAGES, TESTSET)
    write_report(tmp_path, report)
    assert read_report(tmp_path) == report
    assert report["recordings_without_segments"] == ["long.wav"]
    assert report["recordings_not_in_file_order"] == ["extra.wav"] and report["recordings_missing"] == ["gone"]
    assert order_lines(report) == [
        "  not in FILE_ORDER, after the others: extra.wav",
        "  in FILE_ORDER without a file, left out: gone",
    ]
    assert (report["longest_seconds"], report["recordings"][1]["longest_seconds"]) == (3.0, None)


def test_every_recording_and_the_whole_have_a_line():
    lines = coverage_lines(make_report({"segmentation": "given"}, COVERAGES, replace(TESTSET, unlisted=(), missing=())))
    assert [line.split()[0] for line in lines] == ["a.wav", "long.wav", "together"]
    assert "5.0 covered, 1.0 dropped (16.67%)" in lines[0]


@pytest.mark.parametrize(
    ("content", "what"), [("{}", "lacks covered_speech_seconds, "), ("[]", "cannot be read"), ("", "cannot be read")]
)
def test_a_file_of_another_schema_is_refused_by_its_name(content, what, tmp_path):
    (tmp_path / REPORT).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=rf"{REPORT}: {what}"):
        read_report(tmp_path)
