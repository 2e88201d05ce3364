"""Codes as weights have them, for the tests of entropy coding."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from submission.model.codecs.entropy.contexts import fit_contexts
from submission.model.codecs.entropy.layout import RESTART_ROWS, Grid
from submission.model.codecs.entropy.stream import encode, stream_bytes

SHAPE = (90, 70)
"""Of the codes of `codes_and_stream`."""
NEXT_STATES = ((0, 2), (5, 7), (1, 3), (4, 6), (2, 0), (7, 5), (3, 1), (6, 4))
"""Of every state the one that follows after D0 or D1, and after D2 or D3."""


def spread_codes(rows: int, columns: int, *, octaves: float = 1.5, spread: float = 0.5, seed: int = 0) -> np.ndarray:
    """Return int32 codes, Student's t with 5 degrees of freedom times a scale per row and per column."""
    generator = np.random.default_rng(seed)
    row, column = (generator.normal(0, spread, n) for n in (rows, columns))
    values = generator.standard_t(5, (rows, columns)) * 2.0 ** (octaves + row[:, None] + column)
    return np.rint(values).astype(np.int32)


def on_trellis(codes: np.ndarray) -> np.ndarray:
    """Return int32 codes [rows, columns] that follow the trellis, each at most one from the given one."""
    following, codes = np.array(NEXT_STATES), codes.astype(np.int64)
    grid = Grid(rows=codes.shape[0], columns=codes.shape[1], trellis=True)
    states = np.zeros(grid.columns, np.int64)
    for row in range(grid.rows):
        if row % grid.block_rows % RESTART_ROWS == 0:
            states[:] = 0
        codes[row] += (codes[row] - states) % 2 * np.where(codes[row] > 0, -1, 1)
        states = following[states, codes[row] % 4 // 2]
    return codes.astype(np.int32)


def codes_and_stream(*, trellis: bool = False) -> tuple[np.ndarray, bytes]:
    """Return codes with exceptions near and far, and their stream with ten bytes of padding."""
    codes = spread_codes(*SHAPE)
    codes[3, 5], codes[60, 69], codes[89, 0] = 100, -5000, 2**31 - 1
    codes = on_trellis(codes) if trellis else codes
    contexts = fit_contexts(codes, trellis=trellis)
    return codes, encode(codes, contexts, stream_bytes(codes, contexts) + 10).tobytes()


@st.composite
def weights(draw, most_rows=60, most_columns=150):
    """Codes of any shape and scale, with outliers as large as int32 allows."""
    rows, columns = draw(st.integers(1, most_rows)), draw(st.integers(1, most_columns))
    octaves = draw(st.sampled_from([-8.0, -1.0, 1.5, 4.0, 9.0]))
    codes = spread_codes(rows, columns, octaves=octaves, spread=draw(st.sampled_from([0, 0.5, 3])))
    codes = np.clip(codes, -(2**31), 2**31 - 1).astype(np.int32)
    for value in draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)):
        codes[draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))] = value
    return codes
