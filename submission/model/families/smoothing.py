"""Smoothing groups: where a factor per channel can move from one tensor into the next without changing the model.

What a tensor outputs per channel, divided by s, is what the next ones take in per column, multiplied by s: a norm and
the linears that read it, or two linears with nothing between them but what commutes with a factor (attention's sums
over positions, the product with an activated gate). Quantization that looks at activations (AWQ) chooses s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothingGroup:
    """Tensors that share one factor per channel, by their names on the hub."""

    sources: tuple[str, ...]
    """Tensors whose output channels are divided by the factor: the weight of a norm or a linear, then its bias."""
    targets: tuple[str, ...]
    """Weights whose input columns are multiplied by it; all of them read the same input."""
    stack: str
    """Name of the stack in which the targets are."""
    layer: int | None
    """Number of their layer in it; None where the stack has no layers."""

    @property
    def name(self) -> str:
        """The source's module, `language_model.model.layers.0.input_layernorm`: it is a source once at most."""
        return self.sources[0].removesuffix(".weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A part of the model that works on one sequence of positions, in the order in which activations reach it."""

    name: str
    layers: str | None
    """Name on the hub of the list of its layers, `audio_tower.layers`; None where it has none."""
    positions: Callable[[int, int], int]
    """(audio frames, tokens) of an utterance -> how many positions it has here; padding follows them. Frames are those
    of the family's features (`AudioFeatures.frames`)."""
