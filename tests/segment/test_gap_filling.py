"""Gap filling: no detected speech left out, in order, within the limits, whatever SHAS missed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment.methods.gap_filling import GapFiller, uncovered


def filler(samples: int, longest: int = 100, shortest: int = 10, join: int = 20) -> GapFiller:
    """Return a gap filler with at most 100 samples a segment; multiples of seven are least probable."""

    def least_probable(start: int, end: int) -> int:
        return min(range(start, end), key=lambda position: position % 7)

    return GapFiller(samples=samples, longest=longest, shortest=shortest, least_probable=least_probable, join=join)


@st.composite
def stretches(draw, samples: int, longest: int) -> list[tuple[int, int]]:
    """Return stretches in order and disjoint; neighbours may touch."""
    found, at = [], 0
    while at < samples and draw(st.integers(0, 5)):
        start = min(at + draw(st.integers(0, 60)), samples)
        end = min(start + draw(st.integers(1, longest)), samples)
        if start < end:
            found.append((start, end))
        at = end
    return found


@given(st.data(), st.integers(1, 1500))
def test_all_detected_speech_is_covered_within_the_limits(data, samples):
    segments = data.draw(stretches(samples, 100))
    speech = data.draw(stretches(samples, 400))
    result = filler(samples)(segments, speech)
    inside = np.zeros(samples, int)
    for start, end in result:
        assert 0 <= start < end <= samples and end - start <= 100
        inside[start:end] += 1
    assert inside.max(initial=0) <= 1 and result == sorted(result)
    assert all(inside[start:end].all() for start, end in [*speech, *segments])


@given(st.data(), st.integers(200, 1500))
def test_no_segment_is_below_the_minimum_unless_its_recording_is(data, samples):
    segments = [(a, b) for a, b in data.draw(stretches(samples, 100)) if b - a >= 10]
    result = filler(samples)(segments, data.draw(stretches(samples, 400)))
    assert all(end - start >= 10 for start, end in result)


def test_a_recording_below_the_minimum_is_one_segment():
    assert filler(6)([], [(2, 5)]) == [(0, 6)]


def test_without_missing_speech_segments_stay_as_they_are():
    segments = [(10, 90), (120, 200)]
    assert filler(300)(segments, [(15, 80), (130, 200)]) == segments
    assert filler(300)(segments, []) == segments


@pytest.mark.parametrize(
    ("segments", "speech", "expected"),
    [
        ([(0, 50), (200, 250)], [(40, 70)], [(0, 70), (200, 250)]),
        ([(0, 50), (200, 250)], [(60, 70)], [(0, 70), (200, 250)]),
        ([(0, 50), (70, 120)], [(60, 66)], [(0, 50), (60, 120)]),
        ([(0, 50), (70, 120)], [(40, 80)], [(0, 56), (56, 120)]),
        ([(0, 50), (200, 250)], [(185, 210)], [(0, 50), (185, 250)]),
        ([(0, 50), (200, 250)], [(100, 140)], [(0, 50), (100, 140), (200, 250)]),
        ([(0, 50), (200, 250)], [(100, 110), (120, 140)], [(0, 50), (100, 140), (200, 250)]),
        ([(0, 50), (300, 350)], [(100, 120), (160, 180)], [(0, 50), (100, 120), (160, 180), (300, 350)]),
        ([(0, 90), (110, 200)], [(85, 115)], [(0, 91), (91, 110), (110, 200)]),
        ([], [(100, 104)], [(97, 107)]),
        ([(0, 100), (104, 204)], [(90, 110)], [(0, 56), (56, 104), (104, 204)]),
        ([(3, 103), (250, 300)], [(0, 5)], [(0, 56), (56, 103), (250, 300)]),
        ([], [(0, 250)], [(0, 56), (56, 112), (112, 168), (168, 250)]),
    ],
    ids=[
        "touching the one before",
        "near the one before",
        "near both, nearer to the one behind",
        "a short gap that is speech throughout: divided",
        "near the one behind",
        "apart from both",
        "two words together",
        "two phrases apart",
        "both full: a segment between them",
        "too short: widened into silence",
        "too short and no silence: boundary with the one before chosen again",
        "too short at the beginning: boundary with the one behind chosen again",
        "too long: split where it is least probable",
    ],
)
def test_missed_speech_joins_segments_or_becomes_new_ones(segments, speech, expected):
    assert filler(400)(segments, speech) == expected


def test_uncovered_speech_is_found_under_overlapping_segments_in_any_order():
    speech = [(0, 10), (20, 40), (50, 60)]
    assert uncovered(speech, [(55, 70), (5, 22), (8, 30)]) == [(0, 5), (30, 40), (50, 55)]
    assert uncovered(speech, []) == speech
    assert uncovered(speech, [(0, 100)]) == []


@given(st.data(), st.integers(1, 500))
def test_uncovered_speech_equals_the_difference_of_sets(data, samples):
    speech = data.draw(stretches(samples, 100))
    segments = data.draw(st.permutations(data.draw(stretches(samples, 50)) + data.draw(stretches(samples, 50))))
    inside = {position for start, end in segments for position in range(start, end)}
    expected = {position for start, end in speech for position in range(start, end)} - inside
    pieces = uncovered(speech, segments)
    assert {position for start, end in pieces for position in range(start, end)} == expected
