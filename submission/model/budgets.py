"""Byte budgets of weights whose codecs take one: what a target for the whole model folder leaves for them, exactly.

`config.json` names every budget and the weights' header every offset, so what surrounds the streams depends on the
digits of the budgets. They are shared out again with what the first attempt leaves or lacks, until the folder fits.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submission.errors import UserError
from submission.model.codecs import Codec
from submission.model.families import tensors
from submission.model.forecast import Forecast, add_up, allotted, forecast, resolve_codecs

if TYPE_CHECKING:
    from submission.system.recipe.quantize_options import Override

TARGET = "quantize.target"
ATTEMPTS = 24
"""How often budgets are shared out; three or four are enough as a rule."""
LARGEST_BUDGET = 1 << 44

BUDGETS = "budgets.json"
"""The file of an allocation: budgets by the name of the weight, the target, and what was predicted."""

Shares = Callable[[int], Mapping[str, int]]
"""Bytes for all weights with a budget -> the budget of each, by name; they sum to at most these bytes."""


def budgeted_shapes(config: dict[str, Any], codecs: Mapping[str, Codec]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight whose codec takes a budget, by name, in the model's order."""
    return {s.name: s.shape for s in tensors(config) if s.name in codecs and codecs[s.name].takes_budget}


@functools.lru_cache(maxsize=4096)
def least_budget(codec: Codec, shape: tuple[int, ...]) -> int:
    """Return the smallest budget that a codec accepts for a weight of this shape."""

    def accepts(budget: int) -> bool:
        try:
            codec.allotted(budget).parts(shape)
        except ValueError:
            return False
        return True

    high = 1
    while not accepts(high):
        high *= 2
        if high > LARGEST_BUDGET:
            codec.allotted(high).parts(shape)  # says what is wrong with the shape
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if accepts(middle) else (middle, high)
    return high


def fit_budgets(
    config: dict[str, Any], codecs: Mapping[str, Codec], target_bytes: int, shares: Shares, *, other_bytes: int
) -> dict[str, int]:
    """Return the budgets with which the whole model folder weighs at most target_bytes, and as near as shares allow.

    codecs: of every packed weight, by name. shares: how bytes are divided; no weight gets less than its codec accepts.
    other_bytes: as in `forecast`. Raises UserError, saying the least, for a target below what everything else and the
    smallest budgets come to, and for one above what the model weighs with these weights unpacked.
    """
    specs, shapes = tensors(config), budgeted_shapes(config, codecs)
    least = {name: least_budget(codecs[name], shape) for name, shape in shapes.items()}

    def total(budgets: Mapping[str, int]) -> int:
        return add_up(config, specs, allotted(codecs, budgets), other_bytes).total_bytes

    smallest = total(least)
    if target_bytes < smallest:
        what = (
            f"{target_bytes:,} bytes; what is kept, what has a fixed size and the smallest budgets weigh {smallest:,}"
        )
        raise UserError(TARGET, what, "raise the target, or choose smaller codecs for the others")
    unpacked = add_up(config, specs, {n: c for n, c in codecs.items() if n not in shapes}, other_bytes).total_bytes
    if target_bytes > max(unpacked, smallest):
        what = f"{target_bytes:,} bytes; with every weight that has a budget unpacked, the model weighs {unpacked:,}"
        raise UserError(TARGET, what, "lower the target: what is beyond that would be padding")
    stream_bytes = target_bytes - (smallest - sum(least.values()))
    best: dict[str, int] | None = None
    for attempt in range(ATTEMPTS):
        budgets = _at_least(shares(stream_bytes), least)
        spare = target_bytes - total(budgets)
        if spare >= 0 and (best is None or sum(budgets.values()) > sum(best.values())):
            best = budgets
        if spare == 0:
            break
        stream_bytes += spare - (attempt if spare < 0 else 0)
    if best is None:
        what = f"{target_bytes:,} bytes leave nothing to share beyond the smallest budgets, {smallest:,}"
        raise UserError(TARGET, what, "raise the target by a few thousand bytes")
    return best


def _at_least(budgets: Mapping[str, int], least: Mapping[str, int]) -> dict[str, int]:
    """Return budgets none of which is below the least; the largest ones give what that takes."""
    raised = {name: max(budgets[name], least[name]) for name in least}
    over = sum(raised.values()) - max(sum(budgets.values()), sum(least.values()))
    for name in sorted(raised, key=lambda name: (least[name] - raised[name], name)):
        given = min(over, raised[name] - least[name])
        raised[name] -= given
        over -= given
    return raised


def equal_rate_shares(shapes: Mapping[str, tuple[int, ...]], least: Mapping[str, int]) -> Shares:
    """Return shares that give every weight the same bits on top of its smallest budget."""
    weights = {name: math.prod(shape) for name, shape in shapes.items()}

    def shares(stream_bytes: int) -> dict[str, int]:
        spare, total = max(0, stream_bytes - sum(least.values())), sum(weights.values())
        ends, before = 0, {}
        for name, count in weights.items():  # cumulative, so that they sum to all of it
            before[name] = ends * spare // total
            ends += count
        begins = [*before.values(), spare]
        return {name: least[name] + begins[i + 1] - begins[i] for i, name in enumerate(weights)}

    return shares


def provisional_forecast(
    config: dict[str, Any],
    rules: Mapping[str, Codec],
    overrides: Iterable[Override],
    target_bytes: int,
    *,
    other_bytes: int,
) -> Forecast:
    """Return the forecast before budgets are allotted: its total is the target's, each weight has the same bits.

    Raises UserError as `fit_budgets` and `resolve_codecs`.
    """
    overrides = tuple(overrides)
    codecs = resolve_codecs(config, rules, overrides)
    shapes = budgeted_shapes(config, codecs)
    least = {name: least_budget(codecs[name], shape) for name, shape in shapes.items()}
    budgets = fit_budgets(config, codecs, target_bytes, equal_rate_shares(shapes, least), other_bytes=other_bytes)
    found = forecast(config, rules, overrides, other_bytes=other_bytes, budgets=budgets)
    return replace(found, provisional=True)


def read_budgets(folder: Path) -> dict[str, int]:
    """Return weight name -> bytes, from the folder of a finished allocation."""
    return dict(json.loads((folder / BUDGETS).read_text(encoding="utf-8"))["budgets"])
