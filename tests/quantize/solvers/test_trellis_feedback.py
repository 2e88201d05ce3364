"""Error feedback with a trellis: paths against a slow Viterbi search, sizes, and what it gains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize.solvers import feedback
from quantize.solvers.feedback import CODE_LIMIT, factorize, floored_importance, predicted_loss, solve_feedback
from quantize.solvers.fitting import fit_constant
from quantize.solvers.rate import (
    code_histogram,
    draw_sample,
    estimate_rate,
    expected_log2_constant,
    histogram_bits,
    side_bits,
)
from quantize.solvers.trellis_kernels import SHRINKAGE
from submission.model.codecs.entropy.layout import Grid
from submission.model.codecs.entropy.trellis import first_stray
from tests.quantize.solvers.support import random_problem
from tests.runtime.entropy.cases import NEXT_STATES


def restarts_of(rows: int, columns: int) -> tuple[int, ...]:
    return Grid(rows=rows, columns=columns, trellis=True).restarts


def strays(codes: torch.Tensor, restarts: tuple[int, ...]) -> int:
    return int(first_stray(codes.contiguous().numpy(), np.array(restarts)))


def best_distance(targets: np.ndarray) -> float:
    """Return the sum of squares from targets to the nearest path from the state 0, by the definition."""
    costs = [0.0] + [np.inf] * 7
    for target in targets:
        following = [np.inf] * 8
        for state, cost in enumerate(costs):
            for half in (0, 1):
                subset = state % 2 + 2 * half
                distance = (target - subset - 4 * np.rint((target - subset) / 4)) ** 2
                after = NEXT_STATES[state][half]
                following[after] = min(following[after], cost + distance)
        costs = following
    return min(costs)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 60), scale=st.sampled_from([0.3, 1.0, 3.0, 40.0]), seed=st.integers(0, 9))
def test_a_column_has_the_nearest_path_to_its_shrunk_targets(rows, scale, seed):
    weight = torch.randn(rows, 1, generator=torch.Generator().manual_seed(seed)) * scale
    solution = solve_feedback(weight, factorize(None, 1), None, 1.0, (0,))
    assert strays(solution.codes, (0,)) == -1
    step = solution.row_scale.double() * solution.column_scale.double()
    targets = weight[:, 0].double().numpy() / step.numpy()
    power = np.maximum(targets**2, feedback.LEAST_POWER)  # of rows with one column
    variance = power * (targets**2 / power).mean()
    shrunk = targets * variance / (variance + SHRINKAGE)
    found = ((solution.codes[:, 0].double().numpy() - shrunk) ** 2).sum()
    assert found == pytest.approx(best_distance(shrunk), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 3), (513, 70), (4200, 20)])
def test_codes_follow_the_trellis_whatever_the_shape_and_the_chunks(shape, monkeypatch):
    weight, moment, importance = random_problem(*shape)
    factor, restarts = factorize(moment, shape[1]), restarts_of(*shape)
    whole = solve_feedback(weight, factor, importance, 0.05, restarts)
    assert strays(whole.codes, restarts) == -1
    monkeypatch.setattr("quantize.solvers.feedback.SOLVED_ROWS", 700)
    monkeypatch.setattr("quantize.solvers.feedback.SOLVED_ELEMENTS", 1)
    parts = solve_feedback(weight, factor, importance, 0.05, restarts)
    assert strays(parts.codes, restarts) == -1
    assert torch.equal(whole.row_scale, parts.row_scale)
    again = solve_feedback(weight, factor, importance, 0.05, restarts)
    assert torch.equal(again.codes, parts.codes)


def test_errors_are_fed_back_from_whole_columns():
    weight, moment, importance = random_problem(300, 130)
    factor, restarts = factorize(moment, 130), restarts_of(300, 130)
    floored = floored_importance(importance, 300)
    fed = solve_feedback(weight, factor, importance, 0.05, restarts)
    plain = solve_feedback(
        weight, feedback.InputFactor(diagonal=factor.diagonal, feedback=None), importance, 0.05, restarts
    )
    losses = [predicted_loss(weight, solution.decode(), moment, floored) for solution in (fed, plain)]
    assert losses[0] < 0.8 * losses[1]


def test_outliers_and_dead_rows_are_solved():
    weight, moment, importance = random_problem(600, 40)
    weight[5], weight[:, 7], weight[100, 3] = 0, 0, 1e5
    restarts = restarts_of(600, 40)
    solution = solve_feedback(weight, factorize(moment, 40), importance, 0.05, restarts)
    assert strays(solution.codes, restarts) == -1 and torch.isfinite(solution.decode()).all()
    assert int(solution.codes.abs().max()) <= CODE_LIMIT
    assert float(solution.decode()[100, 3]) == pytest.approx(1e5, rel=1e-2)


def bits_of(codes: torch.Tensor, *, trellis: bool) -> float:
    histogram, escapes = code_histogram(codes, trellis=trellis)
    return histogram_bits(histogram) + side_bits((codes.shape[0], codes.shape[1]), escapes)


@pytest.mark.parametrize("bits", [2.0, 3.0, 4.0])
def test_a_trellis_loses_a_fifth_less_at_the_same_entropy(bits):
    weight, moment, importance = random_problem(1024, 256)
    factor, floored = factorize(moment, 256), floored_importance(importance, 1024)
    losses = []
    for restarts in ((), restarts_of(1024, 256)):
        trellis = bool(restarts)

        def size_at(constant, restarts=restarts, trellis=trellis):
            codes = solve_feedback(weight, factor, importance, constant, restarts).codes
            return int(bits_of(codes, trellis=trellis) / 8)

        start = 2.0 ** expected_log2_constant(draw_sample(weight, factor, importance), factor, bits, trellis=trellis)
        budget = int(weight.numel() * bits / 8)
        constant = fit_constant(size_at, budget, start, slope_bytes=weight.numel() / 8)
        decoded = solve_feedback(weight, factor, importance, constant, restarts).decode()
        losses.append(predicted_loss(weight, decoded, moment, floored))
    assert losses[1] < 0.82 * losses[0]


def test_one_constant_gives_the_same_loss_with_and_without_a_trellis_at_a_high_rate():
    weight, moment, importance = random_problem(1024, 128)
    factor, floored = factorize(moment, 128), floored_importance(importance, 1024)
    constant = 2.0 ** expected_log2_constant(draw_sample(weight, factor, importance), factor, 5.0)
    losses = [
        predicted_loss(weight, solve_feedback(weight, factor, importance, constant, r).decode(), moment, floored)
        for r in ((), restarts_of(1024, 128))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def test_a_sample_of_rows_and_the_closed_form_tell_the_size():
    weight, moment, importance = random_problem(2048, 192)
    factor, restarts = factorize(moment, 192), restarts_of(2048, 192)
    sample = draw_sample(weight, factor, importance)
    guess = expected_log2_constant(sample, factor, 4.0, trellis=True)
    curve = estimate_rate(sample, factor, guess, trellis=True)
    for octave in (-0.75, 0.0, 0.75):
        codes = solve_feedback(weight, factor, importance, 2.0 ** (guess + octave), restarts).codes
        assert curve.size_at(guess + octave) == pytest.approx(bits_of(codes, trellis=True) / 8, rel=0.01)
    plain, free = random_problem(1024, 128)[0], factorize(None, 128)
    constant = 2.0 ** expected_log2_constant(draw_sample(plain, free, None), free, 4.0, trellis=True)
    codes = solve_feedback(plain, free, None, constant, restarts_of(1024, 128)).codes
    histogram, _ = code_histogram(codes, trellis=True)
    assert histogram_bits(histogram) / plain.numel() == pytest.approx(4.0, abs=0.04)
