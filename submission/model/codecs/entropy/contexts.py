"""Context classes of a weight's rows and columns, and the density of its codes, found from the codes.

The scale of a code is taken as a row's scale times a column's, each a power of 2 ** (1 / 8): its class. Given the
columns' classes, a row's class is the one whose expected sum of |code| is nearest to the row's; then the same for
columns given rows, three times. Only the sums are read from the codes, once; all else is a matter of 128 classes.
|code| rather than its square, since few outliers would carry the sums of squares.

The density is that of maximum likelihood in the bins of `tables.py`, by expectation-maximisation over the counts of
codes in their contexts: a code covers an interval of |weight| / scale, and its count is shared among the bins of that
interval in proportion to what they hold.

Why not from the scales by which codes become weights: those follow the curvature of the loss, and a code's spread is
that of the weight over the scale. Why not one table per context: a density costs 80 bytes and loses less than the
1/8 octave of a class does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from submission.model.codecs.entropy.layout import HIGHEST_CLASS
from submission.model.codecs.entropy.tables import (
    CLASS_OFFSET,
    CONTEXTS,
    EDGE_UNIT,
    EDGES,
    HIGHEST_CODE,
    UNIT_CONTEXT,
    bounds,
    masses,
)

if TYPE_CHECKING:
    import numpy as np

CLASS_ROUNDS = 3
"""Alternations between rows and columns."""
DENSITY_ROUNDS = 2
"""Alternations between classes and density."""
DENSITY_STEPS = 30
"""Steps of expectation-maximisation."""
HIGHEST_MASS = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """What a stream says of its codes' distribution."""

    row_classes: np.ndarray
    """uint8 [rows], 0 … 127."""
    column_classes: np.ndarray
    """uint8 [columns], 0 … 127. A code's context is the sum of both classes less CLASS_OFFSET."""
    density: tuple[int, ...]
    """Mass of |code| / scale in each of 40 bins, 0 … 65535."""

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Return uint64 rows and columns whose sums begin at 0: how compiled loops index `context_range`."""
        import numpy as np

        rows, columns = self.row_classes.astype(np.uint64), self.column_classes.astype(np.uint64)
        return rows - rows.min(), columns - columns.min()


def normal_density() -> tuple[int, ...]:
    """Return the density of the normal distribution, from which fits begin."""
    below = [math.erf(edge / EDGE_UNIT / math.sqrt(2)) for edge in EDGES]
    mass = [high - low for low, high in zip(below, below[1:], strict=False)]
    return tuple(round(m / max(mass) * HIGHEST_MASS) for m in mass)


def fit_contexts(codes: np.ndarray) -> Contexts:
    """Return classes and density of codes, int32 [rows, columns]."""
    import numpy as np

    from submission.model.codecs.entropy.kernels import add_sizes

    rows, columns = codes.shape
    row_sums, column_sums = np.zeros(rows, np.int64), np.zeros(columns, np.int64)
    add_sizes(codes, row_sums, column_sums)
    density = normal_density()
    for _ in range(DENSITY_ROUNDS):
        row_classes, column_classes = _classes(row_sums, column_sums, _mean_size(density))
        contexts = Contexts(row_classes=row_classes, column_classes=column_classes, density=density)
        density = fit_density(count_contexts(codes, contexts), density)
    return Contexts(row_classes=row_classes, column_classes=column_classes, density=density)


def count_contexts(codes: np.ndarray, contexts: Contexts) -> np.ndarray:
    """Return int64 [contexts, 256]: how often code k (at k + 128; beyond 127 at 0) is in every context."""
    import numpy as np

    from submission.model.codecs.entropy.kernels import count_codes
    from submission.model.codecs.entropy.tables import context_range

    context = context_range(contexts.row_classes, contexts.column_classes)
    by_sum = np.zeros((context.size, 256), np.int64)
    count_codes(codes, *contexts.sums(), by_sum)
    counts = np.zeros((CONTEXTS, 256), np.int64)
    np.add.at(counts, context, by_sum)
    return counts


def _mean_size(density: tuple[int, ...]) -> np.ndarray:
    """Return float64 [contexts]: the mean of |code|, at most 127, in every context."""
    import numpy as np

    mass, total = masses(density)
    sizes = np.arange(HIGHEST_CODE + 1)
    return (mass @ sizes + (total - mass.sum(axis=1)) * HIGHEST_CODE) / total


def _classes(row_sums: np.ndarray, column_sums: np.ndarray, mean_size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes of rows and columns with these sums of |code|."""
    import numpy as np

    columns = np.full(column_sums.size, CLASS_OFFSET - UNIT_CONTEXT // 2, np.uint8)
    for _ in range(CLASS_ROUNDS):
        rows = _nearest_classes(row_sums, columns, mean_size)
        columns = _nearest_classes(column_sums, rows, mean_size)
    return rows, columns


def _nearest_classes(sums: np.ndarray, others: np.ndarray, mean_size: np.ndarray) -> np.ndarray:
    """Return of each sum the class whose expected sum over the classes on the other side is nearest by ratio."""
    import numpy as np

    classes = np.arange(HIGHEST_CLASS + 1)
    context = np.clip(classes[:, None] + classes[None] - CLASS_OFFSET, 0, CONTEXTS - 1)
    expected = mean_size[context] @ np.bincount(others, minlength=classes.size)
    return np.searchsorted(np.sqrt(expected[:-1] * expected[1:]), sums).astype(np.uint8)


def fit_density(counts: np.ndarray, density: tuple[int, ...]) -> tuple[int, ...]:
    """Return the density of highest likelihood of counts, [contexts, 256] as `count_contexts` has them.

    Begins from a density; where the counts say nothing of a bin, its mass stays in proportion.
    """
    import numpy as np

    beyond = counts[:, :1]
    sizes = np.concatenate([counts[:, 128:], beyond], axis=1)
    sizes[:, 1:-1] += counts[:, 127:0:-1]
    used = np.flatnonzero(sizes.sum(axis=1))
    overlap, seen = _overlaps()[used].reshape(-1, len(EDGES) - 1), sizes[used].reshape(-1)
    overlap, seen = overlap[seen > 0], seen[seen > 0].astype(np.float64)
    mass = np.maximum(np.array(density, np.float64), 1e-3)
    for _ in range(DENSITY_STEPS):
        likely = overlap @ mass
        mass = mass * (np.divide(seen, likely, out=np.zeros_like(seen), where=likely > 0) @ overlap)
        if not mass.any():
            return density
        mass *= HIGHEST_MASS / mass.sum()
    return tuple(int(m) for m in np.rint(mass * (HIGHEST_MASS / mass.max())))


def _overlaps() -> np.ndarray:
    """Return float64 [contexts, 129, bins]: the part of a bin that |code| k covers, and all codes beyond 127."""
    import numpy as np

    edges = np.array(EDGES, np.float64)
    ends = np.concatenate([bounds(), np.full((CONTEXTS, 1), EDGES[-1])], axis=1).astype(np.float64)
    within = np.clip((ends[..., None] - edges[:-1]) / np.diff(edges), 0, 1)
    return np.diff(within, axis=1, prepend=0)
