"""Draw the ranking of layers as a bar chart."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from submission.model.codecs import parse_codec

BLUE, ORANGE = "#0072B2", "#E69F00"
"""Distinguishable without colour vision too (Okabe and Ito 2008)."""

DOTS_PER_INCH = 150


def draw_ranking(ranking: Mapping[str, Any], out: Path, chosen: Collection[int] = ()) -> list[Path]:
    """Write sensitivity.svg and sensitivity.png into the folder `out` and return their paths.

    ranking: as in ranking.json; chosen: layers that take the coarser codec, drawn in another colour. Bars are the mean
    over pairs of the change of loss, whiskers one standard error. The same arguments give the same bytes.
    """
    entries = sorted(ranking["layers"], key=lambda entry: entry["layer"])
    codec, pairs = parse_codec(ranking["codec"], "ranking.json: codec").name, sorted(ranking["pairs"])
    with matplotlib.rc_context({"svg.hashsalt": "sensitivity", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(max(5.5, 1.5 + 0.27 * len(entries)), 3.8), layout="constrained")
        axes = figure.add_subplot()
        taken = [entry for entry in entries if entry["layer"] in chosen]
        if taken:
            _add_bars(axes, taken, ORANGE, f"chosen for {codec}: {len(taken)} of {len(entries)} layers")
        _add_bars(axes, [entry for entry in entries if entry not in taken], BLUE, "not chosen")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_title(f"Cost of {ranking['role']} as {codec}, one layer at a time", loc="left")
        axes.set_xlabel("layer")
        axes.set_ylabel("change of cross-entropy\n(nats per target token)")
        numbers = [entry["layer"] for entry in entries]
        axes.set_xticks(numbers, [str(n) for n in numbers], fontsize=8 if len(numbers) > 16 else 10)
        axes.set_xlim(numbers[0] - 0.7, numbers[-1] + 0.7)
        axes.spines[["top", "right"]].set_visible(False)
        counted = ", ".join(f"{pair} ({ranking['pairs'][pair]['utterances']} utterances)" for pair in pairs)
        figure.supxlabel(f"mean over {counted}; whiskers: one standard error", fontsize=8, x=0.01, ha="left")
        if taken:
            figure.legend(frameon=False, loc="outside upper left", ncols=2, fontsize=9)
        paths = [out / "sensitivity.svg", out / "sensitivity.png"]
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=DOTS_PER_INCH, metadata={"Software": None})
    return paths


def _add_bars(axes: Axes, entries: Sequence[Mapping[str, Any]], colour: str, label: str) -> None:
    axes.bar(
        [entry["layer"] for entry in entries],
        [entry["mean"]["value"] for entry in entries],
        yerr=[entry["mean"]["standard_error"] for entry in entries],
        color=colour,
        ecolor="black",
        capsize=2,
        error_kw={"linewidth": 0.8},
        label=label,
    )
