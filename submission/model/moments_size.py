"""What measuring second moments of a model takes in memory and on disk, from its configuration alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from submission.model.families import family_of, tensors

FLOAT_BYTES = 4
MODEL_FACTOR = 1.25
"""Memory for the model and its activations, as a multiple of its weights in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentsSize:
    """Bytes that the calibration of a model takes."""

    memory_bytes: int
    """For the model in float32 and its activations, besides the second moments that are held at a time."""
    disk_bytes: int
    """Of all second moments and importances."""


def input_keys(config: dict[str, Any]) -> dict[str, str]:
    """Return weight name -> key of its input, for all that can be packed; weights that read one input share a key."""
    groups = family_of(config).smoothing_groups(config)
    shared = {target: group.targets[0] for group in groups for target in group.targets}
    return {s.name: shared.get(s.name, s.name).removesuffix(".weight") for s in tensors(config) if s.packable}


def moments_size(config: dict[str, Any]) -> MomentsSize:
    """Return what the moments of a model of this configuration take."""
    specs, keys = tensors(config), input_keys(config)
    widths = {keys[spec.name]: spec.shape[1] for spec in specs if spec.packable}
    rows = sum(spec.shape[0] for spec in specs if spec.packable)
    return MomentsSize(
        memory_bytes=int(FLOAT_BYTES * MODEL_FACTOR * sum(math.prod(spec.shape) for spec in specs)),
        disk_bytes=FLOAT_BYTES * (sum(width**2 for width in widths.values()) + rows),
    )
