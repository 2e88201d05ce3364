"""Context classes of a weight's rows and columns, and the density of its codes, found from the codes.

The scale of a code is taken as a row's scale times a column's, each a power of 2 ** (1 / 8): its class. Given the
columns' classes, a row's class is the one whose expected sum of |code| is nearest to the row's; then the same for
columns given rows, three times. Only the sums are read from the codes, once; all else is a matter of 128 classes.
|code| rather than its square, since few outliers would carry the sums of squares.

The density is that of maximum likelihood in the bins of `tables.py`, by expectation-maximisation over the counts of
codes in their contexts: a code covers an interval of |weight| / scale, and its count is shared among the bins of that
interval in proportion to what they hold.

Where scales are no products (columns of an embedding that all rows share an offset in), the spread of codes follows
the sum of both classes less steeply than 2 ** (1 / 8). So the context of every sum is stored: the one that makes the
codes of that sum shortest, as a shift against sum - CLASS_OFFSET.

With a trellis the size of a code v is |v| // 2: in the superset of even numbers its index, and in that of odd numbers
how many are nearer to 0. Both supersets share classes and shifts; the density of each is its own, since the path
prefers even numbers where codes are small.

Columns that do not lie around 0 are coded less their mean, rounded to a code: a real embedding's stream is 3.5 %
shorter for it; for linears it changes nothing.

Why not from the scales by which codes become weights: those follow the curvature of the loss, while the spread of
codes is the weight's over the scale's. Leaving the weight's rows and columns out makes streams of a real attention
projection 3 to 7 % longer and of an embedding 7 to 12 %; classes cost 2 to 4 bits each. Why not one table per context:
a density costs 80 bytes, and streams are within 0.1 % of tables that cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from submission.model.codecs.entropy.classes import HIGHEST_NUMBER
from submission.model.codecs.entropy.parts import map_parts, row_parts
from submission.model.codecs.entropy.tables import (
    CONTEXTS,
    EDGE_UNIT,
    EDGES,
    HIGHEST_CODE,
    UNIT_CONTEXT,
    Tables,
    bounds,
    masses,
    tables,
)

if TYPE_CHECKING:
    import numpy as np

CLASS_OFFSET = 80
"""A sum of a row and a column class whose shift is none has the context sum - CLASS_OFFSET, brought into range."""
NO_SHIFT = 64
CENTRE = 64
"""A stored number for a centre of 0."""
TRELLIS_CENTRE = 60
"""Largest centre with a trellis: the four codes around twice as much are within 127."""
MOST_SHIFT = 16
"""Contexts by which the fit may shift a sum."""
CLASS_ROUNDS = 3
"""Alternations between rows and columns."""
SHIFT_BITS = 2
"""Bits for each step of a shift, about, so that sums of few codes have none."""
DENSITY_ROUNDS = 2
"""Alternations between classes and density, and then between shifts and density."""
DENSITY_STEPS = 30
"""Steps of expectation-maximisation."""
HIGHEST_MASS = 65535
EXCEPTION_BITS = 28
"""Bits of an exception beside the code that stands for it: what the choice of shifts reckons with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """What a stream says of its codes' distribution."""

    row_classes: np.ndarray
    """uint8 [rows], 0 … 127."""
    column_classes: np.ndarray
    """uint8 [columns], 0 … 127."""
    shifts: np.ndarray
    """uint8, for every sum of both from the lowest to the highest: 64 and the shift of its context."""
    centres: np.ndarray
    """int64 [columns], -64 … 63: what codes of a column, or with a trellis their indexes, are coded as differences
    from."""
    densities: tuple[tuple[int, ...], ...]
    """Mass of |code - centre| / scale in each of 40 bins, 0 … 65535: one density, or one for each superset."""

    def __post_init__(self) -> None:
        for name in ("row_classes", "column_classes", "shifts"):
            if int(getattr(self, name).max()) > HIGHEST_NUMBER:
                raise ValueError(f"{name}: one is above {HIGHEST_NUMBER}; bring them into 0 … {HIGHEST_NUMBER}")
        if (
            self.centres.size != self.column_classes.size
            or not -CENTRE <= self.centres.min() <= self.centres.max() < CENTRE
        ):
            raise ValueError(
                f"centres: they are not one of -{CENTRE} … {CENTRE - 1} for every column; bring them there"
            )
        sums = sum(int(classes.max()) - int(classes.min()) for classes in (self.row_classes, self.column_classes)) + 1
        if self.shifts.size != sums:
            raise ValueError(f"shifts: {self.shifts.size} where classes have {sums} sums; give one for each")

    @property
    def trellis(self) -> bool:
        """Whether the codes follow a trellis."""
        return len(self.densities) == 2

    def tables(self) -> list[Tables]:
        """Return the tables of the density, or of each superset's."""
        supersets = (0, 1) if self.trellis else (None,)
        return [tables(density, superset) for density, superset in zip(self.densities, supersets, strict=True)]

    def by_place(self, rows_of: Callable[[Tables], np.ndarray]) -> np.ndarray:
        """Return rows of tables in the order of places: for every sum of classes that of each superset.

        rows_of: a table -> [contexts, …].
        """
        import numpy as np

        context = self.sum_contexts()
        found = np.stack([rows_of(table)[context] for table in self.tables()], axis=1)
        return np.ascontiguousarray(found.reshape(-1, *found.shape[2:]))

    def indexes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return uint64 rows and columns whose sums, plus the superset, are places: what compiled loops take."""
        import numpy as np

        rows, columns = self.row_classes.astype(np.uint64), self.column_classes.astype(np.uint64)
        supersets = np.uint64(len(self.densities))
        return (rows - rows.min()) * supersets, (columns - columns.min()) * supersets

    def sum_contexts(self) -> np.ndarray:
        """Return int64: the context of every sum of a row and a column class, from the lowest sum to the highest."""
        shifted: np.ndarray = self.unshifted() + self.shifts - NO_SHIFT
        return shifted.clip(0, CONTEXTS - 1)

    def unshifted(self) -> np.ndarray:
        """Return int64: the contexts of sums if there were no shifts."""
        import numpy as np

        lowest = int(self.row_classes.min()) + int(self.column_classes.min())
        return np.clip(np.arange(lowest, lowest + self.shifts.size) - CLASS_OFFSET, 0, CONTEXTS - 1)


def unshifted_contexts(
    row_classes: np.ndarray, column_classes: np.ndarray, centres: np.ndarray, densities: tuple[tuple[int, ...], ...]
) -> Contexts:
    """Return contexts that follow from the classes alone."""
    import numpy as np

    sums = int(np.ptp(row_classes)) + int(np.ptp(column_classes)) + 1
    shifts = np.full(sums, NO_SHIFT, np.uint8)
    return Contexts(
        row_classes=row_classes, column_classes=column_classes, centres=centres, shifts=shifts, densities=densities
    )


def normal_density() -> tuple[int, ...]:
    """Return the density of the normal distribution, from which fits begin."""
    below = [math.erf(edge / EDGE_UNIT / math.sqrt(2)) for edge in EDGES]
    mass = [high - low for low, high in zip(below, below[1:], strict=False)]
    return tuple(round(m / max(mass) * HIGHEST_MASS) for m in mass)


def fit_contexts(codes: np.ndarray, *, trellis: bool = False, workers: int = 1) -> Contexts:
    """Return classes and densities of codes, int16 or int32 [rows, columns] in row-major order, by so many threads."""
    import numpy as np

    from submission.model.codecs.entropy.kernels import add_codes, add_sizes

    rows, columns = codes.shape
    row_sums = np.zeros(rows, np.int64)

    def sum_codes(part: slice) -> np.ndarray:
        sums = np.zeros(columns, np.int64)
        add_codes(codes[part], sums)
        return sums

    def sum_sizes(part: slice) -> np.ndarray:
        sums = np.zeros(columns, np.int64)
        add_sizes(codes[part], centres, trellis, row_sums[part], sums)
        return sums

    column_sums = _added(sum_codes, rows, workers)
    most = TRELLIS_CENTRE if trellis else CENTRE - 1
    means = column_sums / (2 * rows if trellis else rows)
    centres = np.clip(np.rint(means), -most, most).astype(np.int64)
    column_sums = _added(sum_sizes, rows, workers)
    densities = (normal_density(),) * (2 if trellis else 1)
    for _ in range(DENSITY_ROUNDS):
        contexts = unshifted_contexts(*_classes(row_sums, column_sums, _mean_size(densities)), centres, densities)
        by_sum = count_sums(codes, contexts, workers=workers)
        densities = _fit_densities(by_sum, contexts)
    for _ in range(DENSITY_ROUNDS):
        contexts = replace(contexts, densities=densities)
        contexts = replace(contexts, shifts=_shifts(by_sum, contexts))
        densities = _fit_densities(by_sum, contexts)
    return replace(contexts, densities=densities)


def _added(work: Callable[[slice], np.ndarray], rows: int, workers: int) -> np.ndarray:
    """Return the sum of what work finds in parts of the rows, shared among so many threads."""
    found = map_parts(work, row_parts(rows, workers), workers)
    total = found[0]
    for other in found[1:]:
        total += other
    return total


def count_sums(codes: np.ndarray, contexts: Contexts, *, workers: int = 1) -> np.ndarray:
    """Return int64 [sums, supersets, 256]: how often residual k (at k + 128; exceptions at 0) has a sum of classes."""
    import numpy as np

    from submission.model.codecs.entropy.kernels import count_codes

    supersets = len(contexts.densities)
    row_indexes, column_indexes = contexts.indexes()

    def count(part: slice) -> np.ndarray:
        by_place = np.zeros((contexts.shifts.size * supersets, 256), np.int64)
        count_codes(codes[part], row_indexes[part], column_indexes, contexts.centres, contexts.trellis, by_place)
        return by_place

    return _added(count, len(codes), workers).reshape(-1, supersets, 256)


def coded_bits(codes: np.ndarray, contexts: Contexts) -> float:
    """Return the bits of codes in a payload, by the tables of their contexts."""
    by_sum = count_sums(codes, contexts).reshape(-1, 256)
    return float((by_sum * contexts.by_place(lambda table: table.cost())).sum())


def _fit_densities(by_sum: np.ndarray, contexts: Contexts) -> tuple[tuple[int, ...], ...]:
    """Return the densities of highest likelihood of counts by sums, from those of the contexts on."""
    import numpy as np

    counts = np.zeros((CONTEXTS, *by_sum.shape[1:]), np.int64)
    np.add.at(counts, contexts.sum_contexts(), by_sum)
    return tuple(
        fit_density(counts[:, superset], density, superset) for superset, density in enumerate(contexts.densities)
    )


def _shifts(by_sum: np.ndarray, contexts: Contexts) -> np.ndarray:
    """Return the shift of every sum to the context in which its codes take the fewest bits; none for no codes."""
    import numpy as np

    bits: np.ndarray = np.zeros((len(by_sum), CONTEXTS))
    for superset, found in enumerate(contexts.tables()):
        bits += by_sum[:, superset] @ (found.cost() + EXCEPTION_BITS * (found.frequency == 0)).T
    plain = contexts.unshifted()
    shifts = np.arange(CONTEXTS) - plain[:, None]
    bits += SHIFT_BITS * np.abs(shifts)
    best = np.where(np.abs(shifts) <= MOST_SHIFT, bits, np.inf).argmin(axis=1)
    return np.where(by_sum.any(axis=(1, 2)), best - plain + NO_SHIFT, NO_SHIFT).astype(np.uint8)


def _mean_size(densities: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Return float64 [contexts]: the mean size of a code, at most 127, in every context."""
    import numpy as np

    sizes, means = np.arange(HIGHEST_CODE + 1), np.zeros(CONTEXTS)
    for superset, density in enumerate(densities):
        mass, total = masses(density, superset)
        means += (mass @ sizes + (total - mass.sum(axis=1)) * HIGHEST_CODE) / (total * len(densities))
    return means


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

    classes = np.arange(HIGHEST_NUMBER + 1)
    context = np.clip(classes[:, None] + classes[None] - CLASS_OFFSET, 0, CONTEXTS - 1)
    expected = mean_size[context] @ np.bincount(others, minlength=classes.size)
    return np.searchsorted(np.sqrt(expected[:-1] * expected[1:]), sums).astype(np.uint8)


def fit_density(counts: np.ndarray, density: tuple[int, ...], superset: int = 0) -> tuple[int, ...]:
    """Return the density of highest likelihood of counts [contexts, 256], of residual k at k + 128, exceptions at 0.

    Begins from a density; where the counts say nothing of a bin, its mass stays in proportion.
    """
    import numpy as np

    beyond = counts[:, :1]
    sizes = np.concatenate([counts[:, 128:], beyond], axis=1)
    sizes[:, 1 - superset : 128 - superset] += counts[:, 127:0:-1]
    used = np.flatnonzero(sizes.sum(axis=1))
    overlap, seen = _overlaps(superset)[used].reshape(-1, len(EDGES) - 1), sizes[used].reshape(-1)
    overlap, seen = overlap[seen > 0], seen[seen > 0].astype(np.float64)
    mass = np.maximum(np.array(density, np.float64), 1e-3)
    for _ in range(DENSITY_STEPS):
        likely = overlap @ mass
        mass = mass * (np.divide(seen, likely, out=np.zeros_like(seen), where=likely > 0) @ overlap)
        if not mass.any():
            return density
        mass *= HIGHEST_MASS / mass.sum()
    return tuple(int(m) for m in np.rint(mass * (HIGHEST_MASS / mass.max())))


@lru_cache(maxsize=2)
def _overlaps(superset: int) -> np.ndarray:
    """Return float64 [contexts, 129, bins]: the part of a bin that codes of size k cover, and all beyond 127."""
    import numpy as np

    edges = np.array(EDGES, np.float64)
    ends = np.concatenate([bounds(superset), np.full((CONTEXTS, 1), EDGES[-1])], axis=1).astype(np.float64)
    within = np.clip((ends[..., None] - edges[:-1]) / np.diff(edges), 0, 1)
    return np.diff(within, axis=1, prepend=0)
