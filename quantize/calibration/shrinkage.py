"""Importance of rows from few utterances, shrunk towards its weight's mean as far as two halves of them disagree.

Squared gradients at the outputs of a weight differ between utterances more than rows differ from each other: of 32
utterances, a third to a half of the variance of log g between the rows of a weight is of the rows, the rest of the
sample. Steps that follow the sample spend bits on rows that do not need them. So log g is regressed on the truth, as an
empirical Bayes estimate is (Efron and Morris 1973), with the part of its variance that is of the rows,

    w = cov(log a, log b) / var(log g)        g' = k g^w

over the rows of the weight, where a and b are the importances on the halves of the utterances, g is that on all of
them, and k keeps the mean: how bytes are divided among weights rests on it. Both halves hold the same rows and other
utterances, so their covariance is that of what rows have of their own. w is clipped to 0 and 1.
"""

from __future__ import annotations

import torch

from quantize.solvers.feedback import floored_importance


def shrunk_importance(halves: torch.Tensor) -> torch.Tensor:
    """Return the importance of rows, [rows], from its sums over each half of the utterances, float64 [2, rows].

    It has the mean of the sum of both, and is shrunk from that sum floored as solvers floor it. Where a half has no
    gradient, as with one utterance, or a number is not finite, the sum is returned as it is.
    """
    total = halves.sum(dim=0)
    if not bool(torch.isfinite(total).all()) or not bool((halves.sum(dim=1) > 0).all()):
        return total
    floored, first, second = (floored_importance(values, len(total)) for values in (total, *halves))
    shrunk = floored.pow(_common_part(floored.log(), first.log(), second.log()))
    return shrunk * (total.mean() / shrunk.mean())


def _common_part(log_total: torch.Tensor, log_first: torch.Tensor, log_second: torch.Tensor) -> float:
    """Return which part of the variance of the first between rows the others have in common, 0 to 1."""
    total, first, second = (values - values.mean() for values in (log_total, log_first, log_second))
    variance = float(total.square().mean())
    return min(max(float((first * second).mean()) / variance, 0.0), 1.0) if variance > 0 else 1.0
