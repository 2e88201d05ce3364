"""docs/extending/segmenter.md, followed: its method works by its file and its line in the registry."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from segment.methods.method import Method
from segment.probabilities.speech_probabilities import FrameProbabilities
from segment.segmentation import SEGMENTS, segment_testset
from segment.segmentation_report import read_report
from submission.system import registry
from submission.system.recipe.decoding_options import SegmentOptions
from submission.text.segments import read_segments
from tests.segment.support import RATE, loudness_detectors
from tests.support.extending import ROOT, import_source, titled_blocks

PAGE = titled_blocks("segmenter.md")
FILE = "segment/methods/pauses.py"
OPTIONS = SegmentOptions(method="shas", max_seconds=7, min_seconds=0.2, threshold=0.5)


@pytest.fixture
def method(monkeypatch) -> Method:
    """Return the method of the page, after adding its line to the registry."""
    import_source(monkeypatch, FILE, PAGE[FILE])
    for name, entry in eval(f"{{{PAGE['the line']}}}", vars(registry)).items():
        monkeypatch.setitem(registry.SEGMENTATION_METHODS, name, entry)
    return registry.SEGMENTATION_METHODS["pauses"].load()


def test_a_test_set_is_segmented_by_the_method_of_the_page(method, testset, cache, tmp_path):
    options = replace(OPTIONS, method="pauses")
    segment_testset(testset, options, replace(loudness_detectors(), classify=None), cache, "segment:X", tmp_path)
    segments = [s for s in read_segments(tmp_path / SEGMENTS) if s.recording == "b.wav"]
    assert [s.start for s in segments[1:]] == [s.end for s in segments[:-1]]
    assert segments[0].start == 0 and segments[-1].end == 25 * RATE
    assert 4.5 * RATE <= segments[0].end < 5 * RATE  # in the pause between the soft speech and the loud one
    report = read_report(tmp_path)
    assert report["method"] == "pauses" and report["dropped_speech_seconds"] == 0


@pytest.mark.parametrize("seconds", [0.01, 3, 7, 7.1, 60])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_any_length_and_any_probabilities_give_segments_within_the_limits(method, seconds, level):
    samples = round(seconds * RATE)
    probabilities = FrameProbabilities(samples=samples, vad=np.full(-(-samples // 512), level, np.float32))
    segments = method(probabilities, OPTIONS)
    assert segments[0][0] == 0 and segments[-1][1] == samples
    assert all(0 < end - start <= 7 * RATE for start, end in segments)


def test_the_recipe_of_the_page_is_planned_with_the_line_in_the_registry(tmp_path):
    for package in ("submission", "segment"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / FILE).write_text(PAGE[FILE], encoding="utf-8")
    path = tmp_path / "submission/system/registry.py"
    opening = "SEGMENTATION_METHODS: dict[str, SegmentationMethod] = {\n"
    text = path.read_text(encoding="utf-8")
    assert opening in text
    path.write_text(text.replace(opening, opening + PAGE["the line"]), encoding="utf-8")
    (tmp_path / "pauses.toml").write_text(PAGE["recipe"], encoding="utf-8")
    words = ("submission", "plan", "--json", "--recipe", "pauses.toml", "--store", "store")
    done = subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "segment:ACL" in {row["stage"] for row in json.loads(done.stdout)}
