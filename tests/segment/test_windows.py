"""Windows of a recording and its frame probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment.probabilities.windows import (
    AudioSource,
    fill_missing,
    frame_at,
    frame_probabilities,
    plan_windows,
    sample_at,
)
from submission.errors import UserError

RATE = 16_000


def frame_count(samples: int) -> int:
    return max(0, (samples - 400) // 320 + 1)


def level(windows: np.ndarray) -> np.ndarray:
    """A stand-in listener: every frame's probability is its own first sample, as wav2vec 2.0 would count frames."""
    return windows[:, : frame_count(windows.shape[1]) * 320 : 320]


def source(audio: np.ndarray) -> AudioSource:
    return AudioSource(read=lambda start, end: audio[start:end], samples=len(audio))


def probabilities_of(audio: np.ndarray, predict=level, **options) -> np.ndarray:
    (probabilities,) = frame_probabilities([source(audio)], predict, **options)
    return probabilities


@given(st.integers(1, 100 * RATE), st.integers(0, 20 * RATE))
def test_windows_cover_a_recording_without_gap_or_overlap(samples, shift):
    windows = plan_windows(samples, shift)
    assert windows[0].start == 0 and windows[-1].end == samples
    assert windows[0].first_frame == 0 and windows[-1].last_frame == frame_at(samples)
    for before, after in zip(windows, windows[1:], strict=False):
        assert before.end == after.start and before.last_frame == after.first_frame
    assert all(0 < w.end - w.start < 22 * RATE for w in windows)


@pytest.mark.parametrize(
    ("seconds", "lengths"),
    [(1.0, [1]), (20, [20]), (21.9, [21.9]), (22, [20, 2]), (30, [20, 10]), (70, [20, 20, 20, 10])],
)
def test_a_tail_under_two_seconds_joins_the_window_before_it(seconds, lengths):
    windows = plan_windows(int(seconds * RATE))
    assert [(w.end - w.start) / RATE for w in windows] == lengths


def test_a_shift_makes_the_first_window_shorter():
    windows = plan_windows(50 * RATE, shift=5 * RATE)
    assert [(w.start / RATE, w.end / RATE) for w in windows] == [(0, 5), (5, 25), (25, 45), (45, 50)]


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.5, 1.999, 2, 20, 30, 70, 270, 33.333, 61.9])
@pytest.mark.parametrize("inference_times", [1, 3])
def test_probabilities_of_any_length_are_complete(seconds, inference_times):
    samples = int(seconds * RATE)
    audio = np.full(samples, 0.75, np.float32)
    probabilities = probabilities_of(audio, inference_times=inference_times)
    assert probabilities.shape == (round(samples * 49.95 / RATE),)
    if samples >= 400:
        assert np.allclose(probabilities, 0.75)


def test_frames_lie_where_their_samples_are():
    samples = 90 * RATE
    audio = np.arange(samples, dtype=np.float32)
    probabilities = probabilities_of(audio)
    expected = np.arange(len(probabilities)) / 49.95 * RATE
    assert np.abs(probabilities - expected)[:-1].max() <= 320  # within a frame
    assert abs(probabilities[-1] - expected[-1]) <= 640  # the tail had one frame less: a mean of the two before it


def test_neither_the_batch_size_nor_other_recordings_count():
    rng = np.random.default_rng(1)
    recordings = [rng.random(int(seconds * RATE), np.float32) for seconds in (105.3, 3, 40, 0.5, 61.9, 3)]
    alone = [probabilities_of(audio, inference_times=2) for audio in recordings]
    for size in (1, 2, 14):
        combined_error = frame_probabilities(map(source, recordings), level, inference_times=2, batch_size=size)
        assert all(np.array_equal(a, b) for a, b in zip(alone, combined_error, strict=True))


def test_windows_of_one_length_share_batches_across_recordings():
    shapes = []

    def predict(windows: np.ndarray) -> np.ndarray:
        shapes.append((len(windows), windows.shape[1] // RATE))
        return level(windows)

    recordings = [np.zeros(seconds * RATE, np.float32) for seconds in (45, 5, 20, 5, 60)]
    frame_probabilities(map(source, recordings), predict, batch_size=4)
    assert sorted(shapes) == [(2, 20), (3, 5), (4, 20)]


def test_a_long_recording_is_read_window_by_window():
    asked = []

    def read(start: int, end: int) -> np.ndarray:
        asked.append(end - start)
        return np.zeros(end - start, np.float32)

    (probabilities,) = frame_probabilities([AudioSource(read=read, samples=7200 * RATE)], level, batch_size=4)
    assert len(probabilities) == 359_640 and max(asked) < 22 * RATE


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_classifier_whose_probabilities_are_not_finite_is_refused_and_not_taken_for_silence(value):
    def predict(windows: np.ndarray) -> np.ndarray:
        probabilities = level(windows).copy()
        probabilities[0, 7] = value
        return probabilities

    with pytest.raises(
        UserError, match="the segmentation classifier: gives 1 of 49 frames a probability that is not a"
    ):
        probabilities_of(np.ones(RATE), predict)


def test_passes_are_averaged():
    samples = 40 * RATE
    calls = iter([0.2] * 2 + [0.8] * 3)

    def predict(windows: np.ndarray) -> np.ndarray:
        return np.full((len(windows), frame_count(windows.shape[1])), next(calls))

    probabilities = probabilities_of(np.zeros(samples, np.float32), predict, inference_times=2, batch_size=1)
    assert np.allclose(probabilities, 0.5)


def test_progress_adds_up_to_the_recording():
    seconds = []
    probabilities_of(np.zeros(int(63.7 * RATE), np.float32), inference_times=3, tick=seconds.append)
    assert sum(seconds) == pytest.approx(63.7)


def test_missing_frames_take_the_mean_of_their_surroundings():
    nan = float("nan")
    assert fill_missing(np.array([0.2, 0.4, nan])).tolist() == pytest.approx([0.2, 0.4, 0.3])
    assert fill_missing(np.array([nan, nan, nan, nan, 0.4])).tolist() == pytest.approx([0.4] * 5)
    assert fill_missing(np.full(3, nan)).tolist() == [0, 0, 0]


@given(st.integers(0, 400_000))
def test_frames_and_samples_translate_both_ways(frame):
    assert frame_at(sample_at(frame)) == frame
