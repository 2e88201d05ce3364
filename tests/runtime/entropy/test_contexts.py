from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from submission.model.codecs.entropy.contexts import count_sums, fit_contexts, normal_density, unshifted_contexts
from submission.model.codecs.entropy.stream import stream_bytes
from submission.model.codecs.entropy.tables import CONTEXTS, EDGES, REACH_SLOTS, ROOTS, masses, tables
from tests.runtime.entropy.cases import on_trellis, spread_codes, weights

densities = st.lists(st.integers(0, 65535), min_size=40, max_size=40).filter(any).map(tuple)


@given(densities, st.sampled_from([None, 0, 1]))
def test_every_code_within_the_reach_has_a_slot_and_all_slots_are_taken(density, superset):
    found = tables(density, superset)
    code = np.arange(256) - 128
    held = np.where(code < 0, -code - (superset or 0), code) <= found.reach[:, None]
    assert held[:, [128, 129]].all()  # what is written for the codes beyond
    assert (found.frequency.sum(axis=1) == 4096).all() and np.array_equal(found.frequency > 0, held)
    assert found.frequency.max() < 4096 and found.reach.max() <= 127
    slots = found.decoding()
    assert np.array_equal(slots >> 8 & 4095, np.take_along_axis(found.frequency, (slots & 255).astype(int), axis=1))


@given(densities, st.integers(0, CONTEXTS - 1), st.sampled_from([None, 0, 1]))
def test_slots_are_shared_by_what_masses_exceed_a_slot_by(density, context, superset):
    mass, total = masses(density, superset or 0)
    sizes = [int(found) * (2 if size + (superset or 0) == 0 else 1) for size, found in enumerate(mass[context])]
    likely = [size for size, whole in enumerate(sizes) if whole * 4096 * REACH_SLOTS >= 2 * total]
    last = min(max([1, *likely]), 127 - (superset or 0))
    codes = range(-last - (superset or 0), last + 1)
    excess = [max(sizes[code if code >= 0 else -code - (superset or 0)] * 4096 - 2 * total, 0) for code in codes]
    if not any(excess):
        excess[len(excess) // 2] = 1
    whole = sum(excess)
    ends = [(sum(excess[:end]) * (4096 - len(codes)) + whole // 2) // whole for end in range(len(codes) + 1)]
    found = tables(density, superset)
    assert found.reach[context] == last
    row = found.frequency[context].tolist()
    assert [row[128 + code] for code in codes] == [1 + b - a for a, b in pairwise(ends)] and sum(row) == 4096


@given(densities, st.integers(0, CONTEXTS - 1), st.sampled_from([0, 1]))
def test_masses_are_the_integral_of_the_density(density, context, superset):
    found, total = masses(density, superset)
    scale = Fraction(ROOTS[context % 8], 32768) * Fraction(2) ** (context // 8 - 4)

    def below(size: Fraction) -> Fraction:
        ends = zip(EDGES, EDGES[1:], strict=False)
        return sum(
            (Fraction(mass) * min(max((size * 4096 - low) / (high - low), 0), 1))
            for mass, (low, high) in zip(density, ends, strict=True)
        )

    assert total == 256 * sum(density)
    for code in (0, 1, 5, 127):
        end = code + Fraction(1 + superset, 2)
        exact = 256 * (below(end / scale) - (below((end - 1) / scale) if code else 0))
        assert abs(found[context, code] - exact) <= 2 + 256 * 65535 / 512 * 2


@pytest.mark.parametrize("context", [24, 32, 44, 56])
def test_the_normal_density_gives_the_normal_distributions_frequencies(context):
    scale = 2.0 ** ((context - 32) / 8)
    frequency = tables(normal_density()).frequency[context]
    for code in range(6):
        ends = (math.erf((code + d) / scale / math.sqrt(2)) / 2 for d in (-0.5, 0.5))
        low, high = ends
        assert frequency[128 + code] == pytest.approx(max(1, 4096 * (high - low)), rel=0.02, abs=1.5)


def test_tables_are_pinned():
    density = normal_density()
    assert hashlib.sha256(tables(density).frequency.astype("<u2").tobytes()).hexdigest() == GOLDEN


GOLDEN = "cbac937f37a82ddc1becb49f323a698e69ee179b7f8324d9a26747a8f61dbe04"


def test_classes_follow_the_scales_of_rows_and_columns():
    generator = np.random.default_rng(1)
    row, column = generator.integers(-6, 7, 500), generator.integers(-6, 7, 400)
    codes = np.rint(generator.normal(size=(500, 400)) * 2.0 ** (2 + (row[:, None] + column) / 8)).astype(np.int32)
    contexts = fit_contexts(codes)
    for found, given_ in ((contexts.row_classes, row), (contexts.column_classes, column)):
        offset = found.astype(int) - given_
        assert np.abs(offset - np.median(offset)).max() <= 2
        assert (np.abs(offset - np.median(offset)) <= 1).mean() > 0.98


def test_a_fit_is_the_same_whatever_was_fitted_before():
    codes = spread_codes(300, 200)
    first = fit_contexts(codes)
    fit_contexts(spread_codes(64, 64, octaves=4))
    again = fit_contexts(codes)
    assert np.array_equal(first.row_classes, again.row_classes) and first.densities == again.densities


def test_a_sum_of_classes_has_the_nearest_context_and_its_shift():
    contexts = unshifted_contexts(
        np.array([0, 127], np.uint8), np.array([0, 127], np.uint8), np.zeros(2, int), (normal_density(),)
    )
    found = contexts.sum_contexts()
    assert found.size == 255 and found[0] == 0 and found[80 + 32] == 32 and found[-1] == CONTEXTS - 1
    shifts = contexts.shifts.copy()
    shifts[[0, 80 + 32, 254]] = 60, 67, 127
    assert replace(contexts, shifts=shifts).sum_contexts()[[0, 80 + 32, 254]].tolist() == [0, 35, CONTEXTS - 1]


def test_contexts_that_no_stream_can_store_are_refused():
    contexts = fit_contexts(spread_codes(20, 30))
    with pytest.raises(ValueError, match="row_classes: one is above 127"):
        replace(contexts, row_classes=contexts.row_classes + np.uint8(100))
    with pytest.raises(ValueError, match="centres: they are not"):
        replace(contexts, centres=contexts.centres + 64)
    with pytest.raises(ValueError, match="shifts: 1 where classes have"):
        replace(contexts, shifts=contexts.shifts[:1])


def test_shifts_shorten_streams_of_weights_whose_scales_are_no_products():
    generator = np.random.default_rng(2)
    row, column = 2.0 ** generator.normal(1, 1, (2000, 1)), 2.0 ** generator.normal(1, 1, 96)
    codes = np.rint(generator.normal(size=(2000, 96)) * np.hypot(row, column)).astype(np.int32)
    contexts = fit_contexts(codes)
    plain = unshifted_contexts(contexts.row_classes, contexts.column_classes, contexts.centres, contexts.densities)
    assert stream_bytes(codes, contexts) < 0.998 * stream_bytes(codes, plain)


def test_columns_that_do_not_lie_around_zero_cost_no_more_than_those_that_do():
    codes, offset = spread_codes(2000, 96), np.random.default_rng(3).integers(-50, 51, 96, dtype=np.int32)
    contexts = fit_contexts(codes + offset)
    assert np.abs(contexts.centres - offset).max() <= 1
    assert stream_bytes(codes + offset, contexts) < 1.01 * stream_bytes(codes, fit_contexts(codes))


@given(weights(most_rows=20, most_columns=20), st.booleans())
def test_residuals_are_counted_by_the_sum_of_their_classes_and_their_superset(codes, trellis):
    codes = on_trellis(np.clip(codes, -(2**31) + 1, 2**31 - 2)) if trellis else codes
    contexts = fit_contexts(codes, trellis=trellis)
    expected = np.zeros((contexts.shifts.size, 2 if trellis else 1, 256), np.int64)
    lowest = int(contexts.row_classes.min()) + int(contexts.column_classes.min())
    for (row, column), code in np.ndenumerate(codes.astype(np.int64)):
        superset, index = (code & 1, code >> 1) if trellis else (0, code)
        residual = index - contexts.centres[column]
        held = abs(code) <= 127 and -127 <= residual <= 127 - superset
        total = int(contexts.row_classes[row]) + int(contexts.column_classes[column]) - lowest
        expected[total, superset, residual + 128 if held else 0] += 1
    assert np.array_equal(count_sums(codes, contexts), expected)


@pytest.mark.parametrize("trellis", [False, True])
def test_any_number_of_threads_finds_the_same_contexts(trellis):
    codes = spread_codes(130, 70)
    codes = on_trellis(codes) if trellis else codes
    one, three = (fit_contexts(codes, trellis=trellis, workers=workers) for workers in (1, 3))
    assert one.densities == three.densities
    for name in ("row_classes", "column_classes", "centres", "shifts"):
        assert np.array_equal(getattr(one, name), getattr(three, name))
