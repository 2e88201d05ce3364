"""Clean mutants decoded again: see `tests.evaluate.rerun_fuzzing`, whose many cases `nox -s fuzz` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluate.rerun_fuzzing import hold, make_shared


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("shared")
    make_shared(place)
    return place


def run_numbers(numbers: range, shared: Path, tmp_path: Path) -> None:
    for number in numbers:
        place = tmp_path / str(number)
        place.mkdir()
        hold(number, shared, place)


def test_eight_clean_mutants_are_decoded_or_refused_with_one_line(shared, tmp_path):
    run_numbers(range(8), shared, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(5))
def test_five_hundred_clean_mutants_are_decoded_or_refused_with_one_line(shared, tmp_path, hundred):
    run_numbers(range(100 * hundred, 100 * (hundred + 1)), shared, tmp_path)
