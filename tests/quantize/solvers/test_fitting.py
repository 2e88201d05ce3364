"""The search for steps: what chunks, threads and samples must not change, and how a budget is used up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantize.solvers.blocks import each_alone
from quantize.solvers.feedback import Moments, chunks_of, factorize, rescale_rows, solve_feedback
from quantize.solvers.fitting import FILL_OCTAVES, TOLERANCE, fill_window, solve_entropy
from quantize.solvers.rate import draw_sample, estimate_rate
from quantize.solvers.trellis_kernels import LANES, interleave
from submission.model.codecs.entropy.contexts import fit_contexts
from submission.model.codecs.entropy.layout import Grid
from submission.model.codecs.entropy.stream import stream_bytes
from submission.model.codecs.entropy.trellis import first_stray
from tests.quantize.solvers.support import random_problem


def restarts_of(rows: int, columns: int, trellis: bool) -> tuple[int, ...]:
    return Grid(rows=rows, columns=columns, trellis=trellis).restarts


def stored_bytes(codes: torch.Tensor, trellis: bool) -> int:
    array = codes.contiguous().numpy()
    return stream_bytes(array, fit_contexts(array, trellis=trellis))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("trellis", [False, True])
def test_any_number_of_threads_finds_the_same_codes(trellis, threads, monkeypatch):
    monkeypatch.setattr("quantize.solvers.feedback.SOLVED_ROWS", 520)  # three chunks
    monkeypatch.setattr("quantize.solvers.feedback.SOLVED_ELEMENTS", 1)
    weight, moment, importance = random_problem(1300, 130)
    factor, restarts = factorize(moment, 130), restarts_of(1300, 130, trellis)
    found = []
    for count in (1, 3):
        threads(count)
        found.append(solve_feedback(weight, factor, importance, 0.05, restarts))
        assert torch.get_num_threads() == count
    assert torch.equal(found[0].codes, found[1].codes)


def test_threads_are_given_back_after_an_error(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        each_alone(lambda part: 1 // part, [1, 0, 2])
    assert torch.get_num_threads() == 2


@given(st.integers(1, 9000), st.booleans())
def test_chunks_cover_all_rows_and_end_where_a_trellis_begins_again(rows, trellis):
    restarts = restarts_of(rows, 64, trellis)
    chunks = chunks_of(slice(0, rows), restarts, 1 << 13)
    assert [row for chunk in chunks for row in range(chunk.start, chunk.stop)] == list(range(rows))
    assert not trellis or {chunk.start for chunk in chunks} <= set(restarts)


@given(st.integers(1, 9000))
def test_stretches_of_a_group_have_one_length_and_every_row_is_in_one(rows):
    restarts = restarts_of(rows, 64, True)
    order, groups = interleave(restarts, rows)
    assert np.array_equal(np.sort(order), np.arange(rows))
    for first, length, lanes in groups.tolist():
        assert lanes <= LANES
        together = order[first : first + length * lanes].reshape(length, lanes)
        assert set(together[0]) <= set(restarts) and (np.diff(together, axis=0) == 1).all()


@pytest.mark.parametrize("trellis", [False, True])
@pytest.mark.parametrize("miss", [-0.006, 0.006])
def test_a_part_of_the_rows_uses_up_a_budget_that_was_nearly_met(trellis, miss):
    weight, moment, importance = random_problem(2048, 64)
    factor, restarts = factorize(moment, 64), restarts_of(2048, 64, trellis)
    before = solve_feedback(weight, factor, importance, 0.005, restarts)
    size = stored_bytes(before.codes, trellis)
    window = round(size * (1 + miss)), round(size * (1 + miss + 2e-3))
    codes, scale = before.codes.clone(), before.row_scale
    found, filled = fill_window(
        weight, factor, before, restarts, lambda solution: stored_bytes(solution.codes, trellis), window
    )
    assert window[0] <= filled == stored_bytes(found.codes, trellis) <= window[1]
    changed = (found.codes != codes).any(dim=1).nonzero().flatten()
    assert 0 < int(changed.max()) < 1024, "the other half is not solved again"
    assert ((found.row_scale.float() / scale.float()).log2().abs() <= 2.1 * FILL_OCTAVES).all()
    assert not trellis or first_stray(found.codes.contiguous().numpy(), np.array(restarts)) == -1


def test_a_budget_that_is_far_away_is_left_to_the_search():
    weight, moment, importance = random_problem(1024, 64)
    before = solve_feedback(weight, factorize(moment, 64), importance, 0.02)
    found, size = fill_window(weight, factorize(moment, 64), before, (), lambda _: 1000, (2000, 2009))
    assert found is before and size == 1000


def test_rows_that_are_solved_again_are_those_of_their_own_steps():
    weight, moment, importance = random_problem(600, 70)
    factor = factorize(moment, 70)
    solution = solve_feedback(weight, factor, importance, 0.02)
    halved = rescale_rows(weight, factor, solution, (), slice(0, 300), 0.5)
    assert torch.equal(halved.row_scale[:300] * 2, solution.row_scale[:300])
    assert torch.equal(halved.row_scale[300:], solution.row_scale[300:])
    expected = solve_feedback(weight, factor, importance, 0.01)
    assert (halved.codes[:300] != expected.codes[:300]).float().mean() < 1e-3


@pytest.mark.parametrize("trellis", [False, True])
def test_a_sample_at_all_constants_at_once_is_that_at_each(trellis):
    weight, moment, importance = random_problem(700, 96)
    factor, octaves = factorize(moment, 96), (-1.5, 0.0, 1.5)
    sample = draw_sample(weight, factor, importance)
    together = estimate_rate(sample, factor, -5.0, trellis=trellis, octaves=octaves)
    for octave, size in zip(octaves, together.size_bytes, strict=True):
        apart = estimate_rate(sample, factor, -5.0 + octave, trellis=trellis, octaves=(0.0, 9.0))
        assert size == pytest.approx(apart.size_bytes[0], rel=2e-3)


@pytest.mark.parametrize("trellis", [False, True])
def test_a_large_weight_is_solved_once_and_uses_its_budget(trellis):
    weight, moment, importance = random_problem(2048, 128)
    sizes = []

    def size_of(codes):
        sizes.append(stored_bytes(codes, trellis))
        return sizes[-1]

    budget = weight.numel() * 3 // 8
    moments = Moments(second_moment=moment, importance=importance)
    solution = solve_entropy(weight, size_of, budget, restarts_of(2048, 128, trellis), moments=moments)
    assert (1 - TOLERANCE) * budget <= stored_bytes(solution.codes, trellis) <= budget
    assert len(sizes) <= 6
