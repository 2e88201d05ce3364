"""The channels of a recording as one signal: the mean of all, or one of them; and what that one lacks of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Channel: TypeAlias = int | None
"""Which channel is read, from 0; None: the mean of all, as the organisers' scripts read audio."""
FRAME_SECONDS = 0.1
SOUND_POWER = 1e-6
"""Least power of a frame with sound, 60 dB below full scale; a constant offset is none."""
CLEARLY = 10.0
"""How many times the power is clearly more: 10 dB."""
REPORTED_SECONDS, REPORTED_SHARE = 1.0, 0.1
"""So much sound, and so much of all, that one signal lacks is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSound:
    """How long a recording of several channels has sound that one signal of them lacks; in seconds."""

    seconds: float = 0.0
    """With sound in any channel."""
    beside_first: tuple[float, ...] = ()
    """Of each channel: with sound there that is clearly louder than the first channel."""
    cancelled: float = 0.0
    """With clearly less power in the mean than the mean of unrelated channels has: they cancel each other."""

    def lacking(self, channel: int | None) -> float:
        """Return for how long sound is lacking in the mean (None) or in the first channel; 0.0 where that is little."""
        lost = self.cancelled if channel is None else max(self.beside_first, default=0.0)
        return lost if lost >= max(REPORTED_SECONDS, REPORTED_SHARE * self.seconds) else 0.0


class ChannelMeter:
    """Measures `ChannelSound` block by block, in frames of FRAME_SECONDS; what fills no frame is left out."""

    def __init__(self) -> None:
        self._seconds, self._cancelled = 0.0, 0.0
        self._beside_first = np.zeros(0)

    def add(self, block: np.ndarray, rate: int) -> None:
        """Add float32 [frames, channels] at a rate in Hz."""
        samples, channels = max(1, round(rate * FRAME_SECONDS)), block.shape[1]
        count = len(block) // samples
        if channels == 1 or not count:
            return
        seconds = samples / rate
        signals = np.ascontiguousarray(block[: count * samples].T).reshape(channels, count, samples)
        with np.errstate(all="ignore"):  # what is not finite is refused elsewhere
            powers = signals.var(axis=2)  # (channels, frames)
            sound = powers > SOUND_POWER
            mean = signals.mean(axis=0).var(axis=1)
            cancelled = sound.any(axis=0) & (mean * CLEARLY < powers.sum(axis=0) / channels**2)
            beside_first = sound & (powers > CLEARLY * powers[0])
        self._seconds += seconds * int(sound.any(axis=0).sum())
        self._cancelled += seconds * int(cancelled.sum())
        if channels > len(self._beside_first):
            self._beside_first = np.pad(self._beside_first, (0, channels - len(self._beside_first)))
        self._beside_first[:channels] += seconds * beside_first.sum(axis=1)

    def total(self) -> ChannelSound:
        """Return the measure of all blocks."""
        beside_first = tuple(map(float, self._beside_first))
        return ChannelSound(seconds=self._seconds, beside_first=beside_first, cancelled=self._cancelled)


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
