"""The page of a translated folder: pictures, tables, and escaping of untrusted text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluate.report.pages.folder_result import FolderResult, recording_quality
from evaluate.report.pages.translation_page import write_page
from evaluate.report.pictures.folder_pictures import MOST_DRAWN
from evaluate.scoring.metrics import corpus_scores
from submission.store.digests import describe_files
from tests.evaluate.synthetic import WORDS, folder_result


def written(tmp_path: Path, folder: FolderResult) -> str:
    assert set(write_page(tmp_path, folder)) == {path.name for path in tmp_path.iterdir()}
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_untrusted_text_is_escaped(tmp_path):
    page = written(tmp_path, folder_result())
    assert "<b>" not in page and "<script" not in page and "&lt;script&gt;" in page
    assert "<b>" not in (tmp_path / "lines.svg").read_text(encoding="utf-8")


def test_references_of_recordings_that_are_not_there_are_said_not_to_count(tmp_path):
    assert "With references but not in the folder, so not scored: elsewhere.wav." in written(tmp_path, folder_result())


def test_a_name_in_another_script_is_drawn_without_a_word(tmp_path, recwarn):
    written(tmp_path, replace(folder_result(recordings=2), **renamed(folder_result(recordings=2), "名前.wav")))
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


def test_counts_add_up_and_what_is_left_out_is_listed(tmp_path):
    folder = folder_result()
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
    page = written(tmp_path, folder_result())
    table = page[page.index('id="worst"') : page.index('id="flagged"')]
    assert table.count("(blank)") == 10 and WORDS[0] in table


def test_each_recording_has_the_chrf_of_its_own_lines():
    folder = folder_result(recordings=3)
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
    page = written(tmp_path, folder_result(references=False))
    assert "chrF" not in page and 'id="scores"' not in page and "Lowest chrF" not in page
    assert not (tmp_path / "quality.svg").exists()


@pytest.mark.parametrize("recordings", [1, 2])
def test_a_recording_alone_is_compared_with_none(tmp_path, recordings):
    written(tmp_path, folder_result(recordings=recordings))
    assert (tmp_path / "quality.svg").exists() == (recordings > 1)


def test_the_same_result_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_page(tmp_path / name, folder_result(recordings=5))
    assert describe_files(tmp_path / "one") == describe_files(tmp_path / "two")
