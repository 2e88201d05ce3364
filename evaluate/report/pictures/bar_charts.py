"""Draw bar charts: the bytes of each system by role, and the sensitivity of each layer."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from evaluate.report.open_set_tables import size_unit
from evaluate.report.pictures.palettes import Palette
from evaluate.report.pictures.quality_size import limit_lines
from evaluate.report.pictures.render import ReportPicture, render_picture
from evaluate.report.results import Results, SystemResult

ROLE_COLOURS = ("blue", "sky", "green", "yellow", "purple", "orange", "grey")
ALIKE = 1000
"""Systems share a bar where no group of roles differs by a thousandth of the largest system."""


def bytes_picture(results: Results, folder: Path) -> ReportPicture:
    """Render the bytes of each system by role; systems with the same bytes share a bar."""
    draw = functools.partial(_draw_bytes, results)
    return render_picture(folder, "bytes", "Where the bytes are", _bytes_caption(results), draw)


def _draw_bytes(results: Results, palette: Palette) -> Figure:
    unit, divisor = size_unit(results.systems)
    bars = bars_of(results.systems)
    names = [_several(members) for members in bars]
    figure = Figure(figsize=(8, 1.3 + 0.3 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    rows = range(len(bars))
    starts = [0.0] * len(bars)
    groups = list(dict.fromkeys(group for members in bars for group in members[0].bytes_by_role))
    for group, colour in zip(groups, itertools.cycle(ROLE_COLOURS), strict=False):
        sizes = [members[0].bytes_by_role.get(group, 0) / divisor for members in bars]
        axes.barh(rows, sizes, left=starts, color=palette[colour], label=group, height=0.72)
        starts = [start + size for start, size in zip(starts, sizes, strict=True)]
    axes.set_yticks(rows, names)
    axes.tick_params(axis="y", colors=palette["ink"], length=0)
    axes.invert_yaxis()
    axes.set_xlabel(f"size on disk, {unit}")
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 1.05 * max(*(s.size_bytes for s in results.systems), *results.limits.values()) / divisor)
    limit_lines(axes, results, divisor, palette)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def bars_of(systems: Sequence[SystemResult]) -> list[list[SystemResult]]:
    """Return groups of systems with the same bytes by role."""
    grain = max(system.size_bytes for system in systems) / ALIKE
    bars: dict[tuple[tuple[str, int], ...], list[SystemResult]] = {}
    for system in systems:
        if system.bytes_by_role:
            rounded = tuple((group, round(size / grain)) for group, size in system.bytes_by_role.items())
            bars.setdefault(rounded, []).append(system)
    return list(bars.values())


def _several(members: Sequence[SystemResult]) -> str:
    more = len(members) - 1
    return members[0].name if not more else f"{members[0].name} and {more} equal"


def _bytes_caption(results: Results) -> str:
    keys = {system.model_key: system for system in results.systems}
    upload = next((keys[u.model_key] for u in results.uploads if u.model_key in keys), None)
    system = upload or min(results.systems, key=lambda s: s.size_bytes)
    shares = sorted(system.bytes_by_role.items(), key=lambda item: -item[1])
    shares_text = ", ".join(f"{group} {size / system.size_bytes:.0%}" for group, size in shares)
    return f"Of the {system.size_bytes:,} bytes of {system.name}: {shares_text}."


def layers_picture(results: Results, folder: Path) -> ReportPicture:
    """Render the sensitivity of each layer, with the chosen layers in another colour."""
    draw = functools.partial(_draw_layers, results)
    return render_picture(folder, "layers", "Sensitivity by layer", _layers_caption(results), draw)


def _draw_layers(results: Results, palette: Palette) -> Figure:
    layers, about = results.layers, results.layers_about
    figure = Figure(figsize=(max(6.0, 1.5 + 0.27 * len(layers)), 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(visible=True, axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    for chosen, colour, title in ((True, "orange", f"chosen for {about['codec']}"), (False, "blue", "not chosen")):
        members = [layer for layer in layers if layer.chosen == chosen]
        if members:
            axes.bar(
                [layer.layer for layer in members],
                [layer.value for layer in members],
                yerr=[layer.standard_error for layer in members],
                color=palette[colour],
                ecolor=palette["ink"],
                error_kw={"linewidth": 0.8, "capsize": 2},
                label=title,
            )
    axes.axhline(0, color=palette["muted"], linewidth=0.8)
    axes.set_xticks([layer.layer for layer in layers])
    axes.set_xlabel(f"layer whose {about['role']} is quantized with {about['codec']}, the others unchanged")
    axes.set_ylabel("change of cross-entropy,\nnats per target token")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _layers_caption(results: Results) -> str:
    worst = max(results.layers, key=lambda layer: layer.value)
    least = min(results.layers, key=lambda layer: layer.value)
    chosen = ", ".join(str(layer.layer) for layer in results.layers if layer.chosen) or "none"
    close = sum(abs(one.value - least.value) <= one.standard_error + least.standard_error for one in results.layers) - 1
    return (
        f"Layer {worst.layer} is the most sensitive ({worst.value:+.4f} ± {worst.standard_error:.4f}), layer "
        f"{least.layer} the least ({least.value:+.4f}); chosen: {chosen}. {close} of the others are within the "
        "standard errors of the least sensitive one. Whiskers: one standard error."
    )
