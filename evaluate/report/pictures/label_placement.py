"""Place labels beside the points of a picture so that they overlap neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from evaluate.report.pictures.palettes import Palette

NEAR, FAR = 7.0, 22.0
"""Distances from a point to its label, in points; far labels get a line to their point."""
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
DISTANCES = (NEAR, 14.0, FAR, 34.0, 48.0, 64.0)
Offset = tuple[float, float]
"""Position of a label relative to its point, in points."""
OFFSETS: tuple[Offset, ...] = tuple((x * d, y * d) for d in DISTANCES for x, y in DIRECTIONS)
POINT_RADIUS = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A point and its label."""

    x: float
    y: float
    text: str
    bold: bool = False


def place_labels(
    axes: Axes,
    labels: Sequence[Label],
    points: Sequence[tuple[float, float]],
    palette: Palette,
    line: Sequence[tuple[float, float]] = (),
) -> list[Bbox]:
    """Write labels into a picture whose limits and layout are final; return their boxes in pixels.

    points: all of the picture, labelled or not; line: the corners of a line to keep clear; both in data coordinates.
    Each label takes the first free position of OFFSETS; where none is free, the one with the least overlap.
    """
    figure = axes.figure
    assert isinstance(figure, Figure)  # pictures have no figures within figures
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    radius = POINT_RADIUS * figure.dpi / 72
    dots = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in _pixels(axes, points)]
    inside, taken = axes.get_window_extent(renderer), [*dots, *_along(_pixels(axes, line), radius / 2)]
    names: list[Bbox] = []
    for label in labels:
        (start,) = _pixels(axes, [(label.x, label.y)])
        best: tuple[float, Offset, Bbox] | None = None
        for place in OFFSETS:
            note = _annotate(axes, label, place, palette)
            box = _text_box(note, renderer)
            note.remove()
            cost = _cost(box, taken, inside) + (_crossed(start, box, names) if _is_far(place) else 0)
            if best is None or cost < best[0]:
                best = (cost, place, box)
            if cost == 0:
                break
        assert best is not None
        _annotate(axes, label, best[1], palette)
        names.append(best[2])
        taken.append(best[2])
    return names


def _pixels(axes: Axes, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [tuple(axes.transData.transform(point)) for point in points]


def _is_far(place: Offset) -> bool:
    """Return whether a label there gets a line to its point."""
    return max(abs(place[0]), abs(place[1])) >= FAR


def _crossed(start: tuple[float, float], box: Bbox, names: Sequence[Bbox]) -> int:
    """Return how many labels the line from a point to the middle of a box crosses, in pixels."""
    boxes = _along([start, ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)], 1.0)
    return sum(any(name.overlaps(box) for box in boxes) for name in names)


def _along(corners: Sequence[tuple[float, float]], radius: float) -> list[Bbox]:
    """Return small boxes along a line, in pixels."""
    boxes = []
    for (x0, y0), (x1, y1) in zip(corners, corners[1:], strict=False):
        steps = max(int(max(abs(x1 - x0), abs(y1 - y0)) / (2 * radius)), 1)
        for n in range(steps + 1):
            x, y = x0 + (x1 - x0) * n / steps, y0 + (y1 - y0) * n / steps
            boxes.append(Bbox.from_extents(x - radius, y - radius, x + radius, y + radius))
    return boxes


def _annotate(axes: Axes, label: Label, place: Offset, palette: Palette) -> Annotation:
    across, up = place
    sides = {-1: ("right", "top"), 0: ("center", "center"), 1: ("left", "bottom")}
    leader = {"arrowstyle": "-", "color": palette["muted"], "linewidth": 0.6, "shrinkB": 3}
    sign = (across > 0) - (across < 0), (up > 0) - (up < 0)
    return axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=(across, up),
        textcoords="offset points",
        ha=sides[sign[0]][0],
        va=sides[sign[1]][1],
        fontsize=9,
        fontweight="bold" if label.bold else "normal",
        color=palette["ink"],
        zorder=4,
        bbox={"facecolor": palette["paper"], "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        arrowprops=leader if _is_far(place) else None,
    )


def _text_box(note: Annotation, renderer: RendererBase) -> Bbox:
    """Return the box of a label's text, without the line to its point."""
    note.update_positions(renderer)
    return Text.get_window_extent(note, renderer)


def _cost(box: Bbox, taken: Sequence[Bbox], inside: Bbox) -> float:
    """Return a box's overlap with occupied boxes plus its part outside the axes, in units of its own area."""
    area = box.width * box.height
    covered = sum(_shared(box, other) for other in taken)
    outside = area - _shared(box, inside)
    return 1 + (covered + 2 * outside) / area if covered > 0 or outside > 1 else 0.0


def _shared(one: Bbox, two: Bbox) -> float:
    both = Bbox.intersection(one, two)
    return both.width * both.height if both else 0.0
