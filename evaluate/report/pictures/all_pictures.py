"""The pictures of a report, all of them."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from evaluate.report.pictures.bars import draw_bytes, draw_layers
from evaluate.report.pictures.quality_size import draw_quality
from evaluate.report.pictures.svg import STYLE, ReportPicture
from evaluate.report.results import Results


def draw_pictures(results: Results, folder: Path) -> list[ReportPicture]:
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
