"""A test set in, segments and a report out, by every method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import soundfile

from segment.fixed import cut_evenly
from segment.methods import METHODS, Shas, cut_track
from segment.pdac import FRAME_RATE_HZ
from segment.segmentation import normalise_given, segment_freely
from submission.errors import UserError
from submission.recipe import SegmentOptions
from submission.segments import read_segments

RATE = 16_000
OPTIONS = SegmentOptions(method="shas", max_seconds=7, min_seconds=0.2, threshold=0.5)


def loudness(windows: np.ndarray) -> np.ndarray:
    """Stand for a classifier: 0.9 where a frame's first sample is loud, 0.1 elsewhere, as wav2vec 2.0 counts frames."""
    frames = max(0, (windows.shape[1] - 400) // 320 + 1)
    return np.where(np.abs(windows[:, : frames * 320 : 320]) > 0.2, 0.9, 0.1)


@pytest.fixture
def testset(tmp_path) -> Path:
    """Two recordings: b speaks at 1-3 s and 4-23 s of 25 s, a is silent for 3 s."""
    folder = tmp_path / "set"
    (folder / "wavs").mkdir(parents=True)
    speech = np.zeros(25 * RATE, np.float32)
    speech[1 * RATE : 3 * RATE] = speech[4 * RATE : 23 * RATE] = 0.5
    soundfile.write(folder / "wavs" / "b.wav", speech, RATE)
    soundfile.write(folder / "wavs" / "a.wav", np.zeros(3 * RATE), RATE)
    soundfile.write(folder / "extra.wav", np.zeros(RATE), RATE)
    (folder / "FILE_ORDER").write_text("b.wav\na\n", encoding="utf-8")
    return folder


def read(folder: Path) -> tuple[list, dict]:
    return read_segments(folder / "segments.yaml"), json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_the_registry_holds_the_methods_that_recipes_may_name():
    assert set(METHODS) == set(get_args(get_type_hints(SegmentOptions)["method"]))


def test_shas_cuts_a_test_set_and_reports_what_it_did(testset, tmp_path):
    segment_freely(testset, Shas(options=OPTIONS, predict=loudness), "segment:X", tmp_path)
    segments, report = read(tmp_path)
    assert {s.recording for s in segments} == {"b.wav"}
    assert (segments[0].start, segments[0].end) == pytest.approx((1 * RATE, 3 * RATE), abs=400)
    assert segments[-1].end == pytest.approx(23 * RATE, abs=400)
    assert all(0.2 < s.seconds < 7 for s in segments)
    assert report["segments"] == len(segments) >= 4
    assert report["recordings_without_segments"] == ["a.wav"]
    assert report["recordings_not_in_file_order"] == ["extra.wav"]
    assert report["recorded_seconds"] == 28.0
    assert report["speech_seconds"] == pytest.approx(21, abs=0.1)
    assert report["dropped_speech_seconds"] < 0.02 * len(segments) + 0.02
    assert [r["recording"] for r in report["recordings"]] == ["b.wav", "a.wav"]


def test_the_batch_size_changes_no_byte(testset, tmp_path):
    for size in (1, 14):
        options = SegmentOptions(method="shas", max_seconds=7, min_seconds=0.2, threshold=0.5, batch_size=size)
        (tmp_path / str(size)).mkdir()
        segment_freely(testset, Shas(options=options, predict=loudness), "segment:X", tmp_path / str(size))
    for name in ("segments.yaml", "report.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "14" / name).read_bytes()


def test_fixed_lengths_cover_everything(testset, tmp_path):
    options = SegmentOptions(method="fixed", max_seconds=7, min_seconds=0.2, threshold=0.5)
    segment_freely(testset, METHODS["fixed"](options, tmp_path), "segment:X", tmp_path)
    segments, report = read(tmp_path)
    assert report["segment_seconds"] == report["recorded_seconds"] == 28.0
    assert report["speech_seconds"] is None and report["dropped_speech_seconds"] is None
    assert report["longest_seconds"] == 7.0 and report["segments"] == 5


@pytest.mark.parametrize(
    ("samples", "pieces"),
    [(0, []), (50, [50]), (100, [100]), (230, [100, 100, 30]), (205, [100, 52, 53]), (105, [52, 53])],
)
def test_a_last_piece_that_is_too_short_shares_with_the_one_before(samples, pieces):
    assert [b - a for a, b in cut_evenly(samples, 100, 10)] == pieces


def test_given_segments_are_kept_and_made_regular(testset, tmp_path):
    entries = ("x/b.wav, offset: 4, duration: 6", "b, offset: 1, duration: 3.5", "a, offset: 0.5, duration: 2.51")
    text = "".join(f"- {{wav: {entry}}}\n" for entry in entries)
    (testset / "segments.yaml").write_text(text, encoding="utf-8")
    normalise_given(testset, 8, tmp_path)
    segments, report = read(tmp_path)
    assert [(s.recording, s.start, s.end) for s in segments] == [
        ("b.wav", 4 * RATE, 10 * RATE),
        ("b.wav", 1 * RATE, 4 * RATE + RATE // 2),
        ("a.wav", RATE // 2, 3 * RATE),
    ]
    assert (report["segments"], report["overlapping"], report["cut_at_end"]) == (3, 1, 1)


@pytest.mark.parametrize("samples", [1, 100, 399, 5000, 31_999, 480_000, 479_999, 480_001])
def test_segments_end_with_the_recording_at_the_latest(samples):
    cut = cut_track(np.full(round(samples * FRAME_RATE_HZ / RATE), 0.9), samples, OPTIONS)
    assert all(0 <= start < end <= samples and end - start < 7 * RATE for start, end in cut.segments)
    assert samples < 200 or cut.segments


def test_samples_that_are_no_numbers_are_refused_by_their_place(testset, tmp_path):
    audio = np.zeros(25 * RATE, np.float32)
    audio[22 * RATE] = np.nan
    soundfile.write(testset / "wavs" / "b.wav", audio, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"b\.wav: has samples that are no numbers, first at 22\.00 s"):
        segment_freely(testset, Shas(options=OPTIONS, predict=loudness), "segment:X", tmp_path)


def test_a_recording_without_samples_is_refused(testset, tmp_path):
    soundfile.write(testset / "wavs" / "a.wav", np.zeros(0), RATE)
    with pytest.raises(UserError, match=r"a\.wav: has no samples"):
        segment_freely(testset, Shas(options=OPTIONS, predict=loudness), "segment:X", tmp_path)
