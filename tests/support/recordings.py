"""Recordings for tests."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np


def write_noise(path: Path, *, seconds: float, seed: int = 5) -> None:
    """Write noise at 16 kHz, the same for the same seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).normal(0, 2000, round(seconds * 16_000)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
