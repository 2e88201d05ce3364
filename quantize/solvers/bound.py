"""Bind a recipe's solver to one weight at a time, with what it needs to know of that weight."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from submission.errors import UserError
from submission.model.codecs import Codec
from submission.model.solvers import SOLVERS, parse_solver, refuse_unserved

SideData = Callable[[str], Mapping[str, Any]]
"""Name of a weight -> the keyword arguments of `Solver.side_data` for it."""


class SolveFor(Protocol):
    """Chooses what a codec's `encode` is given for one weight."""

    def __call__(self, name: str, codec: Codec) -> Any:
        """Return the solver for the weight of this name; None where the codec calls none."""


def need_served(solver: str, codecs: Mapping[str, Codec]) -> None:
    """Raise UserError where a solver does not serve one of these codecs, by the name of its weight."""
    try:
        refuse_unserved(solver, codecs.items())
    except ValueError as error:
        what, _, fix = str(error).partition("; ")
        raise UserError("quantize", what, fix) from error


def bind_solver(solver: str, side_data: SideData | None = None) -> SolveFor:
    """Return (name of a weight, codec) -> the solver's function for the codec, bound to the weight's side data.

    The function has the codec's own interface; for a codec without one it is None. Raises UserError for a solver that
    is unknown, or needs side data and gets none; what is returned raises it for a codec that the solver does not serve.
    """
    needed = SOLVERS[parse_solver(solver, "quantize.solver")].side_data
    if needed and side_data is None:
        what = f"{solver!r} needs {', '.join(needed)} of each weight, and nothing supplies them"
        raise UserError("quantize.solver", what, "choose a solver that needs the weights alone")

    def solve_for(name: str, codec: Codec) -> Any:
        if codec.interface is None:
            return None
        need_served(solver, {name: codec})
        function = SOLVERS[solver].function(codec.interface)
        if not needed or side_data is None:
            return function
        data = side_data(name)
        return functools.partial(function, **{key: data[key] for key in needed})

    return solve_for
