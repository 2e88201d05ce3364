"""The voice-activity detector, against the package whose weights it takes."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segment.probabilities.vad import CHUNK_SAMPLES, SileroVad, load_vad, scripted_model, speech_stretches
from submission.miniature.acoustics import add_noise, concatenate
from submission.miniature.voice import VOICES, speak

RATE = 16_000


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_vad()


@pytest.fixture(scope="module")
def talk() -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Two sentences with pauses, and where they lie."""
    texts = ["thank you for calling", "the train leaves at nine"]
    wave, places = concatenate([speak(text, VOICES[0]) for text in texts], [1.0, 1.5, 1.0])
    return add_noise(wave, 25, np.random.default_rng(0), "pink").astype(np.float32), places


def probabilities_of(vad: SileroVad, audio: np.ndarray) -> np.ndarray:
    return vad.probabilities(lambda start, end: audio[start:end], len(audio))


@pytest.fixture(scope="module")
def package():
    """The package's rules for stretches of speech; importing it sets torch to one thread, which is undone."""
    threads = torch.get_num_threads()
    before = set(sys.modules)
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    torch.set_num_threads(threads)
    yield get_speech_timestamps_from_probs
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_probabilities_are_those_of_the_packages_model(vad, talk):
    audio, _ = talk
    scripted = torch.jit.load(str(scripted_model())).eval()
    scripted.reset_states()
    expected = []
    with torch.inference_mode():
        for start in range(0, len(audio), CHUNK_SAMPLES):
            chunk = torch.from_numpy(audio[start : start + CHUNK_SAMPLES])
            chunk = torch.nn.functional.pad(chunk, (0, CHUNK_SAMPLES - len(chunk)))
            expected.append(scripted(chunk, RATE).item())
    assert np.abs(probabilities_of(vad, audio) - expected).max() < 1e-4
    assert max(expected) > 0.9 and min(expected) < 0.1


@given(st.lists(st.sampled_from([0.0, 0.3, 0.34, 0.36, 0.45, 0.5, 0.7, 1.0]), max_size=120), st.integers(0, 511))
def test_stretches_are_those_of_the_packages_rules(package, probabilities, short):
    samples = max(0, len(probabilities) * CHUNK_SAMPLES - short)
    expected = package([float(p) for p in probabilities], audio_length_samples=samples)
    got = speech_stretches(np.array(probabilities, np.float32), samples)
    assert len(got) == len(expected)
    for (start, end), stretch in zip(got, expected, strict=True):
        # the package lets two margins that meet overlap or part by a sample
        assert abs(start - stretch["start"]) <= 1 and abs(end - stretch["end"]) <= 1
        assert 0 <= start < end <= samples
    assert all(a[1] <= b[0] for a, b in zip(got, got[1:], strict=False))


def test_speech_is_detected_where_it_is(vad, talk):
    audio, places = talk
    stretches = speech_stretches(probabilities_of(vad, audio), len(audio))
    inside = np.zeros(len(audio), bool)
    for start, end in stretches:
        inside[start:end] = True
    assert all(inside[start:end].mean() > 0.8 for start, end in places)
    assert inside[: places[0][0] - RATE // 4].mean() < 0.1


def test_hours_are_read_block_by_block(vad):
    asked = []

    def read(start: int, end: int) -> np.ndarray:
        asked.append((start, end))
        return np.zeros(end - start, np.float32)

    assert len(vad.probabilities(read, 300 * RATE + 1)) == 300 * RATE // CHUNK_SAMPLES + 1
    assert asked[0][0] == 0 and asked[-1][1] == 300 * RATE + 1
    assert all(a[1] == b[0] for a, b in zip(asked, asked[1:], strict=False))
    assert max(end - start for start, end in asked) < 60 * RATE


@pytest.mark.parametrize("samples", [0, 1, 511, 512, 513, 20_000])
def test_any_length_has_probabilities_and_silence_no_speech(vad, samples):
    probabilities = probabilities_of(vad, np.zeros(samples, np.float32))
    assert probabilities.shape == (-(-samples // 512),)
    assert speech_stretches(probabilities, samples) == []


def test_the_package_itself_is_not_imported():
    assert Path(scripted_model()).is_file()
    assert "silero_vad" not in sys.modules or sys.modules["silero_vad"].__spec__ is not None
