"""Bundles broken at random: see `tests.submission.bundle_fuzzing`, whose many cases `nox -s fuzz` runs."""

from __future__ import annotations

import pytest

from tests.submission.bundle_fuzzing import contents, hold


def test_a_hundred_and_fifty_broken_bundles_are_answered(pristine, tmp_path):
    original = contents(pristine)
    for number in range(150):
        hold(number, pristine, original, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("thousand", range(10))
def test_ten_thousand_broken_bundles_are_answered(pristine, tmp_path, thousand):
    original = contents(pristine)
    for number in range(1_000 * thousand, 1_000 * (thousand + 1)):
        hold(number, pristine, original, tmp_path)
