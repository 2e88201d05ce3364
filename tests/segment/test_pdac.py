"""Divide-and-conquer: against recordings of the original, a slow reference, and the inputs it fails on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment.methods.pdac import LeftmostMinimum, Limits, RightmostMaximum, split

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
TWO_HOURS = 359_640


def slow_split(probabilities: np.ndarray, limits: Limits) -> list[tuple[int, int]]:
    """The algorithm as it is told: try every frame from the least probable on, trim both sides anew."""

    def trim(start: int, end: int) -> tuple[int, int]:
        inside = [i for i in range(start, end) if probabilities[i] >= limits.threshold]
        return (inside[0], inside[-1] + 1) if inside else (start, start)

    def seconds(part: tuple[int, int]) -> float:
        return round((part[1] - part[0]) / limits.frame_rate_hz, 4)

    def divide(start: int, end: int) -> list[tuple[int, int]]:
        if start == end:
            return []
        if seconds((start, end)) < limits.max_seconds:
            return [(start, end)]
        sides = []
        for k in start + np.argsort(probabilities[start:end], kind="stable"):
            sides = [trim(start, int(k)), trim(int(k) + 1, end)]
            if all(seconds(side) > limits.min_seconds for side in sides):
                break
        return [s for side in sides if seconds(side) > limits.min_seconds for s in divide(*side)]

    return divide(*trim(0, len(probabilities)))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_segments_equal_those_of_the_published_code(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    limits = Limits(**record["limits"])
    segments = split(np.array(record["probabilities"]), limits)
    assert segments == [tuple(pair) for pair in record["frames"]]
    offsets_durations = [[limits.seconds(a), limits.seconds(b - a)] for a, b in segments]
    assert offsets_durations == record["offsets_durations"]


def test_the_golden_segments_are_there():
    assert len(GOLDEN) == 9


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.6, 0.8, 0.9, 1.0, float("nan")]), max_size=70),
    st.sampled_from([0.1, 0.3, 0.5]),
    st.sampled_from([0.0, 0.04, 0.1]),
    st.sampled_from([0.3, 0.5, 0.9]),
)
def test_segments_equal_the_slow_reference_with_ties_and_gaps(probabilities, longest, shortest, threshold):
    limits = Limits(max_seconds=longest + 0.05, min_seconds=shortest, threshold=threshold)
    assert split(np.array(probabilities), limits) == slow_split(np.array(probabilities), limits)


@given(st.integers(0, 2**32 - 1), st.integers(1, 900), st.sampled_from([0.4, 1.0, 3.0]))
def test_segments_equal_the_slow_reference_on_random_probabilities(seed, frames, longest):
    probabilities = np.random.default_rng(seed).random(frames)
    limits = Limits(max_seconds=longest)
    assert split(probabilities, limits) == slow_split(probabilities, limits)


@pytest.mark.parametrize(
    "probabilities",
    [
        np.full(TWO_HOURS, 0.9),
        np.linspace(0.5, 1, TWO_HOURS),
        np.linspace(1, 0.5, TWO_HOURS),
        np.full(20 * 60 * 50, 0.5),
        np.random.default_rng(0).random(TWO_HOURS),
    ],
    ids=["flat", "rising", "falling", "at the threshold", "noise"],
)
def test_hours_of_any_probabilities_give_segments_within_the_limits(probabilities):
    segments = split(probabilities, Limits())
    assert segments
    assert all(0.2 < (b - a) / 49.95 < 18 for a, b in segments)
    edges = [edge for segment in segments for edge in segment]
    assert edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= len(probabilities)
    # every dropped frame is a cut or lies in a side that was too short
    kept = sum(int((probabilities[a:b] >= 0.5).sum()) for a, b in segments)
    assert int((probabilities >= 0.5).sum()) - kept < 11 * len(segments)


@pytest.mark.parametrize(
    "probabilities",
    [[], [0.49], np.zeros(1000), np.full(5000, np.nan), np.full(TWO_HOURS, 0.1)],
    ids=["empty", "one frame", "silence", "NaN", "two hours of near silence"],
)
def test_no_speech_gives_no_segment(probabilities):
    assert split(np.array(probabilities), Limits()) == []


def test_a_single_frame_of_speech_is_a_segment_and_not_an_empty_one():
    assert split(np.array([0.1, 0.7, 0.2]), Limits()) == [(1, 2)]


def test_a_stretch_of_exactly_the_maximum_is_cut():
    limits = Limits(max_seconds=1.0, frame_rate_hz=50.0)
    assert limits.longest_frames == 49
    assert split(np.full(49, 0.9), limits) == [(0, 49)]
    assert len(split(np.full(50, 0.9), limits)) == 2


def test_blips_that_no_cut_leaves_long_enough_are_dropped_as_published():
    probabilities = np.full(6000, 0.01)
    probabilities[::1500] = 0.9  # one frame every 30 s: no cut leaves more than 0.2 s on both sides
    assert split(probabilities, Limits()) == []


def test_limits_that_contradict_are_refused():
    with pytest.raises(ValueError, match="min_seconds < max_seconds"):
        Limits(max_seconds=0.2, min_seconds=0.2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 500), st.integers(1, 6))
def test_the_least_and_the_most_probable_frame_are_those_of_a_stable_sort(seed, frames, levels):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, levels, frames).astype(float)
    values[rng.random(frames) < 0.05] = np.nan
    least, most = LeftmostMinimum(values), RightmostMaximum(values)
    for _ in range(10):
        start, stop = sorted(rng.integers(0, frames + 1, 2).tolist())
        if start < stop:
            order = start + np.argsort(values[start:stop], kind="stable")
            assert (least.find(start, stop), most.find(start, stop)) == (order[0], order[-1])
