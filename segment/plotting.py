"""Plots of segmented recordings: loudness, frame probabilities, segments, and the speech that they leave out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from segment.methods.gap_filling import Stretch, uncovered
from segment.methods.pdac import FRAME_RATE_HZ
from segment.probabilities.speech_probabilities import FrameProbabilities
from segment.probabilities.vad import CHUNK_SAMPLES, speech_stretches
from segment.probabilities.windows import Read
from submission.store.digests import write_bytes
from submission.text.segments import SAMPLE_RATE

ROW_SECONDS = (15, 30, 60, 120, 300, 600, 1200)
MOST_ROWS = 12
POINTS = 1500
"""Points of a curve in a row: more than a row has pixels would only make the file large."""
FLOOR_DB, CEILING_DB = -70.0, 0.0
COLOURS = {
    "loudness": "#b8b8b8",
    "classifier": "#1f4e9c",
    "detector": "#c97b00",
    "segment": "#9fc3e8",
    "next segment": "#c7e3c0",
    "dropped speech": "#d1232a",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordingPlot:
    """What is plotted of one recording."""

    title: str
    probabilities: FrameProbabilities
    segments: Sequence[Stretch]
    read: Read
    """Reads the recording's samples."""


def write_plot(plot: RecordingPlot, out: Path) -> list[Path]:
    """Write a plot as SVG and PNG, `out` being the path without its ending; return both paths.

    The same recording and segments give the same bytes.
    """
    seconds = plot.probabilities.samples / SAMPLE_RATE
    row_seconds = next((row for row in ROW_SECONDS if seconds <= row * MOST_ROWS), ROW_SECONDS[-1])
    rows = max(1, -int(-seconds // row_seconds))
    figure = Figure(figsize=(14, 1.1 + 1.25 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    speech = speech_stretches(plot.probabilities.vad, plot.probabilities.samples)
    dropped = uncovered(speech, plot.segments)
    for row, axis in enumerate(axes):
        _plot_row(axis, plot, dropped, row * row_seconds, row_seconds)
    axes[-1].set_xlabel("minutes:seconds")
    figure.supylabel("probability; loudness from -70 dB to full scale", fontsize=9)
    lost = sum(end - start for start, end in dropped) / SAMPLE_RATE
    seconds = sum(end - start for start, end in speech) / SAMPLE_RATE
    figure.suptitle(
        f"{plot.title}: {len(plot.segments)} segments, {seconds:.1f} s of detected speech, {lost:.1f} s dropped"
    )
    handles = {handle.get_label(): handle for axis in axes for handle in axis.get_legend_handles_labels()[0]}
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=len(COLOURS), frameon=False)
    paths = []
    with matplotlib.rc_context({"svg.hashsalt": "segment", "svg.fonttype": "path"}):
        for ending, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=ending, dpi=100, metadata=metadata)
            paths.append(out.with_name(f"{out.name}.{ending}"))
            write_bytes(paths[-1], buffer.getvalue())
    return paths


def _plot_row(axis: Axes, plot: RecordingPlot, dropped: Sequence[Stretch], start: float, length: float) -> None:
    """Plot the seconds [start, start + length) of a recording."""
    probabilities = plot.probabilities
    end = min(start + length, probabilities.samples / SAMPLE_RATE)
    times, loudness = _loudness(plot.read, round(start * SAMPLE_RATE), round(end * SAMPLE_RATE))
    axis.fill_between(times, loudness, color=COLOURS["loudness"], linewidth=0, label="loudness")
    for i, (first, last) in enumerate(plot.segments):
        name = "next segment" if i % 2 else "segment"
        _band(axis, first, last, start, end, 0.0, 1.0, color=COLOURS[name], label=name, zorder=0)
    for first, last in dropped:
        _band(
            axis, first, last, start, end, 0.0, 0.09, color=COLOURS["dropped speech"], label="dropped speech", zorder=3
        )
    curves = [("detector", probabilities.vad, SAMPLE_RATE / CHUNK_SAMPLES)]
    if probabilities.classifier is not None:
        curves.append(("classifier", probabilities.classifier, FRAME_RATE_HZ))
    for name, values, rate in curves:
        times, values = _thinned(values[round(start * rate) : round(end * rate)])
        axis.plot(start + times / rate, values, color=COLOURS[name], linewidth=0.9, label=name)
    axis.set(xlim=(start, start + length), ylim=(0, 1.02), yticks=(0, 0.5, 1))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{int(x) // 60}:{int(x) % 60:02d}"))
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _band(
    axis: Axes, first: int, last: int, start: float, end: float, bottom: float, top: float, **how: object
) -> None:
    """Colour a stretch, given in samples, where it lies within the row's seconds."""
    left, right = max(first / SAMPLE_RATE, start), min(last / SAMPLE_RATE, end)
    if left < right:
        axis.axvspan(left, right, bottom, top, linewidth=0, **how)


def _loudness(read: Read, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Return times in seconds and the root mean square around them, from -70 dB (0) to full scale (1)."""
    if start >= end:
        return np.zeros(0), np.zeros(0)
    width = max(SAMPLE_RATE // 100, -(-(end - start) // POINTS))
    edges = np.arange(start, end, width)
    squares = []
    block = width * max(1, 60 * SAMPLE_RATE // width)  # a minute at a time
    for at in range(start, end, block):
        samples = read(at, min(at + block, end)).astype(np.float64) ** 2
        starts = np.arange(0, len(samples), width)
        squares.append(np.add.reduceat(samples, starts) / np.diff([*starts, len(samples)]))
    decibels = 10 * np.log10(np.maximum(np.concatenate(squares), 1e-12))
    return (edges + width / 2) / SAMPLE_RATE, ((decibels - FLOOR_DB) / (CEILING_DB - FLOOR_DB)).clip(0, 1)


def _thinned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and means of an array in at most POINTS pieces."""
    width = max(1, -(-len(values) // POINTS))
    starts = np.arange(0, len(values), width)
    if not len(starts):
        return np.zeros(0), np.zeros(0)
    sums = np.add.reduceat(np.nan_to_num(values.astype(np.float64)), starts)
    return starts + width / 2, sums / np.diff([*starts, len(values)])
