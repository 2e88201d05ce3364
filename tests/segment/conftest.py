"""Fixtures of the segmentation tests: an empty cache, and a test set of two recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from segment.probabilities.speech_probabilities import ProbabilityCache
from tests.segment.support import RATE


@pytest.fixture
def cache(tmp_path) -> ProbabilityCache:
    return ProbabilityCache(folder=tmp_path / "probabilities")


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
