"""The pictures of a report, all of them."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from evaluate.report.bars import draw_bytes, draw_layers
from evaluate.report.quality import draw_quality
from evaluate.report.results import Results
from evaluate.report.svg import STYLE, Picture


def draw_pictures(results: Results, folder: Path) -> list[Picture]:
    """Write every picture as SVG and PNG into a folder and return them."""
    pictures = []
    with matplotlib.rc_context(STYLE):
        for pair in results.pairs:
            if picture := draw_quality(results, pair, folder):
                pictures.append(picture)
        if any(system.bytes_by_role for system in results.systems):
            pictures.append(draw_bytes(results, folder))
        if results.layers:
            pictures.append(draw_layers(results, folder))
    return pictures
