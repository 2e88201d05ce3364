"""Compute BLEU, chrF and TER with sacrebleu, with bootstrap confidence intervals.

A metric sums statistics of each line (matched n-grams, edits) and computes its score from the sums. So a resampled
test set costs one sum, not one more tokenization, and the same resamples serve every metric and every system. The draws
are sacrebleu's: numpy's default generator, seed 12345, 1,000 times as many lines as there are, with replacement. The
statistics are counts, which single precision sums exactly, and the score of a resample is computed in single precision
as sacrebleu computes it: its command line with --confidence comes to the same digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluate.scoring.resegmentation import CHARACTER_LANGUAGES
from submission.text.languages import bleu_tokenizer

METRICS = ("BLEU", "chrF", "TER")
LOWER_IS_BETTER = frozenset({"TER"})
RESAMPLES = 1000
SEED = 12345
"""sacrebleu's default; the environment variable SACREBLEU_SEED is ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusScore:
    """A metric's score of a test set with its confidence interval."""

    metric: str
    value: float
    """Of the lines as they are, in percent."""
    low: float
    high: float
    """Bounds of the 95 % bootstrap interval: of the sorted scores of the resamples, the first and the last once 1/40
    is dropped at either end. sacrebleu prints the mean of the resamples and half of `high - low`."""
    signature: str
    """sacrebleu's: settings, resamples, seed and version."""


def make_metrics(language: str) -> dict[str, Any]:
    """Return sacrebleu's metrics with its defaults, except for languages without spaces.

    For these BLEU uses the language's tokenizer, and TER edits characters (`--ter-normalized --ter-asian-support`), for
    a line without spaces would be one word.
    """
    from sacrebleu.metrics import BLEU, CHRF, TER

    by_character = language in CHARACTER_LANGUAGES
    return {
        "BLEU": BLEU(tokenize=bleu_tokenizer(language)),
        "chrF": CHRF(),
        "TER": TER(normalized=by_character, asian_support=by_character),
    }


def corpus_scores(hypotheses: Sequence[str], references: Sequence[str], language: str) -> list[CorpusScore]:
    """Return the scores of a test set, line by line against its references, in the order of METRICS."""
    drawn = draws(len(references))
    scores = []
    for name, metric in make_metrics(language).items():
        statistics = line_statistics(metric, hypotheses, references)
        low, high = interval(resampled(metric, statistics, drawn))
        scores.append(
            CorpusScore(
                metric=name,
                value=float(metric._aggregate_and_compute(statistics).score),
                low=low,
                high=high,
                signature=signature(metric),
            )
        )
    return scores


def line_statistics(metric: Any, hypotheses: Sequence[str], references: Sequence[str]) -> list[list[float]]:
    """Return a metric's statistics of each line, shape (lines, statistics), of one reference a line."""
    return metric._extract_corpus_statistics(list(hypotheses), [list(references)])


def draws(lines: int) -> np.ndarray:
    """Return how often each resample holds each line, shape (RESAMPLES, lines)."""
    drawn = np.random.default_rng(SEED).choice(lines, size=(RESAMPLES, lines), replace=True)
    return np.stack([np.bincount(numbers, minlength=lines) for numbers in drawn]).astype(np.float32)


def resampled(metric: Any, statistics: Sequence[Sequence[float]], drawn: np.ndarray) -> np.ndarray:
    """Return a metric's score of each resample, shape (RESAMPLES,), float64."""
    sums = drawn @ np.array(statistics, np.float32)
    return np.array([metric._compute_score_from_stats(row).score for row in sums], np.float64)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the bounds of the middle 95 % of values, as sacrebleu does: n // 40 are dropped at either end."""
    ordered = np.sort(values)
    dropped = len(ordered) // 40
    return float(ordered[dropped]), float(ordered[-1 - dropped])


def signature(metric: Any) -> str:
    """Return the signature that sacrebleu prints beside a score with its confidence interval."""
    metric.n_bootstrap, metric.seed = RESAMPLES, SEED
    return metric.get_signature().format()
