"""Shrinking the importance of rows: what it keeps, and that it comes nearer to the truth."""

from __future__ import annotations

import pytest
import torch

from quantize.calibration.shrinkage import shrunk_importance
from quantize.solvers.feedback import floored_importance

ROWS = 4096


def measured(spread: float, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return true importances with that standard deviation of their logarithms, and halves with that of noise."""
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(3, ROWS, dtype=torch.float64, generator=generator)
    truth = (spread * normal[0]).exp()
    return truth, truth * (noise * normal[1:]).exp()


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the variance of the logarithms of what is found over the truth."""
    return float((found / truth).log().var())


@pytest.mark.parametrize(("spread", "noise"), [(0.3, 0.5), (0.6, 0.5), (0.05, 0.5)])
def test_what_is_shrunk_is_nearer_to_the_truth(spread, noise):
    truth, halves = measured(spread, noise)
    part = spread**2 / (spread**2 + noise**2 / 2)  # of the variance of the logarithms
    assert error(shrunk_importance(halves), truth) == pytest.approx(spread**2 * (1 - part), rel=0.1)
    assert error(shrunk_importance(halves), truth) < 0.9 * error(halves.sum(0), truth)


def test_the_mean_is_kept():
    _, halves = measured(0.5, 0.5)
    assert float(shrunk_importance(halves).mean()) == pytest.approx(float(halves.sum(0).mean()))


def test_the_unit_and_the_order_of_the_halves_do_not_matter():
    _, halves = measured(0.5, 0.5)
    expected = shrunk_importance(halves)
    assert torch.allclose(shrunk_importance(halves * 1e-9), expected * 1e-9, rtol=1e-9)
    assert torch.allclose(shrunk_importance(halves.flip(0)), expected, rtol=1e-9)


def test_where_halves_agree_the_importance_stays_as_it_is():
    truth, _ = measured(0.3, 0.0)
    assert torch.allclose(shrunk_importance(torch.stack([truth, truth])), 2 * truth)


def test_where_halves_have_nothing_in_common_all_rows_count_alike():
    _, halves = measured(0.0, 0.5)
    assert float(shrunk_importance(halves).log().std()) < 0.03


def test_halves_that_contradict_each_other_do_not_turn_the_order_of_rows():
    truth, _ = measured(0.5, 0.0)
    shrunk = shrunk_importance(torch.stack([truth, 1.5 / truth]))
    assert torch.allclose(shrunk, shrunk.mean().expand(ROWS))


def test_a_row_without_gradients_is_taken_at_the_floor_of_solvers():
    truth, _ = measured(0.3, 0.0)
    truth[0] = 0
    shrunk = shrunk_importance(torch.stack([truth, truth]))
    floored = floored_importance(2 * truth, ROWS)
    assert torch.allclose(shrunk / shrunk.mean(), floored / floored.mean(), rtol=1e-6)


@pytest.mark.parametrize("half", [0, 1])
def test_with_one_utterance_the_importance_is_that_of_it(half):
    _, halves = measured(0.5, 0.5)
    halves[half] = 0
    assert torch.equal(shrunk_importance(halves), halves.sum(0))


def test_rows_that_are_all_alike_stay_so():
    assert torch.equal(shrunk_importance(torch.ones(2, 8, dtype=torch.float64)), torch.full((8,), 2.0).double())
    assert torch.equal(shrunk_importance(torch.zeros(2, 8, dtype=torch.float64)), torch.zeros(8).double())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_stays_for_the_file_to_refuse(value):
    halves = torch.ones(2, 8, dtype=torch.float64)
    halves[0, 3] = value
    assert not torch.isfinite(shrunk_importance(halves)).all()
