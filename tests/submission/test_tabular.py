from __future__ import annotations

from submission.text_table import aligned


def test_columns_are_aligned_left_or_right():
    assert aligned([("name", "n"), ("a", "10")]) == "name   n\na     10"


def test_a_short_rows_last_cell_does_not_widen_its_column():
    lines = aligned([("a", "b", "c"), ("x", "a note that is long"), ("y", "1", "2")]).splitlines()
    assert lines[2] == "y  1  2" and lines[1] == "x  a note that is long"


def test_the_table_can_be_indented():
    assert aligned([("a",), ("b",)], indent=2) == "  a\n  b"
