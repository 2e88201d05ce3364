"""Frequency tables of every context, computed from one stored density by integer arithmetic.

Codes of a weight are a density, the same for the whole weight, cut at multiples of a step. A context fixes the scale
of the density in steps: 2 ** ((context - 32) / 8), so from 1/16 to 64 in eighths of an octave. What a tensor stores is
the density of |code| / scale in 40 bins, 16 bits each: 32 bins of 1/8 up to 4 scales, and 8 of a quarter octave up to
16. Within a bin the density is constant. So any shape of the tails costs 80 bytes, where a table for each context
would cost kilobytes, and every machine computes the same frequencies, since nothing but integers is used.

With a trellis there is a density for each superset (`trellis.py`). In the superset of even numbers index k stands for
2 k, in that of odd numbers for 2 k + 1, so there k lies between the multiples k and k + 1 of a step of two, and -1 - k
has the same size as k.

A context's alphabet is -reach … reach, where reach is the last code that is likelier than 1 / (4096 × REACH_SLOTS):
there a slot of its own costs all other codes about what the exceptions would cost. Every code in it has a slot at
least; of the others it gets its probability's share.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from submission.model.codecs.entropy.layout import DENSITY_BINS

if TYPE_CHECKING:
    import numpy as np

CONTEXTS = 81
UNIT_CONTEXT = 32
"""The context whose scale is one step."""
OCTAVE = 8
"""Contexts in a doubling of the scale."""
SLOTS = 4096
HIGHEST_CODE = 127
REACH_SLOTS = 11

EDGE_UNIT = 4096
"""A scale in the unit of the bins' edges."""
EDGES = (*range(0, 4 * EDGE_UNIT, EDGE_UNIT // 8), 16384, 19484, 23170, 27554, 32768, 38968, 46341, 55109, 65536)
"""Where bins begin and end: eighths up to 4 scales, then quarter octaves up to 16."""
ROOTS = (32768, 35734, 38968, 42495, 46341, 50535, 55109, 60097)
"""2 ** (i / 8) in units of 2 ** -15, rounded."""
MASS_UNIT = 256
"""Fractions of a bin's mass that are distinguished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Frequencies of a density in every context."""

    frequency: np.ndarray
    """uint16 [contexts, 256]: slots of code k at k + 128; 0 beyond the reach. A row's sum is 4096."""
    reach: np.ndarray
    """int32 [contexts]: the largest size of a code that has slots."""
    parity: int
    """1 where the code that is written for one beyond the reach has its parity: 0 or 1. 0: it is 0 for all."""

    def coding(self) -> np.ndarray:
        """Return uint32 [contexts, 256]: for code k at k + 128 its frequency, and its first slot times 65536.

        Codes beyond the reach have those of the code that is written for them.
        """
        import numpy as np

        frequency = self.frequency.astype(np.uint32)
        entries = frequency | (np.cumsum(frequency, axis=1, dtype=np.uint32) - frequency) << np.uint32(16)
        return np.where(frequency > 0, entries, entries[:, self._written()])

    def decoding(self) -> np.ndarray:
        """Return uint32 [contexts, 4096]: for every slot code + 128, frequency << 8, slot - first slot << 20."""
        import numpy as np

        slots = np.empty((CONTEXTS, SLOTS), np.uint32)
        for context, frequency in enumerate(self.frequency.astype(np.int64)):
            symbols = np.repeat(np.arange(256), frequency)
            first = (np.cumsum(frequency) - frequency)[symbols]
            slots[context] = symbols | frequency[symbols] << 8 | (np.arange(SLOTS) - first) << 20
        return slots

    def cost(self) -> np.ndarray:
        """Return float64 [contexts, 256]: bits that a code takes; beyond the reach those of what is written instead."""
        import numpy as np

        frequency = np.where(self.frequency > 0, self.frequency, self.frequency[:, self._written()])
        return np.log2(SLOTS / frequency.astype(np.float64))

    def _written(self) -> np.ndarray:
        """Return int64 [256]: the symbol that is written for each that has no slots."""
        import numpy as np

        return 128 + (np.arange(256) & self.parity)


def bounds(superset: int = 0) -> np.ndarray:
    """Return int64 [contexts, 128]: where codes of size k end, in units of 1/4096 of the scale.

    That is at k + 1/2 steps, and at k + 1 in the superset 1.
    """
    import numpy as np

    context = np.arange(CONTEXTS)[:, None]
    halves = 2 * np.arange(HIGHEST_CODE + 1)[None] + 1 + superset  # in half steps
    # scale = root / 2 ** 15 * 2 ** (context // 8 - 4), so halves / 2 / scale * 4096 = halves * 2 ** 30 >> octave / root
    ends: np.ndarray = (halves << (30 - context // OCTAVE)) // np.array(ROOTS)[context % OCTAVE]
    return ends


def masses(density: tuple[int, ...], superset: int = 0) -> tuple[np.ndarray, int]:
    """Return int64 [contexts, 128], the mass of sizes 0 … 127 in every context, and the mass of all codes together."""
    import numpy as np

    edges = np.array(EDGES)
    bins = np.array(density, np.int64) * MASS_UNIT
    below = np.concatenate([[0], np.cumsum(bins)])
    ends = np.minimum(bounds(superset), EDGES[-1])
    place = np.minimum(np.searchsorted(edges, ends, side="right") - 1, DENSITY_BINS - 1)
    within = bins[place] * (ends - edges[place]) // (edges[place + 1] - edges[place])
    return np.diff(below[place] + within, axis=1, prepend=0), int(below[-1])


@lru_cache(maxsize=8)
def tables(density: tuple[int, ...], superset: int | None = None) -> Tables:
    """Return the frequencies in every context of a density: 40 masses, of which one at least is not 0.

    superset: 0 or 1 with a trellis; None without.
    """
    import numpy as np

    from submission.model.codecs.entropy.kernels import share_slots

    parity, superset = int(superset is not None), superset or 0
    mass, total = masses(density, superset)
    frequency = np.zeros((CONTEXTS, 256), np.uint16)
    reach = np.empty(CONTEXTS, np.int32)
    share_slots(mass, total, superset, SLOTS, REACH_SLOTS, frequency, reach)
    return Tables(frequency=frequency, reach=reach, parity=parity)
