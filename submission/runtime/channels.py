"""The channels of a recording as one signal: the mean of all, or one of them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Channel: TypeAlias = int | None
"""Which channel is read, from 0; None: the mean of all, as the organisers' scripts read audio."""


def as_mono(block: np.ndarray, channel: Channel) -> np.ndarray:
    """Return one signal, float32 [frames], of a block of audio, float32 [frames, channels].

    Raises IndexError for a channel that the block does not have. Mono audio is returned as it is.
    """
    if channel is not None:
        return np.ascontiguousarray(block[:, channel])
    if block.shape[1] == 1:
        return np.ascontiguousarray(block[:, 0])
    mixed: np.ndarray = block.mean(axis=1, dtype=np.float32)
    return mixed
