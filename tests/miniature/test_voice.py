"""The voice is a function of text and speaker, whatever was spoken before."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest

from submission.miniature.voice import VOICES, speak, voices

TEXT = "Seven red bicycles are near the station at half past three."


@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.name)
def test_every_voice_speaks_loudly_enough_and_within_bounds(voice) -> None:
    wave = speak("The old engineer repairs a clock.", voice)
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    assert 0.8 < len(wave) / 16000 < 4.0
    assert 0.05 < np.abs(wave).max() <= 1.0


@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.name)
def test_same_text_gives_same_samples_after_other_texts(voice) -> None:
    first = speak(TEXT, voice)
    speak("Something else in between, at another speed?", VOICES[9])
    np.testing.assert_array_equal(speak(TEXT, voice), first)


def test_another_process_at_another_time_speaks_the_same_samples() -> None:
    program = (
        "import hashlib, sys; from submission.miniature.voice import *; "
        "print(*(hashlib.md5(speak(sys.argv[1], voice).tobytes()).hexdigest() for voice in VOICES[:6]))"
    )
    time.sleep(1.1)  # espeak-ng's own seed is the second in which it starts
    done = subprocess.run([sys.executable, "-c", program, TEXT], capture_output=True, text=True, check=True)
    here = [hashlib.md5(speak(TEXT, voice).tobytes()).hexdigest() for voice in VOICES[:6]]
    assert done.stdout.split() == here


def test_speakers_sound_different() -> None:
    lengths = {speak(TEXT, voice).tobytes() for voice in VOICES}
    assert len(lengths) == len(VOICES)


def test_names_are_unique_and_heldout_accents_are_new_to_training() -> None:
    assert len({voice.name for voice in VOICES}) == len(VOICES)
    trained = {voice.accent for voice in voices("train")}
    assert sum(voice.accent not in trained for voice in voices("heldout")) >= 4
    assert {voice.espeak_name for voice in voices("train")}.isdisjoint(voice.espeak_name for voice in voices("heldout"))


def test_silence_at_both_ends_is_cut_short() -> None:
    wave = speak(TEXT, VOICES[0])
    loud = np.flatnonzero(np.abs(wave) > 0.01)
    assert loud[0] < 0.1 * 16000
    assert len(wave) - loud[-1] < 0.15 * 16000


def test_text_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to speak"):
        speak(" ", VOICES[0])
