"""Draw quality against size on disk, by which the track ranks, with the Pareto front."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from evaluate.report.open_set_tables import size_unit
from evaluate.report.pictures.label_placement import Label, place_labels
from evaluate.report.pictures.palettes import Palette
from evaluate.report.pictures.render import ReportPicture, render_picture
from evaluate.report.results import ReportedScore, Results, SystemResult
from submission.bundle.front import pareto_front

NAMED = ("bf16", "8bit", "4bit", "3bit", "emb2", "g128", "als")
"""Systems whose names are shown although they are not on the front."""
KINDS = (
    ("codecs", "blue", "o"),
    ("which layers are coarser", "green", "s"),
    ("AWQ, by its calibration", "orange", "^"),
)
TICKS = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8)
"""Of one decade."""
NEAR_LIMIT = 0.12
"""Share of the limit on either side of it that the second panel shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A system in the picture."""

    system: SystemResult
    score: ReportedScore
    x: float
    """Its size in the unit of the axis."""
    front: bool
    name: str
    """The label beside it; empty for none."""

    @property
    def y(self) -> float:
        """Its score."""
        return self.score.value


def quality_metric(results: Results, pair: str) -> str:
    """Return the metric of quality: COMET, by which the track ranks, where every system has it; else BLEU."""
    outcomes = [system.outcome(pair, results.open_testset) for system in results.systems]
    return "COMET" if outcomes and all(o and "COMET" in o.scores for o in outcomes) else "BLEU"


def points_of(results: Results, pair: str) -> list[Point]:
    """Return the scored systems as points; labelled are the front, the uploads, those requested and those of NAMED."""
    metric, (_, divisor) = quality_metric(results, pair), size_unit(results.systems)
    found = [(system, system.outcome(pair, results.open_testset)) for system in results.systems]
    scored = [(system, outcome.scores[metric]) for system, outcome in found if outcome and metric in outcome.scores]
    front = pareto_front([(system.size_bytes, score.value) for system, score in scored])
    uploaded = {upload.model_key: upload.name for upload in results.uploads}
    points = []
    for number, (system, score) in enumerate(scored):
        upload = uploaded.get(system.model_key, "")  # the same packed model under another name
        named = number in front or upload or system.labelled or system.name in NAMED
        name = f"{system.name} ({upload})" if upload not in ("", system.name) else system.name
        points.append(
            Point(
                system=system,
                score=score,
                x=system.size_bytes / divisor,
                front=number in front,
                name=name if named else "",
            )
        )
    return points


def quality_picture(results: Results, pair: str, folder: Path) -> ReportPicture | None:
    """Render quality against size, all systems and those near the limit; None where nothing is scored."""
    points = points_of(results, pair)
    if not points:
        return None
    title = f"Quality against size on disk, English to {results.pairs[pair]}"
    caption = front_caption(results, points, size_unit(results.systems)[0])
    draw = functools.partial(_draw_quality, results, pair, points)
    return render_picture(folder, f"quality-{pair}", title, caption, draw)


def _draw_quality(results: Results, pair: str, points: Sequence[Point], palette: Palette) -> Figure:
    unit, divisor = size_unit(results.systems)
    limit = results.limits[results.size_limit] / divisor if results.size_limit else 0.0
    near = [p for p in points if limit and abs(p.x / limit - 1) <= NEAR_LIMIT]
    figure = Figure(figsize=(11, 5.6) if near else (8, 5.2), layout="constrained")
    panels = figure.subplots(1, 2 if near else 1, squeeze=False)[0]
    for axes in panels:
        _draw_points(axes, points, palette)
    limits = [size / divisor for size in results.limits.values()]
    _all_sizes(panels[0], [*(point.x for point in points), *limits], unit)
    panels[0].set_title("all systems")
    if near:
        _near_limit(panels[1], near, limit, unit)
    for axes in panels:
        limit_lines(axes, results, divisor, palette, names=axes is panels[-1])
    metric = quality_metric(results, pair)
    panels[0].set_ylabel(f"{metric}, {results.open_testset} eval, {pair}")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels are placed in a final layout
    for axes, members in zip(panels, ([p for p in points if p not in near], near), strict=False):
        _label_points(axes, members, points, palette)
    return figure


def _draw_points(axes: Axes, points: Sequence[Point], palette: Palette) -> None:
    axes.grid(visible=True, linewidth=0.6)
    axes.set_axisbelow(True)
    for number, (title, colour, marker) in enumerate(KINDS):
        members = [point for point in points if _kind(point.system) == number]
        if not members:
            continue
        intervals = [
            (point.x, point.score.low, point.score.high)
            for point in members
            if point.name and point.score.low is not None and point.score.high is not None
        ]
        axes.vlines(
            [x for x, _, _ in intervals],
            [low for _, low, _ in intervals],
            [high for _, _, high in intervals],
            color=palette[colour],
            alpha=0.5,
            linewidth=1.2,
            zorder=1,
        )
        x, y = [point.x for point in members], [point.y for point in members]
        axes.scatter(x, y, color=palette[colour], marker=marker, s=32, zorder=3, label=title)
    front = sorted((point.x, point.y) for point in points if point.front)
    axes.plot(*zip(*front, strict=True), color=palette["ink"], linewidth=1.2, zorder=2, label="Pareto front")


def _kind(system: SystemResult) -> int:
    return 2 if system.calibration else 1 if system.layers else 0


def _label_points(axes: Axes, members: Sequence[Point], points: Sequence[Point], palette: Palette) -> None:
    """Write the labels of points, those on the front first."""
    labels = [
        Label(x=point.x, y=point.y, text=point.name, bold=point.front)
        for point in sorted(members, key=lambda point: not point.front)
        if point.name
    ]
    front = sorted((point.x, point.y) for point in points if point.front)
    place_labels(axes, labels, [(point.x, point.y) for point in points], palette, front)


def _all_sizes(axes: Axes, sizes: Sequence[float], unit: str) -> None:
    """Show every size; they differ by factors, so their axis is logarithmic."""
    low, high = min(sizes) / 1.08, max(sizes) * 1.15
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    shown: list[float] = []
    for tick in (tick * 10**decade for decade in decades for tick in TICKS):  # as many as fit
        if low <= tick <= high and (not shown or tick / shown[-1] > (high / low) ** 0.1):
            shown.append(tick)
    axes.set_xticks(shown)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"size on disk, {unit} (logarithmic)")


def _near_limit(axes: Axes, near: Sequence[Point], limit: float, unit: str) -> None:
    """Show the systems near the limit."""
    axes.set_xlim(limit * (0.995 - NEAR_LIMIT), limit * (1.005 + NEAR_LIMIT))
    ends = [end for p in near if p.name for end in (p.score.low, p.score.high) if end is not None]
    values = [*(point.y for point in near), *ends]
    margin = 0.06 * (max(values) - min(values)) or 1.0
    axes.set_ylim(min(values) - margin, max(values) + margin)
    axes.set_xlabel(f"size on disk, {unit}, near the limit")


def limit_lines(axes: Axes, results: Results, divisor: int, palette: Palette, *, names: bool = True) -> None:
    """Draw the size limit and its other reading; the smaller one's name goes to the left of its line."""
    order = sorted(results.limits.items(), key=lambda item: item[1])
    for number, (text, size) in enumerate(order):
        binding = text == results.size_limit
        axes.axvline(size / divisor, color=palette["limit"], linewidth=1, linestyle="-" if binding else ":", zorder=1)
        if not names:
            continue
        axes.annotate(
            f"limit {text}" if binding else f"read as {text}",
            (size / divisor, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if number == 0 else 3, 4),
            textcoords="offset points",
            ha="right" if number == 0 else "left",
            va="bottom",
            fontsize=8.5,
            color=palette["limit"],
        )


def front_caption(results: Results, points: Sequence[Point], unit: str) -> str:
    """Return which systems are on the front, and which of them is the best within the limit."""
    front = sorted((point for point in points if point.front), key=lambda point: point.x)
    named = ", ".join(f"{point.name} ({point.x:.3f} {unit}, {point.y:.1f})" for point in front)
    within = [point.name for point in front if point.system.meets_limit]
    limit, metric = results.size_limit, front[0].score.metric
    best = f"; the best of them within {limit}: {within[-1]}" if within else f"; none of them meets {limit}"
    best = best if limit else ""
    return f"On the front, by size and {metric}: {named}{best}. Whiskers: 95 % intervals of the named systems."
