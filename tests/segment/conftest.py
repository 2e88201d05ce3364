"""Listeners that hear loudness, so that a test can say where speech is by writing it into the samples."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from segment.probabilities.speech_probabilities import Detectors, ProbabilityCache
from segment.probabilities.windows import probability_tracks

RATE = 16_000


def loudness(windows: np.ndarray) -> np.ndarray:
    """Stand for a classifier: 0.9 where a frame's first sample is loud, 0.1 elsewhere, as wav2vec 2.0 counts frames."""
    frames = max(0, (windows.shape[1] - 400) // 320 + 1)
    return np.where(np.abs(windows[:, : frames * 320 : 320]) > 0.2, 0.9, 0.1)


class LoudnessDetector:
    """Stand for the voice-activity detector: it also hears what the classifier takes for too quiet."""

    def track(self, read, samples: int) -> np.ndarray:
        pieces = [
            np.abs(read(start, min(start + 512 * 1024, samples))[::512]) for start in range(0, samples, 512 * 1024)
        ]
        return np.where(np.concatenate(pieces) > 0.05, 0.95, 0.05).astype(np.float32)


def loudness_listener(**options) -> Detectors:
    return Detectors(
        vad=LoudnessDetector,
        vad_key="loudness detector",
        classify=partial(probability_tracks, predict=loudness, **options),
        classifier_key="loudness classifier",
    )


@pytest.fixture
def memory(tmp_path) -> ProbabilityCache:
    return ProbabilityCache(folder=tmp_path / "heard")


@pytest.fixture
def testset(tmp_path) -> Path:
    """Two recordings: b speaks at 1-3 s, softly at 3.5-4.5 s and at 5-23 s of 25 s; a is silent for 3 s."""
    folder = tmp_path / "set"
    (folder / "wavs").mkdir(parents=True)
    speech = np.zeros(25 * RATE, np.float32)
    speech[1 * RATE : 3 * RATE] = speech[5 * RATE : 23 * RATE] = 0.5
    speech[7 * RATE // 2 : 9 * RATE // 2] = 0.1
    soundfile.write(folder / "wavs" / "b.wav", speech, RATE)
    soundfile.write(folder / "wavs" / "a.wav", np.zeros(3 * RATE), RATE)
    soundfile.write(folder / "extra.wav", np.zeros(RATE), RATE)
    (folder / "FILE_ORDER").write_text("b.wav\na\n", encoding="utf-8")
    return folder
