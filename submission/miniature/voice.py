"""Synthesise speech with espeak-ng from the package `espeakng-loader`: the same samples for the same text, always.

espeak-ng keeps state between sentences (phases of flutter, filters) that `espeak_Terminate` does not reset: the same
sentence comes out a few samples longer or shorter after another one. And it seeds the noise of breathing voices by the
clock whenever it starts. So `speak` unloads and loads the library around every utterance, which costs about 6 ms, and
seeds it after it has started. Nothing is shared between utterances, and work can be spread over processes in any order.
"""

from __future__ import annotations

import _ctypes
import ctypes
from dataclasses import dataclass
from typing import Literal

import espeakng_loader
import numpy as np
import soxr

from submission.text.segments import SAMPLE_RATE

AUDIO_OUTPUT_SYNCHRONOUS = 2
CHARACTERS_UTF8 = 1
POSITION_CHARACTER = 1
PARAMETER_RATE = 1
PARAMETER_PITCH = 3
PARAMETER_RANGE = 4
RANDOM_SEED = 1
SILENCE_LEVEL = 0.004
MARGIN_SECONDS = 0.05

Split = Literal["train", "heldout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One speaker: an espeak-ng accent and variant, spoken at one speed and pitch."""

    name: str
    """How recordings and tables call the speaker."""
    accent: str
    """espeak-ng's language, e.g. `en-us`; British English is `en`."""
    variant: str
    """espeak-ng's voice variant, e.g. `f3`; empty for the plain voice."""
    words_per_minute: int = 190
    """Speaking rate; espeak-ng's own default is 175."""
    pitch: int = 50
    """Base pitch from 0 to 99."""
    pitch_range: int = 50
    """Liveliness of the intonation, from 0 (monotone) to 99."""
    split: Split = "train"
    """Whether the base model is trained on this speaker."""

    @property
    def espeak_name(self) -> str:
        """What espeak-ng calls accent and variant together."""
        return f"{self.accent}+{self.variant}" if self.variant else self.accent


VOICES = (
    Voice(name="alice", accent="en", variant="f3", words_per_minute=190, pitch=55),
    Voice(name="bruno", accent="en", variant="m3", words_per_minute=200, pitch=45),
    Voice(name="carol", accent="en-us", variant="f2", words_per_minute=195, pitch=50, pitch_range=60),
    Voice(name="david", accent="en-us", variant="", words_per_minute=205, pitch=50),
    Voice(name="emily", accent="en-us", variant="f4", words_per_minute=185, pitch=60),
    Voice(name="frank", accent="en-us", variant="m1", words_per_minute=180, pitch=40),
    Voice(name="grace", accent="en-gb-x-rp", variant="f1", words_per_minute=200, pitch=52),
    Voice(name="henry", accent="en-gb-x-rp", variant="m7", words_per_minute=190, pitch=48, pitch_range=40),
    Voice(name="irene", accent="en-gb-x-gbclan", variant="f5", words_per_minute=195, pitch=58),
    Voice(name="james", accent="en-gb-x-gbclan", variant="m2", words_per_minute=210, pitch=44),
    Voice(name="karen", accent="en-us", variant="linda", words_per_minute=195, pitch=50),
    Voice(name="lewis", accent="en", variant="", words_per_minute=215, pitch=50),
    Voice(name="moira", accent="en-gb-scotland", variant="f2", words_per_minute=190, pitch=54, split="heldout"),
    Voice(name="niall", accent="en-gb-scotland", variant="m4", words_per_minute=185, pitch=46, split="heldout"),
    Voice(name="olive", accent="en-029", variant="f4", words_per_minute=190, pitch=56, split="heldout"),
    Voice(name="percy", accent="en-029", variant="m8", words_per_minute=195, pitch=42, split="heldout"),
    Voice(name="queen", accent="en-gb-x-gbcwmd", variant="f1", words_per_minute=200, pitch=50, split="heldout"),
    Voice(name="roger", accent="en-us-nyc", variant="m6", words_per_minute=205, pitch=47, split="heldout"),
    Voice(name="susan", accent="en-us", variant="f5", words_per_minute=195, pitch=62, split="heldout"),
    Voice(name="terry", accent="en", variant="m5", words_per_minute=200, pitch=43, split="heldout"),
)
"""Twelve training speakers, eight held-out ones: six with accents that training does not have, two without."""


def voices(split: Split) -> tuple[Voice, ...]:
    """Return the speakers of one split, in the order of VOICES."""
    return tuple(voice for voice in VOICES if voice.split == split)


def voice_named(name: str) -> Voice:
    """Return the speaker of that name; KeyError if there is none."""
    return {voice.name: voice for voice in VOICES}[name]


def speak(text: str, voice: Voice) -> np.ndarray:
    """Return `text` as `voice` speaks it: float32 [samples], mono, 16 kHz, within ±1.

    The result depends on text and voice alone. Silence at both ends is shortened to 50 ms.
    Raises ValueError for a text in which nothing can be spoken and RuntimeError where espeak-ng fails.
    """
    pieces, rate_hertz = _synthesise(text, voice)
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    loud = np.flatnonzero(np.abs(samples) > SILENCE_LEVEL * 32768)
    if not loud.size:
        raise ValueError(f"nothing to speak in {text!r}")
    margin = int(MARGIN_SECONDS * rate_hertz)
    cut = samples[max(loud[0] - margin, 0) : loud[-1] + 1 + margin].astype(np.float32) / 32768
    resampled = soxr.resample(cut, rate_hertz, SAMPLE_RATE, quality="HQ")
    limited: np.ndarray = np.clip(resampled, -1.0, 1.0)
    return limited.astype(np.float32)


def _synthesise(text: str, voice: Voice) -> tuple[list[np.ndarray], int]:
    """Return the int16 pieces that a freshly loaded espeak-ng gives its callback, and their rate in hertz."""
    pieces: list[np.ndarray] = []

    def collect(wave: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if wave and count > 0:
            pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)(collect)
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        data = espeakng_loader.get_data_path().encode()
        rate_hertz = library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0)
        if rate_hertz <= 0:
            raise RuntimeError(f"espeak-ng does not start with the data in {data.decode()}")
        library.espeak_ng_SetRandSeed(ctypes.c_long(RANDOM_SEED))  # breath is noise, seeded by the clock
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.espeak_name.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice.espeak_name}")
        library.espeak_SetParameter(PARAMETER_RATE, voice.words_per_minute, 0)
        library.espeak_SetParameter(PARAMETER_PITCH, voice.pitch, 0)
        library.espeak_SetParameter(PARAMETER_RANGE, voice.pitch_range, 0)
        raw = text.encode("utf-8")
        status = library.espeak_Synth(
            raw, ctypes.c_size_t(len(raw) + 1), 0, POSITION_CHARACTER, 0, CHARACTERS_UTF8, None, None
        )
        if status != 0 or library.espeak_Synchronize() != 0:
            raise RuntimeError(f"espeak-ng fails on {text!r}")
        library.espeak_Terminate()
    finally:
        _ctypes.dlclose(library._handle)
    return pieces, rate_hertz
