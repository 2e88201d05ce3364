"""The compiled loops against the same methods written down the slow way, one group at a time in float64."""

from __future__ import annotations

import numpy as np
import pytest

from quantize.solvers.hqq_kernels import refit_groups, solve_groups

ITERATIONS = 20


def hqq_by_the_book(group: np.ndarray, top: int, updates: int) -> tuple[np.ndarray, float, float, list[float]]:
    """Codes, codes per unit of weight, zero-point, and the sum of absolute errors before each update."""
    steps = min(top / (group.max() - group.min()), 2e4)
    zero = -group.min() * steps
    sums = []
    for _ in range(updates):
        codes = np.clip(np.rint(group * steps + zero), 0, top)
        errors = group - (codes - zero) / steps
        sizes = np.abs(errors)
        shrunk = np.sign(errors) * np.maximum(sizes - np.maximum(sizes, 1e-30) ** -0.3 / 10, 0)
        zero = np.mean(codes - (group - shrunk) * steps)
        sums.append(float(sizes.sum()))
    return np.clip(np.rint(group * steps + zero), 0, top), steps, zero, sums


def run(weights: np.ndarray, group_size: int, top: int, limits: tuple[int, int], state: dict | None = None) -> dict:
    """The kernel's outputs, filled in place where `state` has those of a call before."""
    rows, groups = len(weights), -(-weights.shape[1] // group_size)
    state = state or {
        "scale": np.empty((rows, groups), np.float32),
        "zero": np.empty((rows, groups), np.float32),
        "codes": np.empty(weights.shape, np.uint8),
        "taken": np.full((rows, groups), ITERATIONS + 1, np.uint8),
        "errors": np.zeros((rows, 2, ITERATIONS)),
    }
    state["bad"] = solve_groups(
        weights, group_size, np.float32(top), False, np.array(limits), *(state[n] for n in list(state)[:5])
    )
    return state


def drawn(rows: int, columns: int, size: float) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((rows, columns)).astype(np.float32) * np.float32(size)


@pytest.mark.parametrize("size", [0.02, 1.0, 20.0])  # the last two let the shrinkage work
@pytest.mark.parametrize("top", [3, 7, 15])
def test_every_group_is_solved_by_the_book(size, top):
    weights = drawn(6, 150, size)
    state = run(weights, 64, top, (ITERATIONS, ITERATIONS))
    for row in range(6):
        for group, (begin, end) in enumerate([(0, 64), (64, 128), (128, 150)]):
            codes, steps, zero, _ = hqq_by_the_book(weights[row, begin:end].astype(np.float64), top, ITERATIONS)
            assert state["scale"][row, group] == pytest.approx(1 / steps, rel=1e-6)
            assert state["zero"][row, group] == pytest.approx(zero, abs=1e-4)
            assert (state["codes"][row, begin:end] == codes).all()


def test_the_errors_are_tallied_as_changes_by_row_and_piece():
    weights = drawn(5, 150, 1.0)
    tally = run(weights, 64, 7, (ITERATIONS, ITERATIONS))["errors"].cumsum(axis=2)
    for row, values in enumerate(weights.astype(np.float64)):
        *whole, tail = (np.array(hqq_by_the_book(group, 7, ITERATIONS)[3]) for group in np.split(values, [64, 128]))
        assert tally[row, 0] == pytest.approx(sum(whole), rel=1e-5)
        assert tally[row, 1] == pytest.approx(tail, rel=1e-5)


def test_lower_limits_solve_again_what_went_too_far_and_leave_the_rest():
    weights = drawn(40, 300, 0.02)
    state = run(weights, 64, 15, (ITERATIONS, ITERATIONS))
    scale_before, taken_before = state["scale"].copy(), state["taken"].copy()
    still = np.pad(taken_before[:, :4] <= 3, ((0, 0), (0, 1)), constant_values=True)
    assert still.any() and not still.all()
    state["scale"][still] = -1  # a mark: these are not to be written
    run(weights, 64, 15, (3, ITERATIONS), state)
    assert (state["scale"][still] == -1).all()
    assert (state["scale"][~still] == scale_before[~still]).all()
    for row, group in np.argwhere(~still):
        values = weights[row, group * 64 : (group + 1) * 64].astype(np.float64)
        assert state["zero"][row, group] == pytest.approx(hqq_by_the_book(values, 15, 3)[2], abs=1e-4)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_the_row_of_a_number_that_is_not_finite_is_returned(number):
    weights = drawn(4, 64, 0.02)
    assert run(weights, 64, 15, (ITERATIONS, ITERATIONS))["bad"] == -1
    weights[2, 63] = number
    assert run(weights, 64, 15, (ITERATIONS, ITERATIONS))["bad"] == 2


def test_a_refitted_group_is_the_regression_of_its_weights_on_its_codes():
    weights = drawn(3, 150, 0.02)
    state = run(weights, 64, 7, (ITERATIONS, ITERATIONS))
    refit_groups(weights, 64, np.float32(7), state["scale"], state["zero"], state["codes"])
    for row in range(3):
        for group, (begin, end) in enumerate([(0, 64), (64, 128), (128, 150)]):
            codes, values = state["codes"][row, begin:end], weights[row, begin:end].astype(np.float64)
            scale, zero = (float(state[name][row, group]) for name in ("scale", "zero"))
            slope, origin = np.polyfit(codes.astype(np.float64), values, 1)
            assert scale == pytest.approx(slope, rel=1e-4) and zero == pytest.approx(-origin / slope, rel=1e-3)
            nearest = np.clip(np.rint(values / scale + zero), 0, 7)
            assert (codes == nearest).all()
