"""Find packed weights of which next to nothing is left, and refuse a model with such weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from submission.errors import UserError

LOST_ERROR = 0.5
"""Relative squared error over which a packed weight counts as lost: 2 bits in groups of 64 have 0.2."""
MOST_NAMED = 5


def check_lost_weights(packed: Mapping[str, Mapping[str, Any]], system: str, *, allowed: bool) -> None:
    """Print a warning of each weight that is lost, the worst first; UserError for any unless they are allowed.

    Where they are, bits are given out by what a weight does to the loss, and one line says how many there are. packed:
    weight name -> its entry of packing_report.json.
    """
    lost = sorted(
        (-entry["relative_mse"], name) for name, entry in packed.items() if entry["relative_mse"] > LOST_ERROR
    )
    if lost and allowed:
        largest, name = lost[0]
        line = (
            f"pack: {len(lost)} of {len(packed)} weights have a relative squared error over {LOST_ERROR}, as the "
            f"recipe allows (allow_lost_weights); {name} the largest, {-largest:.2f}; see packing_report.json"
        )
        print(line, file=sys.stderr, flush=True)
        return
    for error, name in lost[:MOST_NAMED]:
        line = (
            f"pack: warning: {name}: relative squared error {-error:.2f}, over {LOST_ERROR}: hardly any of it is left"
        )
        print(line, file=sys.stderr, flush=True)
    if len(lost) > MOST_NAMED:
        print(f"pack: warning: {len(lost)} weights in all; see packing_report.json", file=sys.stderr, flush=True)
    if lost:
        what = f"of {len(lost)} of its {len(packed)} packed weights hardly anything is left (first: {lost[0][1]})"
        fix = (
            "check the scale of the checkpoint's weights, give them more bits or another solver, or take the model as "
            "it is with `allow_lost_weights = true` in the recipe's [quantize]"
        )
        raise UserError(system, what, fix)
