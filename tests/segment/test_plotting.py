"""Plots of recordings: complete, the same bytes each time, for any length."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segment.plotting import COLOURS, RecordingPlot, write_plot
from segment.probabilities.speech_probabilities import FrameProbabilities
from tests.segment.tiny import speak

RATE = 16_000


def plot(seconds: float, *, classified: bool = True) -> RecordingPlot:
    """Return a recording of which the detector takes the second half for speech, and a segment of its first part."""
    audio = speak(seconds, 1).astype(np.float32) / 32768
    samples = len(audio)
    vad = np.where(np.arange(-(-samples // 512)) * 512 > samples // 2, 0.9, 0.1).astype(np.float32)
    classifier = np.linspace(0, 1, round(samples * 49.95 / RATE)) if classified else None
    return RecordingPlot(
        title="Gespräch.wav, shas",
        probabilities=FrameProbabilities(samples=samples, vad=vad, classifier=classifier),
        segments=[(0, samples // 4), (samples // 4, samples // 2)],
        read=lambda start, end: audio[start:end],
    )


def fills(path: Path) -> set[str]:
    """Return the colours that something in an SVG is filled with."""
    styles = [element.get("style", "") for element in ElementTree.parse(path).iter()]
    return {part.split(":")[1].strip() for style in styles for part in style.split(";") if part.startswith("fill:")}


def test_a_plot_shows_segments_and_dropped_speech(tmp_path):
    svg, png = write_plot(plot(40), tmp_path / "a.wav")
    assert (svg.name, png.name) == ("a.wav.svg", "a.wav.png")
    assert {COLOURS[name] for name in ("loudness", "segment", "next segment", "dropped speech")} <= fills(svg)


def test_a_plot_without_dropped_speech_shows_none(tmp_path):
    whole = plot(40)
    covered = replace(whole, segments=[(0, whole.probabilities.samples)])
    assert COLOURS["dropped speech"] not in fills(write_plot(covered, tmp_path / "a")[0])


def test_plotting_twice_gives_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_plot(plot(10), tmp_path / folder / "a")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize("seconds", [0.001, 0.5, 15.0, 190.0])
def test_any_length_is_plotted_with_and_without_a_classifier(seconds, tmp_path):
    for classified in (True, False):
        assert all(
            path.stat().st_size > 1000 for path in write_plot(plot(seconds, classified=classified), tmp_path / "a")
        )
