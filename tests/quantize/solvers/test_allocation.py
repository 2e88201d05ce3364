"""Budgets: sums are exact, estimates close, searches short."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize.solvers.allocation import allocate
from quantize.solvers.feedback import factorize, solve_feedback
from quantize.solvers.fitting import fit_constant
from quantize.solvers.rate import (
    RateCurve,
    code_histogram,
    draw_sample,
    estimate_rate,
    expected_log2_constant,
    histogram_bits,
    sample_rows,
    side_bits,
)
from submission.errors import UserError
from tests.quantize.solvers.support import pooled_size_bytes, random_problem

curves = st.lists(
    st.tuples(st.floats(-12, 3), st.integers(100, 10**7), st.floats(1, 8)).map(
        lambda drawn: RateCurve(
            log2_constants=(drawn[0], drawn[0] + 1, drawn[0] + 2),
            size_bytes=tuple(drawn[1] * max(drawn[2] - o, 0.1) / 8 for o in (0.0, 0.9, 1.7)),
            weights=drawn[1],
        )
    ),
    min_size=1,
    max_size=9,
).map(lambda found: {f"w{i}": curve for i, curve in enumerate(found)})


@settings(deadline=None)
@given(curves=curves, part=st.floats(1.0001, 3))
def test_budgets_sum_to_the_target_exactly(curves, part):
    least = sum(curve.size_bytes[-1] for curve in curves.values())
    target = int(least * part) + 1
    allocation = allocate(curves, target)
    assert sum(allocation.budget_bytes.values()) == target
    assert set(allocation.budget_bytes) == set(curves)


def test_a_target_below_the_coarsest_is_refused():
    curve = RateCurve(log2_constants=(0.0, 1.0), size_bytes=(100.0, 50.0), weights=400)
    with pytest.raises(UserError, match="too few"):
        allocate({"w": curve}, 40)
    with pytest.raises(UserError, match="no tensors"):
        allocate({}, 40)


def test_a_sample_of_rows_tells_the_size_within_a_percent():
    weight, moment, importance = random_problem(2048, 192)
    factor = factorize(moment, 192)
    sample = draw_sample(weight, factor, importance)
    guess = expected_log2_constant(sample, factor, 4.0)
    curve = estimate_rate(sample, factor, guess)
    for octave in (-0.75, 0.0, 0.75):
        codes = solve_feedback(weight, factor, importance, 2.0 ** (guess + octave)).codes
        histogram, escapes = code_histogram(codes)
        size = (histogram_bits(histogram) + side_bits(codes.shape, escapes)) / 8
        assert curve.size_at(guess + octave) == pytest.approx(size, rel=0.01)


def test_the_closed_form_tells_gaussian_bits():
    weight, _, _ = random_problem(1024, 128)
    factor = factorize(None, 128)
    constant = 2.0 ** expected_log2_constant(draw_sample(weight, factor, None), factor, 4.0)
    histogram, _ = code_histogram(solve_feedback(weight, factor, None, constant).codes)
    assert histogram_bits(histogram) / weight.numel() == pytest.approx(4.0, abs=0.03)


def test_the_search_fits_its_budget_in_few_solves():
    weight, moment, importance = random_problem(512, 160)
    factor = factorize(moment, 160)
    for bits in (1.5, 3.0, 4.5):
        sizes = []

        def size_at(constant, sizes=sizes):
            sizes.append(pooled_size_bytes([solve_feedback(weight, factor, importance, constant).codes]))
            return sizes[-1]

        budget = int(weight.numel() * bits / 8)
        start = 2.0 ** expected_log2_constant(draw_sample(weight, factor, importance), factor, bits)
        constant = fit_constant(size_at, budget, start, slope_bytes=weight.numel() / 8)
        size = size_at(constant)
        assert 0.999 * budget <= size <= budget
        assert len(sizes) <= 7


@settings(deadline=None)
@given(budget=st.integers(10, 10**6), start=st.floats(1e-4, 1e2), curvature=st.floats(0.3, 3))
def test_the_search_ends_on_any_falling_size(budget, start, curvature):
    def size_at(constant):
        return int(1000 / constant**curvature)

    constant = fit_constant(size_at, budget, start, slope_bytes=500)
    assert size_at(constant) <= budget
    assert size_at(constant * 0.998) >= budget * 0.99 - 1 - 0.01 * budget


def test_a_budget_that_nothing_fits_is_refused():
    with pytest.raises(ValueError, match="no constant"):
        fit_constant(lambda _: 100, 50, 1.0, slope_bytes=10)


@settings(deadline=None)
@given(rows=st.integers(1, 5000))
def test_sampled_rows_are_distinct_and_rise(rows):
    drawn = sample_rows(torch.rand(rows))
    assert len(drawn) == min(rows, 256) and bool((drawn.diff() > 0).all()) and drawn[0] >= 0 and drawn[-1] < rows


def test_a_histogram_counts_every_code():
    codes = torch.tensor([[0, 1, -1, 600], [3, 0, 0, -2000]], dtype=torch.int16)
    histogram, escapes = code_histogram(codes)
    assert histogram.sum() == 8 and escapes == 2
