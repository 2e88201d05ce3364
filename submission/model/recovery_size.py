"""What recovery of a packed model takes in memory, from its configuration alone."""

from __future__ import annotations

import math
from typing import Any

from submission.model.families import tensors

FLOAT_BYTES = 4
MODEL_FACTOR = 1.25
"""Memory for the original and its activations, as a multiple of its weights in float32."""


def recovery_bytes(config: dict[str, Any]) -> int:
    """Return the bytes that recovery takes at its peak: the original in float32 with its activations.

    It is gone when the packed model is tuned, whose weights take a byte each; the three quarters that this leaves hold
    the activations of a pass with gradients.
    """
    return int(FLOAT_BYTES * MODEL_FACTOR * sum(math.prod(spec.shape) for spec in tensors(config)))
