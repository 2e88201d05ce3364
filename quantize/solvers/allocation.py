"""Allocation: a model's byte target as one constant for all tensors, and as an exact budget for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantize.solvers.rate import RateCurve
from submission.errors import UserError

HALVINGS = 60
"""Halvings of the interval of the constant's logarithm: to the last bit of a float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What a byte target comes to."""

    constant: float
    """c, for all tensors."""
    budget_bytes: dict[str, int]
    """Weight name -> bytes for its stream; they sum to the target, or to all that the finest constant would use."""


def allocate(curves: Mapping[str, RateCurve], target_bytes: int) -> Allocation:
    """Return the constant at which the curves sum to a target, and budgets that sum to it exactly.

    At one constant every tensor gives up the same likelihood for a byte, which is the optimum of the predicted loss.
    Budgets are the sizes at that constant rounded down; what is left goes a byte at a time to the largest remainders,
    by name where they tie. Raises UserError for a target below the size at the coarsest constant measured.
    """
    if not curves:
        raise UserError("target", "has no tensors to allot bytes to", "name at least one role in the codecs")
    low = min(curve.log2_constants[0] for curve in curves.values()) - 16
    high = max(curve.log2_constants[-1] for curve in curves.values())
    least = sum(curve.size_at(high) for curve in curves.values())
    if target_bytes < least:
        what = f"{target_bytes} bytes are too few: {len(curves)} tensors need {int(least) + 1} at the coarsest steps"
        raise UserError("target", what, "raise the target")
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if sum(curve.size_at(middle) for curve in curves.values()) <= target_bytes:
            high = middle
        else:
            low = middle
    sizes = {name: curves[name].size_at(high) for name in sorted(curves)}
    return Allocation(constant=2.0**high, budget_bytes=_whole_bytes(sizes, target_bytes))


def _whole_bytes(sizes: Mapping[str, float], target_bytes: int) -> dict[str, int]:
    """Return sizes as integers that sum to the target, by the method of largest remainders."""
    scale = target_bytes / sum(sizes.values())
    budgets = {name: int(size * scale) for name, size in sizes.items()}
    left = target_bytes - sum(budgets.values())
    order = sorted(sizes, key=lambda name: (budgets[name] - sizes[name] * scale, name))
    for position in range(left):
        budgets[order[position % len(order)]] += 1
    return budgets
