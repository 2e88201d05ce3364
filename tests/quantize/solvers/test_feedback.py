"""Error feedback against a slow reference, its invariances, and what it must not stumble over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize.solvers.feedback import (
    CODE_LIMIT,
    factorize,
    floored_importance,
    predicted_loss,
    resolved_importance,
    scales,
    solve_feedback,
)
from quantize.solvers.fitting import fit_constant
from quantize.solvers.rate import draw_sample, estimate_rate
from tests.quantize.solvers.support import diagonal_factor, pooled_size_bytes, random_moment, random_problem


def reference_codes(weight, moment, importance, constant):
    """Return the codes by the definition, weight by weight in float64, with the stored scales."""
    rows, columns = weight.shape
    factor = factorize(moment, columns)
    row, column, _ = scales(factor, floored_importance(importance, rows), constant)
    damped = moment.double() + 0.01 * moment.diagonal().double().mean() * torch.eye(columns, dtype=torch.float64)
    lower = torch.linalg.cholesky(damped).numpy()
    original, codes = weight.double().numpy(), np.zeros((rows, columns))
    for i in range(rows):
        error = np.zeros(columns)
        for j in reversed(range(columns)):
            target = original[i, j]
            for k in range(j + 1, columns):
                target += error[k] * lower[k, j] / lower[j, j]
            step = float(row[i]) * float(column[j])
            codes[i, j] = np.rint(target / step)
            error[j] = original[i, j] - codes[i, j] * step
    return torch.from_numpy(codes)


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 150), seed=st.integers(0, 5))
def test_codes_are_those_of_the_definition(rows, columns, seed):
    weight, moment, importance = random_problem(rows, columns, seed)
    solution = solve_feedback(weight, factorize(moment, columns), importance, 0.02)
    expected = reference_codes(weight, moment, importance, 0.02)
    differing = (solution.codes != expected).any(dim=1)
    # A target on the edge between two codes may fall to either side in float32; the rest of its row follows.
    assert int(differing.sum()) <= max(1, rows // 4)


def test_rows_beyond_a_tile_and_a_chunk_are_solved_alike(monkeypatch):
    weight, moment, importance = random_problem(1200, 70)
    factor = factorize(moment, 70)
    whole = solve_feedback(weight, factor, importance, 0.05)
    monkeypatch.setattr("quantize.solvers.feedback.SOLVED_ROWS", 70)
    monkeypatch.setattr("quantize.solvers.feedback.SOLVED_ELEMENTS", 1)
    parts = solve_feedback(weight, factor, importance, 0.05)
    assert (whole.codes != parts.codes).float().mean() < 1e-3
    assert torch.equal(whole.row_scale, parts.row_scale)


def test_the_same_arguments_give_the_same_codes():
    weight, moment, importance = random_problem(300, 130)
    first, second = (solve_feedback(weight, factorize(moment, 130), importance, 0.05) for _ in range(2))
    assert torch.equal(first.codes, second.codes) and torch.equal(first.column_scale, second.column_scale)


def test_the_weight_and_the_moments_are_left_as_they_were():
    weight, moment, importance = random_problem(20, 30)
    before = weight.clone(), moment.clone(), importance.clone()
    for rows in (importance, None):
        solve_feedback(weight, factorize(moment, 30), rows, 0.05)
    factor = factorize(moment, 30)
    estimate_rate(draw_sample(weight, factor, importance), factor, 0.0, octaves=(0.0, 1.0))
    assert all(torch.equal(a, b) for a, b in zip(before, (weight, moment, importance), strict=True))


def test_stored_scales_give_steps_of_the_closed_form():
    weight, moment, importance = random_problem(40, 100)
    factor = factorize(moment, 100)
    solution = solve_feedback(weight, factor, importance, 0.05)
    steps = solution.row_scale.double()[:, None] * solution.column_scale.double()
    expected = 0.05 / (factor.diagonal * floored_importance(importance, 40).sqrt()[:, None])
    assert torch.allclose(steps, expected, rtol=2e-3)
    assert solution.row_scale.dtype == solution.column_scale.dtype == torch.float16
    assert solution.clamped_scales == 0


def test_a_power_of_two_of_weight_and_constant_leaves_the_codes():
    weight, moment, importance = random_problem(50, 90)
    factor = factorize(moment, 90)
    codes = solve_feedback(weight, factor, importance, 0.05).codes
    assert torch.equal(solve_feedback(weight * 4, factor, importance, 0.2).codes, codes)
    assert torch.equal(solve_feedback(weight, factorize(moment * 16, 90), importance, 0.2).codes, codes)
    assert torch.equal(solve_feedback(weight, factor, importance * 4, 0.1).codes, codes)


def test_a_row_does_not_depend_on_its_neighbours_beyond_the_common_shift():
    weight, moment, _ = random_problem(20, 60)
    factor, equal = factorize(moment, 60), torch.ones(20)
    codes = solve_feedback(weight, factor, equal, 0.05).codes
    assert torch.equal(solve_feedback(weight[7:9], factor, equal[7:9], 0.05).codes, codes[7:9])


def test_damaged_inputs_and_dead_columns_are_solved():
    weight, moment, importance = random_problem(30, 80)
    moment[:, 5] = moment[5] = 0
    weight[:, 9] = 0
    weight[3] = 0
    weight[4] = 0.125
    importance[:10] = 0
    solution = solve_feedback(weight, factorize(moment, 80), importance, 0.01)
    restored = solution.decode()
    assert torch.isfinite(restored).all()
    assert (solution.codes[3] == 0).all()
    assert predicted_loss(weight, restored, moment, importance) < 1e-4 * 30 * 80


@pytest.mark.parametrize("moment", [None, torch.zeros(48, 48)])
def test_without_moments_every_code_is_the_nearest(moment):
    weight = torch.randn(33, 48, generator=torch.Generator().manual_seed(1))
    solution = solve_feedback(weight, factorize(moment, 48), None, 0.25)
    assert torch.equal(solution.codes, (weight / 0.25).round().short())
    assert torch.equal(solution.decode(), (weight / 0.25).round() * 0.25)


def test_a_rank_deficient_moment_is_solved():
    weight, _, importance = random_problem(10, 200)
    solution = solve_feedback(weight, factorize(random_moment(200, rank=7), 200), importance, 0.05)
    assert torch.isfinite(solution.decode()).all()


def test_codes_beyond_int16_coarsen_their_column_alone():
    weight = torch.full((3, 4), 0.5)
    weight[1, 2] = 1e4
    solution = solve_feedback(weight, factorize(None, 4), None, 0.125)
    assert solution.codes.abs().max() < CODE_LIMIT
    assert torch.equal(solution.decode()[:, [0, 1, 3]], weight[:, [0, 1, 3]])
    assert abs(float(solution.decode()[1, 2]) - 1e4) < 1


def test_scales_beyond_float16_are_clamped_and_counted():
    weight = torch.randn(4, 6) * 1e-12
    solution = solve_feedback(weight, factorize(None, 6), None, 1e-13)
    assert solution.clamped_scales > 0 and torch.isfinite(solution.decode()).all()


def test_equal_rates_need_no_importance():
    weight, moment, _ = random_problem(64, 96)
    factor = factorize(moment, 96)
    first = solve_feedback(weight, factor, None, 0.3)
    second = solve_feedback(weight * 8, factorize(moment * 9, 96), None, 0.3)
    sizes = [pooled_size_bytes([solution.codes]) for solution in (first, second)]
    assert abs(sizes[0] - sizes[1]) < 0.02 * sizes[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_by_its_row(value):
    weight = torch.ones(5, 4)
    weight[3, 2] = value
    with pytest.raises(ValueError, match="row 3"):
        solve_feedback(weight, factorize(None, 4), None, 0.1)


def test_a_broken_moment_is_refused():
    with pytest.raises(ValueError, match="expected \\[3, 3\\]"):
        factorize(torch.eye(2), 3)
    with pytest.raises(ValueError, match="not positive definite"):
        factorize(torch.tensor([[1.0, 5.0], [5.0, 1.0]]), 2)
    with pytest.raises(ValueError, match="negative or not finite"):
        floored_importance(torch.tensor([1.0, -1.0]), 2)


def test_feedback_loses_less_than_rounding_at_the_same_entropy():
    weight, moment, importance = random_problem(512, 256)
    weights = floored_importance(importance, 512)
    figures = {}
    for name, factor, g in (
        ("feedback", factorize(moment, 256), importance),
        ("diagonal", diagonal_factor(moment), importance),
        ("rounding", factorize(None, 256), None),
    ):

        def size_at(constant, factor=factor, g=g):
            return pooled_size_bytes([solve_feedback(weight, factor, g, constant).codes])

        constant = fit_constant(size_at, 512 * 256 // 2, 0.02, slope_bytes=512 * 256 / 8)
        decoded = solve_feedback(weight, factor, g, constant).decode()
        figures[name] = predicted_loss(weight, decoded, moment, weights)
    assert figures["feedback"] < 0.9 * figures["diagonal"] < 0.9 * figures["rounding"]


def test_predicted_loss_is_the_trace():
    weight, moment, importance = random_problem(7, 11)
    decoded = weight.round(decimals=1)
    error = (weight - decoded).double()
    expected = 0.5 * torch.trace(error @ moment.double() @ error.t() * importance.double()[:, None])
    assert predicted_loss(weight, decoded, moment, importance) == pytest.approx(float(expected), rel=1e-5)


def test_importance_of_nothing_is_that_of_ones():
    factor = factorize(None, 3)
    assert torch.equal(resolved_importance(torch.ones(2, 3), factor, torch.zeros(2)), torch.ones(2).double())
