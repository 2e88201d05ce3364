"""Test whether two systems differ significantly: a paired bootstrap over the lines of a test set.

Koehn (2004, "Statistical Significance Tests for Machine Translation Evaluation"), as sacrebleu's `--paired-bs` does it:
both systems are scored on the same 1,000 resamples of the lines. An easy or hard resample is so for both, and the
difference varies much less than two separate intervals suggest. sacrebleu's other test, approximate randomization,
gives a p-value alone; this one also gives the interval of the difference, from the same resamples as the intervals of
the scores. The smallest possible p-value is 1 in 1,001. Of many comparisons at 0.05, one in twenty is significant by
chance: multiple comparisons are not corrected for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluate.scoring.metrics import draws, interval, line_statistics, make_metrics, resampled, signature


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """The difference of two systems' scores in one metric."""

    metric: str
    first: float
    second: float
    difference: float
    """second - first, in the metric's own points: of TER, less is better."""
    low: float
    high: float
    """Bounds of the difference's 95 % bootstrap interval."""
    p_value: float
    """Two-sided p-value."""
    signature: str
    """sacrebleu's."""


def paired_bootstrap(
    first: Sequence[str], second: Sequence[str], references: Sequence[str], language: str
) -> list[PairedDifference]:
    """Return the differences between two systems on one test set, in the order of METRICS.

    first, second: one line for each reference, after resegmentation where the segments are the system's own. Raises
    ValueError where the numbers of lines differ.
    """
    if not len(first) == len(second) == len(references) > 0:
        what = f"{len(first)} and {len(second)} lines, {len(references)} references"
        raise ValueError(f"paired_bootstrap: expected as many lines as references and some, got {what}")
    drawn = draws(len(references))
    differences = []
    for name, metric in make_metrics(language).items():
        values, samples = [], []
        for lines in (first, second):
            statistics = line_statistics(metric, lines, references)
            values.append(float(metric._aggregate_and_compute(statistics).score))
            samples.append(resampled(metric, statistics, drawn))
        low, high = interval(samples[1] - samples[0])
        differences.append(
            PairedDifference(
                metric=name,
                first=values[0],
                second=values[1],
                difference=values[1] - values[0],
                low=low,
                high=high,
                p_value=p_value(samples[1] - samples[0], values[1] - values[0]),
                signature=signature(metric),
            )
        )
    return differences


def p_value(samples: np.ndarray, difference: float) -> float:
    """Return sacrebleu's p-value of a difference, from the differences of the resamples.

    Around its own mean, the resamples' absolute difference stands for what chance does. The system itself counts
    as one resample more, so that the value is never 0. Without any difference the value is 1, where sacrebleu gives
    1 in 1,001 to a system that is compared with itself.
    """
    if difference == 0:
        return 1.0
    chance = np.abs(samples) - np.abs(samples).mean()
    return (int((chance > abs(difference)).sum()) + 1) / (len(samples) + 1)
