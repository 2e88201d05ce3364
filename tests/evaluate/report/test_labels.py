"""Labels beside points: no overlaps, all inside the axes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from evaluate.report.pictures.label_placement import Label, place_labels
from evaluate.report.pictures.palettes import LIGHT

POINTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=7, unique=True)


@settings(max_examples=20, deadline=None)
@given(POINTS)
def test_labels_of_a_few_points_do_not_overlap_or_leave_the_axes(points):
    axes = Figure(figsize=(9, 7)).add_subplot()
    axes.set_xlim(-2, 14)
    axes.set_ylim(-2, 14)
    labels = [Label(x=x, y=y, text=f"system-{x}-{y}") for x, y in points]
    boxes = place_labels(axes, labels, points, LIGHT)
    assert len(boxes) == len(axes.texts) == len(points)
    inside = axes.get_window_extent()
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert box.x0 >= inside.x0 - 1 and box.x1 <= inside.x1 + 1
