"""Registries: what recipes name, the function that does it, and what recipes and keys must know of it.

A registry is a literal dict of name -> entry. Recipes are validated by the standard library alone, so an entry names
its function by "module:attribute", which is imported when the function is called.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryEntry:
    """One choice of a registry."""

    function: str
    """`module:attribute`; empty where another module does the work, as the entry's other fields state."""

    def load(self) -> Any:
        """Import and return the function."""
        return pkgutil.resolve_name(self.function)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationMethod(RegistryEntry):
    """A way to find the segments of a recording."""

    reads: tuple[str, ...]
    """The fields of the recipe's `segment` table that its segments depend on, `method` included."""
    needs_classifier: bool = False
    from_references: bool = False
    """Whether it takes the segments of the references: for measurements, never for an upload."""


LENGTHS = ("method", "max_seconds", "min_seconds")

SEGMENTATION_METHODS: dict[str, SegmentationMethod] = {
    "shas": SegmentationMethod(
        function="segment.methods.divide_and_conquer:segment_by_classifier",
        reads=(*LENGTHS, "threshold", "inference_times", "original_batching"),
        needs_classifier=True,
    ),
    "shas+vad": SegmentationMethod(
        function="segment.methods.gap_filling:segment_and_fill_gaps",
        reads=(*LENGTHS, "threshold", "inference_times", "original_batching"),
        needs_classifier=True,
    ),
    "vad": SegmentationMethod(
        function="segment.methods.divide_and_conquer:segment_by_vad", reads=(*LENGTHS, "threshold")
    ),
    "fixed": SegmentationMethod(function="segment.methods.fixed:segment_by_length", reads=LENGTHS),
    "gold": SegmentationMethod(function="", reads=("method",), from_references=True),
}
"""Segmentation methods by the name that recipes use."""

if TYPE_CHECKING:
    SegmentationName: TypeAlias = str
else:
    SegmentationName = Literal[tuple(SEGMENTATION_METHODS)]
    """The type of the recipe's field: parsing refuses every other name."""
