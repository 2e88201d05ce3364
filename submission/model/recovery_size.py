"""What recovery of a packed model takes in memory, from its configuration alone."""

from __future__ import annotations

from typing import Any

from submission.model.moments_size import moments_size


def recovery_bytes(config: dict[str, Any]) -> int:
    """Return the bytes that recovery takes at its peak.

    That is the original in float32 with its activations, as in calibration: it is gone when the packed model is tuned,
    whose weights take a byte each, and the three quarters that this leaves hold the activations of a pass with
    gradients.
    """
    return moments_size(config).memory_bytes
