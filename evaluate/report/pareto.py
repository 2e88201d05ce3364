"""The Pareto front: what no other system beats in both size and quality."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points (size, quality) on the front, the smallest size first.

    A point is on the front where no other one is at most as large and at least as good, and better in one of the
    two. Points that are equal in both stand or fall together.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return front
