"""A test set in, segments and a report out, by every method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from segment.methods.divide_and_conquer import split_probabilities
from segment.methods.fixed import cut_evenly
from segment.methods.pdac import FRAME_RATE_HZ
from segment.probabilities.speech_probabilities import FrameProbabilities
from segment.segmentation import TestSetOptions, segment_testset, write_given_segmentation
from segment.segmentation_report import coverage_lines, read_report
from submission.errors import UserError
from submission.system.recipe.decoding_options import SegmentOptions
from submission.system.registry import SEGMENTATION_METHODS
from submission.text.segments import read_segments
from tests.segment.support import loudness_detectors

RATE = 16_000
OPTIONS = SegmentOptions(method="shas", max_seconds=7, min_seconds=0.2, threshold=0.5)


def segment(testset: Path, cache, out: Path, method: str = "shas", **batching) -> tuple[list, dict]:
    """Return segments and report of a test set by a method."""
    out.mkdir(exist_ok=True)
    segment_testset(testset, replace(OPTIONS, method=method), loudness_detectors(**batching), cache, "segment:X", out)
    return read(out)


def read(folder: Path) -> tuple[list, dict]:
    return read_segments(folder / "segments.yaml"), read_report(folder)


METHODS = {name: entry.load() for name, entry in SEGMENTATION_METHODS.items() if not entry.from_references}


def test_every_method_but_the_references_own_segments_has_a_function():
    assert SEGMENTATION_METHODS.keys() - METHODS.keys() == {"gold"} and all(map(callable, METHODS.values()))


def test_shas_segments_a_test_set_and_reports_its_figures(testset, cache, tmp_path):
    segments, report = segment(testset, cache, tmp_path)
    assert {s.recording for s in segments} == {"b.wav"}
    assert (segments[0].start, segments[0].end) == pytest.approx((1 * RATE, 3 * RATE), abs=400)
    assert segments[-1].end == pytest.approx(23 * RATE, abs=400)
    assert all(0.2 < s.seconds < 7 for s in segments)
    assert report["segments"] == len(segments) >= 4
    assert report["recordings_without_segments"] == ["a.wav", "extra.wav"]
    assert report["recordings_not_in_file_order"] == ["extra.wav"]
    assert (report["segmentation"], report["method"], report["recorded_seconds"]) == ("free", "shas", 29.0)
    assert [r["recording"] for r in report["recordings"]] == ["b.wav", "a.wav", "extra.wav"]


def test_plain_shas_drops_the_soft_speech_and_reports_it(testset, cache, tmp_path):
    _, report = segment(testset, cache, tmp_path)
    assert report["speech_seconds"] == pytest.approx(21, abs=0.3)
    assert 1 < report["dropped_speech_seconds"] < 3  # besides the soft second, what splitting flat probabilities costs
    assert report["covered_speech_seconds"] + report["dropped_speech_seconds"] == report["speech_seconds"]
    lines = coverage_lines(report)
    assert lines[0].startswith("  b.wav ") and lines[-1].startswith("  together ") and "dropped (" in lines[0]


def test_shas_with_the_detector_drops_nothing(testset, cache, tmp_path):
    segments, report = segment(testset, cache, tmp_path, "shas+vad")
    assert report["dropped_speech_seconds"] == 0.0
    assert any(s.start <= 3.5 * RATE and s.end >= 4.5 * RATE for s in segments)
    assert all(s.seconds <= 7 for s in segments)
    assert all(a.end <= b.start for a, b in zip(segments, segments[1:], strict=False))


def test_the_detector_alone_is_split_by_the_same_rules(testset, cache, tmp_path):
    segments, report = segment(testset, cache, tmp_path, "vad")
    assert report["method"] == "vad" and all(s.seconds < 7 for s in segments)
    assert report["dropped_speech_seconds"] < 2


def test_fixed_lengths_cover_everything(testset, cache, tmp_path):
    _, report = segment(testset, cache, tmp_path, "fixed")
    assert report["segment_seconds"] == report["recorded_seconds"] == 29.0
    assert report["dropped_speech_seconds"] == 0.0
    assert report["longest_seconds"] == 7.0 and report["segments"] == 6


@pytest.mark.parametrize("method", METHODS)
def test_neither_the_batch_size_nor_a_second_run_changes_a_byte(method, testset, cache, tmp_path):
    for size in (1, 14):
        segment(
            testset, replace(cache, folder=tmp_path / f"cache{size}"), tmp_path / str(size), method, batch_size=size
        )
    segment(testset, replace(cache, folder=tmp_path / "cache1"), tmp_path / "again", method)
    for name in ("segments.yaml", "segmentation_report.json"):
        assert len({(tmp_path / run / name).read_bytes() for run in ("1", "14", "again")}) == 1


@pytest.mark.parametrize(
    ("samples", "pieces"),
    [(0, []), (50, [50]), (100, [100]), (230, [100, 100, 30]), (205, [100, 52, 53]), (105, [52, 53])],
)
def test_a_last_piece_that_is_too_short_shares_with_the_one_before(samples, pieces):
    assert [b - a for a, b in cut_evenly(samples, 100, 10)] == pieces


def test_given_segments_are_kept_in_the_canonical_form(testset, cache, tmp_path):
    entries = ("x/b.wav, offset: 4, duration: 6", "b, offset: 1, duration: 3.5", "a, offset: 0.5, duration: 2.51")
    text = "".join(f"- {{wav: {entry}}}\n" for entry in entries)
    (testset / "segments.yaml").write_text(text, encoding="utf-8")
    write_given_segmentation(testset, 8, replace(loudness_detectors(), classify=None), cache, "segment:X", tmp_path)
    segments, report = read(tmp_path)
    assert [(s.recording, s.start, s.end) for s in segments] == [
        ("b.wav", 4 * RATE, 10 * RATE),
        ("b.wav", 1 * RATE, 4 * RATE + RATE // 2),
        ("a.wav", RATE // 2, 3 * RATE),
    ]
    assert (report["segments"], report["overlapping"], report["cut_at_end"]) == (3, 1, 1)
    assert report["dropped_speech_seconds"] == pytest.approx(23 - 10, abs=0.1)


@pytest.mark.parametrize("samples", [1, 100, 399, 5000, 31_999, 480_000, 479_999, 480_001])
def test_segments_end_with_the_recording_at_the_latest(samples):
    segments = split_probabilities(np.full(round(samples * FRAME_RATE_HZ / RATE), 0.9), samples, OPTIONS, FRAME_RATE_HZ)
    assert all(0 <= start < end <= samples and end - start < 7 * RATE for start, end in segments)
    assert samples < 200 or segments


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.5, 1.999, 20, 30, 70, 270])
@pytest.mark.parametrize("level", [0.0, 0.6, float("nan")])
def test_every_length_and_any_probabilities_give_segments_within_the_limits(method, seconds, level):
    """30, 70 and 270 s, silence, files under 2 s and NaN are where the published code fails."""
    samples = round(seconds * RATE)
    probabilities = FrameProbabilities(
        samples=samples,
        vad=np.full(-(-samples // 512), level, np.float32),
        classifier=np.full(round(samples * FRAME_RATE_HZ / RATE), level),
    )
    segments = METHODS[method](probabilities, OPTIONS)
    edges = [edge for segment in segments for edge in segment]
    assert edges == sorted(edges) and all(0 <= a < b <= samples and b - a <= 7 * RATE for a, b in segments)
    if seconds > 0.01:  # below, there is no frame
        assert bool(segments) == (method == "fixed" or level == 0.6)


def test_a_bad_recording_is_named_and_costs_no_other(testset, cache, tmp_path):
    (testset / "wavs" / "c.wav").write_bytes(b"")
    (testset / "wavs" / "d.wav").write_bytes(b"hello" * 100)
    (testset / "FILE_ORDER").write_text("c\nb\nd\na\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        segment(testset, cache, tmp_path / "out")
    assert "segment:X: 2 of 5 recordings cannot be read" in str(error.value)
    assert "c.wav: is not audio" in str(error.value) and "d.wav: is not audio" in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []
    assert len(list(cache.folder.iterdir())) == 6  # two of b, of a and of extra
    for name in ("c.wav", "d.wav"):
        soundfile.write(testset / "wavs" / name, np.zeros(RATE), RATE)
    _, report = segment(testset, cache, tmp_path / "out")
    assert [r["recording"] for r in report["recordings"]] == ["c.wav", "b.wav", "d.wav", "a.wav", "extra.wav"]


def test_a_bad_recording_with_given_segments_costs_no_other(testset, cache, tmp_path):
    (testset / "wavs" / "c.wav").write_bytes(b"")
    (testset / "wavs" / "d.wav").write_bytes(b"hello" * 100)
    (testset / "FILE_ORDER").write_text("c\nb\nd\na\n", encoding="utf-8")
    text = "".join(f"- {{wav: {name}, offset: 0.5, duration: 0.25}}\n" for name in "dcba")
    (testset / "segments.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "out").mkdir()
    detectors = replace(loudness_detectors(), classify=None)
    with pytest.raises(UserError) as error:
        write_given_segmentation(testset, 8, detectors, cache, "segment:X", tmp_path / "out")
    assert "segment:X: 2 of 5 recordings cannot be read" in str(error.value)
    assert "c.wav: is not audio" in str(error.value) and "d.wav: is not audio" in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []
    assert len(list(cache.folder.iterdir())) == 3  # of a, b and extra


def test_samples_that_are_not_finite_are_refused_by_their_position(testset, cache, tmp_path):
    audio = np.zeros(25 * RATE, np.float32)
    audio[22 * RATE] = np.nan
    soundfile.write(testset / "wavs" / "b.wav", audio, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"b\.wav: has samples that are not finite numbers, first at 22\.00 s"):
        segment(testset, cache, tmp_path / "out")


def test_a_recording_without_samples_is_refused(testset, cache, tmp_path):
    soundfile.write(testset / "wavs" / "a.wav", np.zeros(0), RATE)
    with pytest.raises(UserError, match=r"a\.wav: has no samples"):
        segment(testset, cache, tmp_path / "out")


def given_file(testset: Path, *entries: str) -> None:
    text = "".join(f"- {{wav: {entry}}}\n" for entry in entries)
    (testset / "segments.yaml").write_text(text, encoding="utf-8")


def test_regions_are_segmented_like_recordings_in_their_order(testset, cache, tmp_path):
    given_file(testset, "b, offset: 14, duration: 10", "b, offset: 0.5, duration: 2.9", "a, offset: 1, duration: 1")
    detectors = loudness_detectors()
    out = tmp_path / "out"
    out.mkdir()
    segment_testset(testset, OPTIONS, detectors, cache, "segment:X", out, by_regions=True)
    segments, report = read(out)
    assert {s.recording for s in segments} == {"b.wav"}
    later = [s for s in segments if s.start >= 14 * RATE]
    assert len(later) >= 2 and segments[: len(later)] == later  # the region of 10 s is longer than 7 s
    assert later[0].start == 14 * RATE and later[-1].end == pytest.approx(23 * RATE, abs=400)
    (first,) = segments[len(later) :]
    assert (first.start, first.end) == pytest.approx((1 * RATE, 3 * RATE), abs=400)
    assert (report["segmentation"], report["method"], report["regions"]) == ("regions", "shas", 3)
    assert report["recorded_seconds"] == pytest.approx(13.9)
    assert "3 regions, each segmented like a recording" in "\n".join(coverage_lines(report))
    cut = tmp_path / "cut"
    (cut / "wavs").mkdir(parents=True)
    (cut / "FILE_ORDER").write_text("r\n", encoding="utf-8")
    speech, _ = soundfile.read(testset / "wavs" / "b.wav", dtype="float32")
    soundfile.write(cut / "wavs" / "r.wav", speech[14 * RATE : 24 * RATE], RATE)
    alone, _ = segment(cut, cache, tmp_path / "alone")
    assert [(s.start + 14 * RATE, s.end + 14 * RATE) for s in alone] == [(s.start, s.end) for s in later]


def test_given_segments_longer_than_the_window_are_split_within_counted_and_nothing_is_left_out(
    testset, cache, tmp_path
):
    given_file(testset, "b, offset: 4, duration: 20", "b, offset: 1, duration: 2", "a, offset: 0, duration: 3")
    detectors = replace(loudness_detectors(), classify=None)
    write_given_segmentation(testset, 8, detectors, cache, "segment:X", tmp_path)
    segments, report = read(tmp_path)
    pieces = [s for s in segments if s.recording == "b.wav"][:-1]
    assert len(pieces) >= 3 and all(s.seconds <= 8 for s in segments)
    assert (pieces[0].start, pieces[-1].end) == (4 * RATE, 24 * RATE)
    assert all(a.end == b.start for a, b in zip(pieces, pieces[1:], strict=False))
    assert report["split"] == 1 and report["segments"] == len(pieces) + 2
    assert any(
        "given segments that are longer than the model's window and were split: 1" in line
        for line in coverage_lines(report)
    )


def test_a_recording_that_file_order_names_and_is_missing_stops_a_test_set_unless_that_is_allowed(
    testset, cache, tmp_path
):
    (testset / "FILE_ORDER").write_text("gone\nb.wav\na\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"names 1 recording without a file \(first: gone\).*--allow-missing"):
        segment_testset(testset, OPTIONS, loudness_detectors(), cache, "segment:X", tmp_path)
    segment_testset(testset, OPTIONS, loudness_detectors(), cache, "X", tmp_path, TestSetOptions(allow_missing=True))
    segments, report = read(tmp_path)
    assert {s.recording for s in segments} == {"b.wav"} and report["recordings_missing"] == ["gone"]


@pytest.fixture
def call(tmp_path) -> Path:
    """A call of 12 s in two channels: one speaker at 1-3 and 7-9 s, the other at 4-6 and 8.5-11 s."""
    folder = tmp_path / "call"
    folder.mkdir()
    channels = np.zeros((12 * RATE, 2), np.float32)
    for channel, start, end in ((0, 1, 3), (1, 4, 6), (0, 7, 9), (1, 8.5, 11)):
        channels[int(start * RATE) : int(end * RATE), channel] = 0.5
    soundfile.write(folder / "call.wav", channels, RATE)
    (folder / "FILE_ORDER").write_text("call\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ("mean", [(None, 1, 3), (None, 4, 6), (None, 7, 11)]),
        ("first", [(0, 1, 3), (0, 7, 9)]),
        ("each", [(0, 1, 3), (1, 4, 6), (0, 7, 9), (1, 8.5, 11)]),
    ],
)
def test_channels_are_mixed_or_the_first_or_each_by_itself_merged_by_time(call, cache, tmp_path, channels, expected):
    options = replace(OPTIONS, max_seconds=5)
    segment_testset(call, options, loudness_detectors(), cache, "X", tmp_path, TestSetOptions(channels=channels))
    segments, report = read(tmp_path)
    assert [s.channel for s in segments] == [channel for channel, _, _ in expected]
    for found, (_, start, end) in zip(segments, expected, strict=True):
        assert (found.start, found.end) == pytest.approx((start * RATE, end * RATE), abs=600)
    assert report.get("channels", "mean") == channels
    assert report["recorded_seconds"] == (24.0 if channels == "each" else 12.0)


def test_a_mono_recording_has_no_channels_to_choose_from(testset, cache, tmp_path):
    segment_testset(testset, OPTIONS, loudness_detectors(), cache, "X", tmp_path, TestSetOptions(channels="each"))
    segments, report = read(tmp_path)
    assert {s.channel for s in segments} == {None} and "channels" not in report


def two_voices(folder: Path, first: float, second: float) -> Path:
    """Write 8 s in two channels, a tone at 1-3 s in the first and at 4-7 s in the second, of these peaks."""
    folder.mkdir()
    voice = np.sin(np.arange(8 * RATE) * 0.2).astype(np.float32)
    channels = np.zeros((8 * RATE, 2), np.float32)
    channels[RATE : 3 * RATE, 0] = first * voice[RATE : 3 * RATE]
    channels[4 * RATE : 7 * RATE, 1] = second * voice[4 * RATE : 7 * RATE]
    soundfile.write(folder / "call.wav", channels, RATE, subtype="FLOAT")
    (folder / "FILE_ORDER").write_text("call\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(("channels", "reported"), [("first", True), ("mean", False), ("each", False)])
def test_sound_in_a_channel_that_is_not_translated_is_reported_with_recording_channel_and_option(
    cache, tmp_path, capsys, channels, reported
):
    folder = two_voices(tmp_path / "call", 0.5, 0.5)
    segment_testset(folder, OPTIONS, loudness_detectors(), cache, "X", tmp_path, TestSetOptions(channels=channels))
    error = capsys.readouterr().err
    assert ("X: call.wav: 3.0 of 5.0 s with sound are in channel 1 (from 0)" in error) == reported
    assert ("take mean or each" in error) == reported == bool(error)
    given_file(folder, "call, offset: 1, duration: 2")
    if channels != "each":
        about = TestSetOptions(channels=channels)
        write_given_segmentation(
            folder, 8, replace(loudness_detectors(), classify=None), cache, "X", tmp_path, None, about
        )
        assert ("take mean or each" in capsys.readouterr().err) == reported


def test_channels_that_cancel_out_in_their_mean_are_reported(cache, tmp_path, capsys):
    folder = two_voices(tmp_path / "call", 0.5, 0.5)
    voice = (0.5 * np.sin(np.arange(8 * RATE) * 0.2)).astype(np.float32)
    soundfile.write(folder / "call.wav", np.stack([voice, -voice], axis=1), RATE, subtype="FLOAT")
    segment_testset(folder, OPTIONS, loudness_detectors(), cache, "X", tmp_path)
    error = capsys.readouterr().err
    assert "call.wav: 8.0 of 8.0 s with sound cancel out in the mean of its 2 channels" in error
    assert "take first or each" in error


def test_the_first_channel_of_given_segments_is_named_in_them(call, cache, tmp_path):
    given_file(call, "call, offset: 1, duration: 2")
    detectors = replace(loudness_detectors(), classify=None)
    write_given_segmentation(call, 8, detectors, cache, "X", tmp_path, None, TestSetOptions(channels="first"))
    assert [(s.start, s.end, s.channel) for s in read(tmp_path)[0]] == [(RATE, 3 * RATE, 0)]
