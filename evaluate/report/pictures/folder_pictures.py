"""Draw the pictures of a translated folder: the segments of each recording, and the chrF of each recording."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluate.report.pages.folder_result import FolderResult, kind_of
from evaluate.report.pictures.palettes import Palette
from evaluate.report.pictures.render import ReportPicture, render_picture
from submission.text.characters import printable
from submission.text.segments import SAMPLE_RATE

MOST_DRAWN = 24
"""Recordings in a picture."""
LONGEST_NAME = 36
KINDS = (("translated", "blue"), ("flagged", "orange"), ("blank", "grey"))
"""Kind of a hypothesis and its colour."""


def lines_picture(result: FolderResult, out: Path) -> ReportPicture:
    """Render the segments of each recording, coloured by the kind of their hypothesis."""
    drawn = result.recordings[:MOST_DRAWN]
    counts = {kind: sum(kind_of(hypothesis) == kind for hypothesis in result.hypotheses) for kind, _ in KINDS}
    shares = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    caption = f"Segments: {len(result.segments):,} ({shares}); recordings: {len(result.recordings):,}."
    if len(drawn) < len(result.recordings):
        caption += f" The first {len(drawn)} recordings are drawn."
    return render_picture(
        out, "lines", "Segments of each recording", caption, functools.partial(_draw_lines, result, drawn)
    )


def _draw_lines(result: FolderResult, drawn: Sequence[str], palette: Palette) -> Figure:
    figure = Figure(figsize=(8, 1.4 + 0.3 * len(drawn)), layout="constrained")
    axes = figure.add_subplot()
    for kind, colour in KINDS:
        for row, recording in enumerate(drawn):
            bars = [
                (segment.start / SAMPLE_RATE, segment.seconds)
                for segment, hypothesis in zip(result.segments, result.hypotheses, strict=True)
                if segment.recording == recording and kind_of(hypothesis) == kind
            ]
            axes.broken_barh(bars, (row - 0.36, 0.72), facecolors=palette[colour], edgecolors=palette["paper"], lw=0.4)
        axes.barh([0], [0], color=palette[colour], label=kind)
    _name_rows(axes, drawn, palette)
    axes.set_xlabel("seconds of the recording")
    figure.legend(loc="outside lower center", ncols=len(KINDS))
    return figure


def recordings_picture(result: FolderResult, quality: Mapping[str, float], out: Path) -> ReportPicture:
    """Render the chrF of each recording, the lowest first."""
    ordered = sorted(quality.items(), key=lambda item: item[1])
    drawn = ordered[:MOST_DRAWN]
    together = next(score.value for score in result.scores if score.metric == "chrF")
    (low, least), (high, most) = ordered[0], ordered[-1]
    caption = f"From {least:.1f} ({low}) to {most:.1f} ({high}); all lines together {together:.1f}."
    if len(drawn) < len(ordered):
        caption += f" The {len(drawn)} lowest are drawn."
    draw = functools.partial(_draw_quality, drawn, together)
    return render_picture(out, "quality", "chrF of each recording", caption, draw)


def _draw_quality(drawn: Sequence[tuple[str, float]], together: float, palette: Palette) -> Figure:
    figure = Figure(figsize=(8, 1.2 + 0.3 * len(drawn)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(drawn)), [value for _, value in drawn], color=palette["blue"], height=0.72)
    axes.axvline(together, color=palette["muted"], linewidth=1, linestyle=(0, (4, 3)), label=f"all: {together:.1f}")
    _name_rows(axes, [name for name, _ in drawn], palette)
    axes.set_xlabel("chrF")
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower center")
    return figure


def _name_rows(axes: Axes, names: Sequence[str], palette: Palette) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.tick_params(axis="y", colors=palette["ink"], length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _short(name: str) -> str:
    """Return a name, its middle left out where it is long: names of one folder often have the same beginning."""
    name = printable(name, 1000)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 :]}"
