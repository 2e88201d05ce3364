"""The page of a translated folder: pictures, tables, and escaping of untrusted text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluate.decoding.hypotheses import Hypothesis
from evaluate.report.pages.folder_result import FolderResult, recording_quality
from evaluate.report.pages.translation_page import write_page
from evaluate.report.pictures.folder_pictures import MOST_DRAWN
from evaluate.scoring.metrics import corpus_scores
from evaluate.scoring.score import MetricScore, ScoredLine
from submission.store.digests import describe_files
from submission.text.segments import SAMPLE_RATE, Segment

WORDS = ["die", "Katze", "schläft", "auf", "dem", "alten", "Dach", "und", "träumt", "von", "Fischen"]


def result(recordings: int = 30, lines_each: int = 4, *, references: bool = True) -> FolderResult:
    """Return a folder of so many recordings, its later ones translated worse, some lines flagged or blank."""
    names = [f"a_recording_whose_name_is_long_and_<b>bold</b>_{n:03d}.wav" for n in range(recordings)]
    segments, hypotheses, lines = [], [], []
    for n, name in enumerate(names):
        for m in range(lines_each):
            segments.append(Segment(recording=name, start=m * 3 * SAMPLE_RATE, end=(m * 3 + 2) * SAMPLE_RATE))
            right = " ".join(WORDS[m : m + 6])
            said = " ".join(WORDS[m : max(m + 1, m + 6 - n // 6)]) if n % 7 else ""
            flags = ("blank",) if not said else ("loop",) if n % 5 == 4 else ()
            hypotheses.append(Hypothesis(segment=f"{name}/{m:04d}", text=said, flags=flags))
            lines.append(ScoredLine(recording=name, source=None, hypothesis=said, reference=right))
    figures = corpus_scores([line.hypothesis for line in lines], [line.reference for line in lines], "de")
    scores = tuple(
        MetricScore(
            testset="",
            pair="en-de",
            metric=figure.metric,
            value=figure.value,
            low=figure.low,
            high=figure.high,
            signature=figure.signature,
            segments=len(segments),
            references=len(lines),
            resegmented=False,
            data_sha256="d" * 64,
            hypotheses_sha256="e" * 64,
        )
        for figure in figures
    )
    report = {
        "pair": "en-de",
        "recordings": recordings,
        "recordings_without_segments": [],
        "references_without_recording": ["elsewhere.wav"],
        "segments": len(segments),
        "segment_seconds": 2.0 * len(segments),
        "versions": {"torch": "2"},
        "run": {
            "model_sha256": "a" * 64,
            "prompt": "<script>alert(1)</script>",
            "segments": {"method": "fixed"},
            "recordings": [{"name": name, "sha256": "c" * 64} for name in names],
        },
    }
    return FolderResult(
        report=report,
        segments=tuple(segments),
        hypotheses=tuple(hypotheses),
        scores=scores if references else (),
        lines=tuple(lines) if references else (),
        language="de",
    )


def written(tmp_path: Path, folder: FolderResult) -> str:
    assert set(write_page(tmp_path, folder)) == {path.name for path in tmp_path.iterdir()}
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_untrusted_text_is_escaped(tmp_path):
    page = written(tmp_path, result())
    assert "<b>" not in page and "<script" not in page and "&lt;script&gt;" in page
    assert "<b>" not in (tmp_path / "lines.svg").read_text(encoding="utf-8")


def test_references_of_recordings_that_are_not_there_are_said_not_to_count(tmp_path):
    assert "With references but not in the folder, so not scored: elsewhere.wav." in written(tmp_path, result())


def test_a_name_in_another_script_is_drawn_without_a_word(tmp_path, recwarn):
    written(tmp_path, replace(result(recordings=2), **renamed(result(recordings=2), "名前.wav")))
    assert [str(one.message) for one in recwarn if "Glyph" in str(one.message)] == []
    assert "名前.wav" in (tmp_path / "lines.svg").read_text(encoding="utf-8")


def renamed(folder: FolderResult, name: str) -> dict[str, Any]:
    """Return what changes where the first recording has another name."""
    first = folder.recordings[0]
    run = folder.report["run"]
    recordings = [{**one, "name": name if one["name"] == first else one["name"]} for one in run["recordings"]]
    return {
        "report": {**folder.report, "run": {**run, "recordings": recordings}},
        "segments": tuple(replace(s, recording=name) if s.recording == first else s for s in folder.segments),
        "lines": tuple(replace(one, recording=name) if one.recording == first else one for one in folder.lines),
    }


def test_counts_add_up_and_what_is_left_out_is_said(tmp_path):
    folder = result()
    page = written(tmp_path, folder)
    blank = sum(not hypothesis.text for hypothesis in folder.hypotheses)
    flagged = sum(bool(hypothesis.text and hypothesis.flags) for hypothesis in folder.hypotheses)
    plain = len(folder.hypotheses) - blank - flagged
    assert blank and flagged
    assert f"Segments: 120 ({plain} translated, {flagged} flagged, {blank} blank); recordings: 30." in page
    assert f"The first {MOST_DRAWN} recordings are drawn." in page and f"The {MOST_DRAWN} lowest are drawn." in page
    assert f"Flagged lines: {blank + flagged}." in page
    assert f"{blank + flagged - 20} more are in hypotheses.jsonl." in page


def test_the_lines_that_are_furthest_from_their_references_stand_first(tmp_path):
    page = written(tmp_path, result())
    table = page[page.index('id="worst"') : page.index('id="flagged"')]
    assert table.count("(blank)") == 10 and WORDS[0] in table


def test_each_recording_has_the_chrf_of_its_own_lines():
    folder = result(recordings=3)
    quality = recording_quality(folder)
    first = [line for line in folder.lines if line.recording == folder.recordings[1]]
    (chrf,) = [
        figure.value
        for figure in corpus_scores([one.hypothesis for one in first], [one.reference for one in first], "de")
        if figure.metric == "chrF"
    ]
    assert quality[folder.recordings[1]] == pytest.approx(chrf)
    assert list(quality) == folder.recordings


def test_without_references_there_is_nothing_about_quality(tmp_path):
    page = written(tmp_path, result(references=False))
    assert "chrF" not in page and 'id="scores"' not in page and "Lowest chrF" not in page
    assert not (tmp_path / "quality.svg").exists()


@pytest.mark.parametrize("recordings", [1, 2])
def test_a_recording_alone_is_compared_with_none(tmp_path, recordings):
    written(tmp_path, result(recordings=recordings))
    assert (tmp_path / "quality.svg").exists() == (recordings > 1)


def test_the_same_result_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_page(tmp_path / name, result(recordings=5))
    assert describe_files(tmp_path / "one") == describe_files(tmp_path / "two")
