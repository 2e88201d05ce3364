"""A matplotlib figure as PNG, as SVG, and as SVG inside a page, where its colours follow the page's scheme."""

from __future__ import annotations

import html
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from evaluate.report.pictures.colours import LIGHT
from submission.store.digests import write_text

DOTS_PER_INCH = 150
STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched and takes the page's font
    "svg.hashsalt": "report",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine sets the same
    "font.size": 10,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # a recipe's name may hold dollar signs
    "axes.prop_cycle": cycler(color=[LIGHT["blue"]]),
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "figure.facecolor": LIGHT["paper"],
    "grid.color": LIGHT["grid"],
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPicture:
    """A picture that is written, and what it says."""

    name: str
    """Of its files, without ending."""
    title: str
    caption: str
    """One sentence made from its data."""
    svg: str


def save(figure: Figure, path: Path) -> str:
    """Write <path>.svg and <path>.png and return the SVG's text. The same figure gives the same bytes."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of a name in another script; the SVG's text has it
        figure.savefig(text, format="svg", metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=DOTS_PER_INCH, metadata={"Software": None})
    write_text(path.with_suffix(".svg"), text.getvalue())
    return text.getvalue()


def inline(svg: str, name: str, label: str) -> str:
    """Return an SVG for use inside HTML: no addresses, ids of its own, colours by name.

    name: put before every id, so that pictures of one page never share one; label: what it shows, for those who
    do not see it.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # would hold for the whole page; page.css has it
    body = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", body)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = body.replace("url(#", f"url(#{name}-")
    for colour, value in LIGHT.items():
        body = re.sub(re.escape(value), f"var(--{colour})", body, flags=re.IGNORECASE)
    width = re.search(r'viewBox="0 0 ([\d.]+) ', body)[1]  # type: ignore[index]
    for size in ("width", "height"):  # the page's, by its width
        body = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", body, count=1)
    opening = f'<svg role="img" aria-label="{html.escape(label, quote=True)}" style="--width: {width}"'
    return body.replace("<svg", opening, 1)
