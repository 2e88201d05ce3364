"""Solvers: how the codes and parameters of a codec are found. A new one is one file and its line in `SOLVERS`.

A recipe names one solver for all its codecs. What a solver is called with belongs to the codec (`Codec.interface`); the
functions live in `quantize` and are imported when they are used, so that recipes are read without torch.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from submission.errors import UserError
from submission.system.schema import nearest

if TYPE_CHECKING:
    from submission.model.codecs import Codec


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """One way to find what codecs store."""

    technique: str
    """What a model's description calls it, `HQQ`."""
    techniques: Mapping[str, str] = field(default_factory=dict)
    """The same for an interface that it serves in another way."""
    functions: Mapping[str, str]
    """Interface of a codec -> "module:attribute" of the function that serves it."""
    side_data: tuple[str, ...] = ()
    """Keyword arguments that the functions take for each weight beyond what the interface says: moments of its
    inputs, for instance. Whoever packs supplies them; the codec does not see them."""

    def serves(self, codec: Codec) -> bool:
        """Return whether the solver can be called as the codec calls it; any can where the codec calls none."""
        return codec.interface is None or codec.interface in self.functions

    def function(self, interface: str) -> Callable[..., Any]:
        """Return the function that serves an interface."""
        found: Callable[..., Any] = pkgutil.resolve_name(self.functions[interface])
        return found


SOLVERS: dict[str, Solver] = {
    "hqq": Solver(technique="HQQ", functions={"affine": "quantize.solvers.hqq:solve_hqq"}),
    "hqq-rounded-zero": Solver(
        technique="HQQ (from a rounded zero-point)",
        functions={"affine": "quantize.solvers.hqq:solve_hqq_rounded_zero"},
    ),
    "hqq-library": Solver(
        technique="HQQ (hqq library)", functions={"affine": "quantize.solvers.hqq_library:solve_hqq_library"}
    ),
    "als": Solver(technique="Least-squares", functions={"affine": "quantize.solvers.als:solve_als"}),
    "feedback": Solver(
        technique="Error-feedback (steps by reverse water-filling)",
        techniques={"affine": "Least-squares"},
        functions={
            "entropy": "quantize.solvers.fitting:solve_entropy",
            "affine": "quantize.solvers.fitting:solve_affine",
        },
        side_data=("moments",),
    ),
}
"""Solvers by the name that a recipe gives."""


def parse_solver(value: Any, where: str) -> str:
    """Return the name of a solver as a recipe gives it; UserError beginning with `where` for anything else."""
    if not isinstance(value, str):
        raise UserError(where, f"expected the name of a solver, got {value!r}"[:200], f"known: {', '.join(SOLVERS)}")
    if value not in SOLVERS:
        raise UserError(where, f"unknown solver {value!r}", nearest(value, SOLVERS))
    return value


def refuse_unserved(solver: str, codecs: Iterable[tuple[str, Codec]]) -> None:
    """Raise ValueError, `what; fix`, for the first codec that a solver cannot serve; codecs: (where it is, codec)."""
    for where, codec in codecs:
        if not SOLVERS[solver].serves(codec):
            able = [name for name, other in SOLVERS.items() if other.serves(codec)]
            what = f"solver: {solver!r} finds no codes for {codec.name} ({where})"
            raise ValueError(f"{what}; solvers that do: {', '.join(able) or 'none'}")


def technique_of(codec: Codec, solver: str) -> str:
    """Return how a model's description names what a codec stores, found by the named solver."""
    serving = codec.interface is not None and SOLVERS[solver].serves(codec)
    found = SOLVERS[solver]
    return codec.technique(found.techniques.get(codec.interface or "", found.technique) if serving else None)
