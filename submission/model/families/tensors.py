"""The specification of one tensor: name, shape, role."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor of a checkpoint, as the configuration implies it."""

    name: str
    """As on the hub, `language_model.model.layers.0.mlp.up_proj.weight`."""
    shape: tuple[int, ...]
    role: str
    """What it is for, `mlp.up`; a bias has the role of its weight."""
    layer: int | None
    """Number of its layer within its stack (decoder or audio encoder), from 0; None outside the layers."""
    packable: bool
    """Whether a codec may store it: weights of linears and of the embedding."""
