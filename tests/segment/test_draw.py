"""Pictures of recordings: drawn whole, the same bytes each time, for any length."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from segment.plotting import COLOURS, Picture, draw
from segment.probabilities.speech_probabilities import FrameProbabilities
from tests.segment.tiny import speak

RATE = 16_000


def picture(seconds: float, *, classified: bool = True) -> Picture:
    """Return a recording of which the detector hears the second half as speech, and a segment of its first part."""
    audio = speak(seconds, 1).astype(np.float32) / 32768
    samples = len(audio)
    voice = np.where(np.arange(-(-samples // 512)) * 512 > samples // 2, 0.9, 0.1).astype(np.float32)
    track = np.linspace(0, 1, round(samples * 49.95 / RATE)) if classified else None
    return Picture(
        title="Gespräch.wav, shas",
        heard=FrameProbabilities(samples=samples, voice=voice, track=track),
        segments=[(0, samples // 4), (samples // 4, samples // 2)],
        read=lambda start, end: audio[start:end],
    )


def fills(path: Path) -> set[str]:
    """Return the colours that something in an SVG is filled with."""
    styles = [element.get("style", "") for element in ElementTree.parse(path).iter()]
    return {part.split(":")[1].strip() for style in styles for part in style.split(";") if part.startswith("fill:")}


def test_a_picture_shows_segments_and_dropped_speech(tmp_path):
    svg, png = draw(picture(40), tmp_path / "a.wav")
    assert (svg.name, png.name) == ("a.wav.svg", "a.wav.png")
    assert {COLOURS[name] for name in ("loudness", "segment", "next segment", "dropped speech")} <= fills(svg)


def test_a_picture_without_dropped_speech_shows_none(tmp_path):
    whole = picture(40)
    covered = Picture(title=whole.title, heard=whole.heard, segments=[(0, whole.heard.samples)], read=whole.read)
    assert COLOURS["dropped speech"] not in fills(draw(covered, tmp_path / "a")[0])


def test_drawing_twice_gives_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        draw(picture(10), tmp_path / folder / "a")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize("seconds", [0.001, 0.5, 15.0, 190.0])
def test_any_length_is_drawn_with_and_without_a_classifier(seconds, tmp_path):
    for classified in (True, False):
        assert all(path.stat().st_size > 1000 for path in draw(picture(seconds, classified=classified), tmp_path / "a"))
