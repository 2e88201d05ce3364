"""Moments of a weight that is used twice: of an embedding that is the head as well, both uses as one.

Each use u makes an error e_i of row i cost 1/2 g_ui e_i^T H_u e_i nats per target token: look-ups with how often tokens
are read and the second moment of the gradient at their rows, the head with E[p (1 - p)] and the second moment of the
last hidden states. Together row i costs 1/2 e_i^T (sum_u g_ui H_u) e_i, a matrix of its own for each row, where error
feedback takes one for all, times an importance. Taken are the two that have the same traces:

    H = sum_u mean(g_u) H_u        g_i = sum_u g_ui tr(H_u) / tr(H)

so that each row keeps its cost by errors that are alike in all directions, and each direction its cost by errors that
are alike in all rows. Where one of the uses costs next to nothing, the other's moments are what is left.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from quantize.solvers.feedback import InputFactor, Moments, factorize


def combined_moments(uses: Sequence[Moments]) -> Moments:
    """Return the moments of a weight with these uses, whose factors are stored.

    These hold their damping already, so none is added.
    """
    importance = moment = torch.zeros(())
    for use in uses:
        assert use.stored_factor is not None and use.importance is not None, "a use is measured"
        rows, of_use = use.importance.double(), _second_moment(use.stored_factor())
        importance = importance + rows * of_use.trace()
        moment = moment + of_use.mul_(rows.mean())
    factorized = functools.partial(factorize, moment, len(moment), damping=0.0)
    return Moments(stored_factor=factorized, importance=importance / moment.trace())


def _second_moment(factor: InputFactor) -> torch.Tensor:
    """Return the second moment that a factor is of, float64 [columns, columns]."""
    if factor.feedback is None:
        return torch.diag(factor.diagonal.square())
    lower = factor.feedback.double() * factor.diagonal
    return lower @ lower.t()
