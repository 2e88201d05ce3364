"""Detectors of loudness, so that a test places speech by writing it into the samples."""

from __future__ import annotations

from functools import partial

import numpy as np

from segment.probabilities.speech_probabilities import Detectors
from segment.probabilities.windows import frame_probabilities

RATE = 16_000


def loudness(windows: np.ndarray) -> np.ndarray:
    """Stand for a classifier: 0.9 where a frame's first sample is loud, 0.1 elsewhere, as wav2vec 2.0 counts frames."""
    frames = max(0, (windows.shape[1] - 400) // 320 + 1)
    return np.where(np.abs(windows[:, : frames * 320 : 320]) > 0.2, 0.9, 0.1)


class LoudnessDetector:
    """Stand for the voice-activity detector: it also detects what the classifier takes for too quiet."""

    def probabilities(self, read, samples: int) -> np.ndarray:
        pieces = [
            np.abs(read(start, min(start + 512 * 1024, samples))[::512]) for start in range(0, samples, 512 * 1024)
        ]
        return np.where(np.concatenate(pieces) > 0.05, 0.95, 0.05).astype(np.float32)


def loudness_detectors(**options) -> Detectors:
    return Detectors(
        vad=LoudnessDetector,
        vad_key="loudness detector",
        classify=partial(frame_probabilities, predict=loudness, **options),
        classifier_key="loudness classifier",
    )
