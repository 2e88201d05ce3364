"""How many bytes integer codes need: conditional entropy by context, and how it falls as the steps grow.

The context of a code is the sum of its row's and its column's class; a class is the binary logarithm of the codes' root
mean square in eighths of an octave, fitted to rows and columns in turn; with a trellis, codes of each superset are
counted apart. The contexts are those of a static arithmetic
coder with pooled tables; its stream comes within half a percent of these figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from quantize.solvers.blocks import each_alone
from quantize.solvers.feedback import (
    CHUNK_ELEMENTS,
    TRELLIS_STEP,
    InputFactor,
    mean_squares,
    resolved_importance,
    solve_resolved,
)

CONTEXTS = 64
"""Quarter octaves of the codes' root mean square; the first stands for 2 ** -7."""
SYMBOLS = 1024
"""Codes from -511 to 511; the outermost symbols are escapes."""
ESCAPE_BITS = 12
"""What a code beyond the symbols costs on top of its escape."""
SCALE_BITS = 16 + 8
"""Side information of a row or a column: a float16 scale and its class."""
SAMPLED_ROWS = 256
"""Rows of a tensor that its rate is estimated from, spread over the rows' rates."""
GRID_OCTAVES = (-1.5, -0.75, 0.0, 0.75, 1.5)
"""Constants, relative to the expected one, at which the sampled rows are solved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCurve:
    """Estimated size of a tensor's codes against the constant c."""

    log2_constants: tuple[float, ...]
    """Rising, at least two."""
    size_bytes: tuple[float, ...]
    """Falling; side information of the tensor included, tables that the model shares left out."""
    weights: int
    """Number of weights: beyond the first constant each costs one bit an octave more."""

    def size_at(self, log2_constant: float) -> float:
        """Return the size in bytes at a constant, linear between the constants measured."""
        first = self.log2_constants[0]
        if log2_constant < first:
            return self.size_bytes[0] + (first - log2_constant) * self.weights / 8
        return float(np.interp(log2_constant, self.log2_constants, self.size_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSample:
    """Some rows of a weight, from which its rate is estimated."""

    rows: torch.Tensor
    """[sampled rows, columns] in the weight's own dtype."""
    importance: torch.Tensor
    """float64 [sampled rows], floored over all rows."""
    shape: tuple[int, int]
    """Of the whole weight."""
    mean_octaves: float
    """Mean over all rows of log2(rms * sqrt(importance))."""


@njit(nogil=True, error_model="numpy")
def _fill_histogram(codes: np.ndarray, row_class: np.ndarray, column_class: np.ndarray, histogram: np.ndarray) -> int:
    """Count codes, int16 [rows, columns], into int64 [supersets, contexts, symbols]; return how many are escapes."""
    rows, columns = codes.shape
    supersets, contexts, symbols = histogram.shape
    middle = symbols // 2
    escapes = 0
    for i in range(rows):
        for j in range(columns):
            context = min(max((row_class[i] + column_class[j]) // 2 + 28, 0), contexts - 1)
            code = np.int64(codes[i, j])
            superset = code & (supersets - 1)
            code >>= supersets - 1
            if abs(code) >= middle - 1:
                escapes += 1
                code = min(max(code, 1 - middle), middle - 1)
            histogram[superset, context, code + middle] += 1
    return escapes


def code_classes(codes: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return classes of rows and of columns of codes [rows, columns]: eighths of an octave of a rank-one fit, int64."""
    chunks = codes.split(max(1, CHUNK_ELEMENTS // max(codes.shape[1], 1)))
    row = mean_squares(codes) + 1e-3
    column = torch.zeros(codes.shape[1], dtype=torch.float64)
    for chunk, inverse in zip(chunks, (1 / row).split(len(chunks[0])), strict=True):
        column += torch.mv(chunk.float().square_().t(), inverse.float())
    column = column / max(len(codes), 1) + 1e-4
    weights = (1 / (column * codes.shape[1])).float()
    row = torch.cat([torch.mv(chunk.float().square_(), weights) for chunk in chunks]).double() + 1e-4
    # log2 of the square counts twice: times 4 gives eighths of an octave of the root.
    row_class, column_class = ((side.log2() * 4).round().to(torch.int64).numpy() for side in (row, column))
    return row_class, column_class


def code_histogram(codes: torch.Tensor, *, trellis: bool = False) -> tuple[np.ndarray, int]:
    """Return how often each code occurs in each context, and the number of escapes.

    The counts are int64 [CONTEXTS, SYMBOLS]; with a trellis [2 * CONTEXTS, SYMBOLS], those of the superset 1 behind.
    """
    histogram = np.zeros((2 if trellis else 1, CONTEXTS, SYMBOLS), dtype=np.int64)
    escapes = _fill_histogram(codes.contiguous().numpy(), *code_classes(codes), histogram)
    return histogram.reshape(-1, SYMBOLS), int(escapes)


def histogram_bits(histogram: np.ndarray) -> float:
    """Return the conditional entropy of a histogram [contexts, symbols] times its count: bits under its own tables.

    Probabilities are no less than 2 ** -14, as tables of 12 to 14 bits have it.
    """
    totals = np.maximum(histogram.sum(axis=1, keepdims=True), 1)
    bits = -np.log2(np.maximum(histogram / totals, 2.0**-14))
    return float((histogram * bits).sum())


def side_bits(shape: tuple[int, int], escapes: int) -> int:
    """Return the bits of a tensor's scales, classes and escapes."""
    return SCALE_BITS * (shape[0] + shape[1]) + ESCAPE_BITS * escapes


def draw_sample(
    weight: torch.Tensor, factor: InputFactor, importance: torch.Tensor | None, *, count: int = SAMPLED_ROWS
) -> RowSample:
    """Return a sample of a weight's rows [rows, columns]; with an importance, of the factor its diagonal alone is read.

    Rows differ in rate by log2(rms * sqrt(importance)). That takes a pass over the whole weight; what is estimated from
    the sample afterwards does not.
    """
    full = resolved_importance(weight, factor, importance)
    octaves = (mean_squares(weight).clamp_min(1e-300).log2() + full.clamp_min(1e-300).log2()) / 2
    drawn = sample_rows(octaves, count=count)
    return RowSample(
        rows=weight[drawn],
        importance=full[drawn],
        shape=(weight.shape[0], weight.shape[1]),
        mean_octaves=float(octaves.mean()),
    )


def expected_log2_constant(sample: RowSample, factor: InputFactor, bits: float, *, trellis: bool = False) -> float:
    """Return log2 of the constant at which Gaussian weights need `bits` each, in closed form at a high rate.

    A Gaussian of standard deviation s in steps of d has an entropy of log2(s / d) + log2(2 pi e) / 2; s is taken
    by row, d = c / (l_jj sqrt(g_i)), with a trellis the two steps from a code of a superset to the next.
    """
    octaves = 0.5 * math.log2(2 * math.pi * math.e) - (math.log2(2 * TRELLIS_STEP) if trellis else 0)
    return sample.mean_octaves + float(factor.diagonal.log2().mean()) + octaves - bits


def sample_rows(octaves: torch.Tensor, *, count: int = SAMPLED_ROWS) -> torch.Tensor:
    """Return which rows an estimate is made from, int64, rising: quantiles of their rates in equal distances.

    octaves: float [rows], by how much the rows differ in rate. Rows differ by several bits; drawn without regard to
    that, 256 of them would give a tensor's rate to a tenth of a bit only.
    """
    rows = len(octaves)
    count = min(count, rows)
    places = (torch.arange(count, dtype=torch.int64) * rows + rows // 2) // max(count, 1)
    return octaves.argsort(stable=True)[places].sort().values


def estimate_rate(
    sample: RowSample,
    factor: InputFactor,
    log2_constant: float,
    *,
    trellis: bool = False,
    octaves: Sequence[float] = GRID_OCTAVES,
) -> RateCurve:
    """Return the size of a weight [rows, columns] at constants around 2 ** log2_constant, from a sample of its rows.

    Samples are solved as the whole is, so that what low rates feed back is in their entropy; the plug-in entropy is
    corrected for the sample's size (Miller 1955). The sample is solved at all constants at once: half the constant is,
    to a row, four times the importance.
    """
    (rows, columns), count = sample.shape, len(sample.rows)
    importances = torch.cat([sample.importance * 4.0**-octave for octave in octaves])
    restarts = tuple(range(0, len(importances), count)) if trellis else ()
    repeated = sample.rows.repeat(len(octaves), 1)
    solution = solve_resolved(repeated, factor, importances, 2.0**log2_constant, restarts)

    def size_of(codes: torch.Tensor) -> float:
        histogram, escapes = code_histogram(codes, trellis=trellis)
        occupied = (histogram > 0).sum(axis=1)
        bits = histogram_bits(histogram) + float(np.maximum(occupied - 1, 0).sum()) / (2 * math.log(2))
        return ((bits + ESCAPE_BITS * escapes) * rows / count + side_bits((rows, columns), 0)) / 8

    sizes = each_alone(size_of, solution.codes.split(count))
    falling = np.maximum.accumulate(np.array(sizes)[::-1])[::-1]
    return RateCurve(
        log2_constants=tuple(log2_constant + octave for octave in octaves),
        size_bytes=tuple(falling.tolist()),
        weights=rows * columns,
    )
