"""Render a picture with matplotlib in a light and a dark palette, as SVG and PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from evaluate.report.pictures.palettes import DARK, LIGHT, Palette
from submission.store.digests import write_text

DOTS_PER_INCH = 150
POINTS_PER_INCH = 72

Draw = Callable[[Palette], Figure]
"""Draws a picture in the colours of a palette."""


def style(palette: Palette) -> dict[str, Any]:
    """Return matplotlib's settings for a palette."""
    return {
        "svg.fonttype": "none",  # text stays text and can be searched in the file
        "svg.hashsalt": "report",
        "font.family": "DejaVu Sans",  # comes with matplotlib, so the layout is the same on every machine
        "font.size": 10,
        "text.color": palette["ink"],
        "text.parse_math": False,  # a recipe's name may hold dollar signs
        "axes.prop_cycle": cycler(color=[palette["blue"]]),
        "axes.edgecolor": palette["muted"],
        "axes.labelcolor": palette["ink"],
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "xtick.color": palette["muted"],
        "ytick.color": palette["muted"],
        "figure.facecolor": palette["paper"],
        "grid.color": palette["grid"],
        "legend.frameon": False,
        "legend.fontsize": 9,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPicture:
    """A rendered picture with its title and caption."""

    name: str
    """Of its files, without extension."""
    title: str
    caption: str
    """One sentence made from its data."""
    light: str
    """SVG for a light page; also written as file and as PNG."""
    dark: str
    """SVG for a dark page."""
    width: int
    """In points."""


def render_picture(folder: Path, name: str, title: str, caption: str, draw: Draw) -> ReportPicture:
    """Draw a picture in both palettes, and write <name>.svg and <name>.png of the light one into a folder.

    The same figure gives the same bytes.
    """
    images = {}
    for scheme, palette in (("light", LIGHT), ("dark", DARK)):
        # A dict of settings by name is no dict by the literals of all names, which matplotlib wants.
        context = matplotlib.rc_context(style(palette))  # type: ignore[arg-type]
        with context, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # a name in another script; the SVG's text has it
            figure = draw(palette)
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None})
            images[scheme] = text.getvalue()
            if scheme == "light":
                figure.savefig(folder / f"{name}.png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    write_text(folder / f"{name}.svg", images["light"])
    width = round(figure.get_size_inches()[0] * POINTS_PER_INCH)
    return ReportPicture(name=name, title=title, caption=caption, width=width, **images)
