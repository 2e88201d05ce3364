"""The state machine of the trellis, paths that leave it, and where it begins again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from submission.model.codecs.entropy.contexts import fit_contexts
from submission.model.codecs.entropy.layout import RESTART_ROWS, Grid
from submission.model.codecs.entropy.stream import decode, encode, stream_bytes
from submission.model.codecs.entropy.trellis import STATES, first_stray, next_state
from tests.runtime.entropy.cases import NEXT_STATES, on_trellis, spread_codes


def test_states_follow_each_other_as_in_ungerboecks_trellis():
    found = [tuple(int(next_state(np.uint64(s), np.uint64(k))) for k in (0, 1)) for s in range(STATES)]
    assert found == list(NEXT_STATES)
    assert sorted(state for pair in found for state in pair) == sorted(2 * list(range(STATES)))


def test_paths_that_part_stay_apart():
    """Two sequences that begin and end in the same states differ by at least sqrt(10) steps: the gain of the code."""
    best = {(s, s): np.inf for s in range(STATES)}
    frontier = {}
    for state in range(STATES):
        frontier[tuple(NEXT_STATES[state])] = 4.0  # D0 against D2, D1 against D3: two steps apart
    for _ in range(20):
        extended: dict[tuple[int, int], float] = {}
        for (a, b), distance in frontier.items():
            if a == b:
                best[a, b] = min(best[a, b], distance)
                continue
            for i in (0, 1):
                for j in (0, 1):
                    apart = (2 * i + a % 2 - 2 * j - b % 2) % 4
                    pair = NEXT_STATES[a][i], NEXT_STATES[b][j]
                    total = distance + min(apart, 4 - apart) ** 2
                    extended[pair] = min(extended.get(pair, np.inf), total)
        frontier = extended
    assert min(best.values()) == 10.0


@given(st.integers(1, 20_000), st.integers(1, 300))
def test_paths_begin_with_every_block_and_stretch(rows, columns):
    grid = Grid(rows=rows, columns=columns, trellis=True)
    tops = {block.row for block in grid.blocks()}
    assert grid.restarts == tuple(
        row for row in range(rows) if row in tops or row % grid.block_rows % RESTART_ROWS == 0
    )
    assert Grid(rows=rows, columns=columns).restarts == ()


@pytest.mark.parametrize("row", [0, 511, 512, 599])
def test_a_path_that_leaves_the_trellis_is_named_by_its_row_and_not_encoded(row):
    codes = on_trellis(spread_codes(600, 40))
    restarts = np.array(Grid(rows=600, columns=40, trellis=True).restarts)
    assert first_stray(codes, restarts) == -1
    contexts = fit_contexts(codes, trellis=True)
    codes[row, 7] += 1
    assert first_stray(codes, restarts) == row
    with pytest.raises(ValueError, match=f"codes: row {row} leaves the trellis"):
        encode(codes, contexts, 1 << 20)


def test_rows_far_down_are_decoded_without_those_of_other_blocks():
    codes = on_trellis(spread_codes(9000, 40))
    contexts = fit_contexts(codes, trellis=True)
    stream = encode(codes, contexts, stream_bytes(codes, contexts))
    header_end = Grid(rows=9000, columns=40, trellis=True).classes_start
    assert header_end < stream.size
    part = decode(stream, codes.shape, trellis=True, rows=range(8000, 8001))
    assert np.array_equal(part.exact(), codes[8000:8001])


def test_a_table_for_each_superset_tells_codes_better_than_one_for_both():
    codes = on_trellis(spread_codes(2000, 200, octaves=-0.5))
    plain, apart = (stream_bytes(codes, fit_contexts(codes, trellis=trellis)) for trellis in (False, True))
    assert apart < 0.8 * plain
