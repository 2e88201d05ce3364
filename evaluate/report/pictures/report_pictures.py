"""Render all pictures of a report."""

from __future__ import annotations

from pathlib import Path

from evaluate.report.pictures.bar_charts import bytes_picture, layers_picture
from evaluate.report.pictures.quality_size import quality_picture
from evaluate.report.pictures.render import ReportPicture
from evaluate.report.results import Results


def render_pictures(results: Results, folder: Path) -> list[ReportPicture]:
    """Write every picture as SVG and PNG into a folder and return them."""
    drawn = [quality_picture(results, pair, folder) for pair in results.pairs]
    pictures = [picture for picture in drawn if picture]
    if any(system.bytes_by_role for system in results.systems):
        pictures.append(bytes_picture(results, folder))
    if results.layers:
        pictures.append(layers_picture(results, folder))
    return pictures
