"""The Pareto front of size and quality."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from submission.bundle.front import pareto_front

POINTS = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), max_size=20)


def beats(one: tuple[int, int], two: tuple[int, int]) -> bool:
    return one[0] <= two[0] and one[1] >= two[1] and one != two


@given(POINTS)
def test_the_front_is_every_point_that_no_other_beats(points):
    front = pareto_front(points)
    assert sorted(front) == [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]


@given(POINTS)
def test_the_front_runs_from_small_to_large(points):
    sizes = [points[i][0] for i in pareto_front(points)]
    assert sizes == sorted(sizes)
