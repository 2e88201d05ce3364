from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submission.model.codecs.entropy.layout import BLOCK_ROWS, LANES, Grid, fixed_bytes
from tests.runtime.entropy.cases import SHAPE, codes_and_stream

BARE = """
import sys
for name in ("numpy", "numba", "torch"):
    sys.modules[name] = None
from submission.model.codecs.entropy import contexts, exceptions, layout, stream, tables
data = sys.stdin.buffer.read()
header = layout.check_header(data, {rows}, {columns}, len(data))
print(header.exceptions, header.used_bytes, layout.fixed_bytes({rows}, {columns}))
"""


def test_sizes_and_header_are_checked_on_a_bare_python():
    code, (_, stream) = BARE.format(rows=SHAPE[0], columns=SHAPE[1]), codes_and_stream()
    done = subprocess.run([sys.executable, "-c", code], input=stream, capture_output=True, check=True)
    exceptions, used, fixed = map(int, done.stdout.split())
    assert exceptions >= 3 and used == len(stream) - 10 and fixed == fixed_bytes(*SHAPE)


@given(st.integers(1, 30_000), st.integers(1, 30_000))
def test_blocks_cover_every_code_once_and_none_is_tall(rows, columns):
    grid = Grid(rows=rows, columns=columns)
    assert grid.block_rows <= BLOCK_ROWS and grid.block_columns % LANES == 0
    lower, right = grid.block(grid.count - 1), grid.block(0)
    assert (lower.row + lower.rows, lower.column + lower.columns) == (rows, columns)
    assert (right.row, right.column) == (0, 0)
    assert sum(block.rows * block.columns for block in grid.blocks()) == rows * columns


def test_a_7b_weight_has_blocks_enough_for_many_cores():
    assert Grid(rows=4096, columns=4096).count == 64
    assert Grid(rows=11008, columns=4096).block_rows == 3670


@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (5, 0), (2**33, 1), (2**21, 2**20)])
def test_a_shape_that_no_weight_has_is_refused(rows, columns):
    with pytest.raises(ValueError, match="^(rows|columns): "):
        fixed_bytes(rows, columns)
