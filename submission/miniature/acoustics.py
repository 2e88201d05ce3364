"""Apply recording conditions to speech: pauses, babble, music, noise, telephone lines.

Everything takes and returns float32 [samples] at 16 kHz. Whatever is random comes from the generator that the
caller passes, so a recording is a function of its seed. Levels are root mean squares over the whole signal; a
signal-to-noise ratio is stated in dB over the speech that is given, pauses included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import soxr

from submission.text.segments import SAMPLE_RATE

TELEPHONE_RATE = 8000
TELEPHONE_BAND_HERTZ = (300.0, 3400.0)
PEAK = 0.98

Colour = Literal["white", "pink"]


def rms(wave: np.ndarray) -> float:
    """Return the root mean square of a signal, 0.0 for an empty one."""
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if wave.size else 0.0


def silence(seconds: float) -> np.ndarray:
    """Return digital silence."""
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def gain(wave: np.ndarray, decibels: float) -> np.ndarray:
    """Return the signal louder or softer; it is not limited."""
    return (wave * 10 ** (decibels / 20)).astype(np.float32)


def level(wave: np.ndarray, target_rms: float) -> np.ndarray:
    """Return the signal scaled to a root mean square; silence stays silence."""
    now = rms(wave)
    return (wave * (target_rms / now)).astype(np.float32) if now > 0 else wave.astype(np.float32)


def limit(wave: np.ndarray) -> np.ndarray:
    """Return the signal scaled down, if it must be, so that no sample exceeds 0.98: files never clip."""
    peak = float(np.abs(wave).max(initial=0.0))
    return (wave * (PEAK / peak)).astype(np.float32) if peak > PEAK else wave.astype(np.float32)


def concatenate(
    waves: Sequence[np.ndarray], pauses_seconds: Sequence[float]
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return one signal with a pause before each piece and one after the last, and each piece's place in it.

    pauses_seconds: one more than waves. The places are (start, end) in samples, end exclusive.
    """
    if len(pauses_seconds) != len(waves) + 1:
        raise ValueError(f"{len(waves)} pieces need {len(waves) + 1} pauses, got {len(pauses_seconds)}")
    parts, places, position = [], [], 0
    for wave, pause in zip(waves, pauses_seconds, strict=False):
        quiet = silence(pause)
        parts += [quiet, wave]
        start = position + len(quiet)
        position = start + len(wave)
        places.append((start, position))
    parts.append(silence(pauses_seconds[-1]))
    return np.concatenate(parts).astype(np.float32), places


def band_pass(wave: np.ndarray, low_hertz: float, high_hertz: float, roll_off_hertz: float = 60.0) -> np.ndarray:
    """Return the signal with only one band left, by a zero-phase filter with raised-cosine edges.

    Half of each edge's roll-off lies on either side of its frequency.
    """
    spectrum = np.fft.rfft(wave)
    frequencies = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    rise = np.clip((frequencies - low_hertz) / roll_off_hertz + 0.5, 0, 1)
    fall = np.clip((high_hertz - frequencies) / roll_off_hertz + 0.5, 0, 1)
    edges = np.sin(np.pi / 2 * rise) ** 2 * np.sin(np.pi / 2 * fall) ** 2
    return np.fft.irfft(spectrum * edges, len(wave)).astype(np.float32)


def telephone_band(wave: np.ndarray) -> np.ndarray:
    """Return the signal as after a telephone line: 300 to 3400 Hz, 8 kHz, 8 bits of mu-law (ITU-T G.711).

    The result has as many samples as the input.
    """
    narrow = soxr.resample(band_pass(wave, *TELEPHONE_BAND_HERTZ), SAMPLE_RATE, TELEPHONE_RATE, quality="HQ")
    wide = soxr.resample(mu_law(narrow), TELEPHONE_RATE, SAMPLE_RATE, quality="HQ")
    return fit(wide, len(wave))


def mu_law(wave: np.ndarray) -> np.ndarray:
    """Return the signal after companding to 8 bits and back, with mu = 255."""
    clipped = np.clip(wave, -1, 1)
    companded = np.sign(clipped) * np.log1p(255 * np.abs(clipped)) / np.log(256.0)
    coarse = np.round(companded * 127) / 127
    expanded: np.ndarray = np.sign(coarse) * np.expm1(np.abs(coarse) * np.log(256.0)) / 255
    return expanded.astype(np.float32)


def fit(wave: np.ndarray, samples: int) -> np.ndarray:
    """Return the signal cut or padded with silence to exactly `samples`."""
    return np.pad(wave[:samples], (0, max(samples - len(wave), 0))).astype(np.float32)


def repeat_to(wave: np.ndarray, samples: int) -> np.ndarray:
    """Return the signal repeated end to end up to exactly `samples`."""
    if not wave.size:
        raise ValueError("cannot repeat an empty signal")
    return np.resize(wave, samples).astype(np.float32)


def noise(samples: int, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    """Return noise of unit root mean square: white, or pink (power falling with 1/frequency above 20 Hz)."""
    white = rng.standard_normal(samples)
    if colour == "white" or samples == 0:
        return level(white, 1.0)
    spectrum = np.fft.rfft(white)
    frequencies = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 20.0)
    return level(np.fft.irfft(spectrum / np.sqrt(frequencies), samples), 1.0)


def mix(speech: np.ndarray, background: np.ndarray, snr_db: float) -> np.ndarray:
    """Return speech with a background of its length at a signal-to-noise ratio; silence stays silence."""
    if len(background) != len(speech):
        raise ValueError(f"background has {len(background)} samples, speech {len(speech)}")
    mixed: np.ndarray = speech + level(background, rms(speech) * 10 ** (-snr_db / 20))
    return mixed.astype(np.float32)


def add_noise(speech: np.ndarray, snr_db: float, rng: np.random.Generator, colour: Colour = "white") -> np.ndarray:
    """Return speech in white or pink noise at a signal-to-noise ratio."""
    return mix(speech, noise(len(speech), colour, rng), snr_db)


def babble(talkers: Sequence[np.ndarray], samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return many people talking at once, at unit root mean square: each looped from a random moment on."""
    total = np.zeros(samples, np.float64)
    for wave in talkers:
        start = int(rng.integers(len(wave)))
        total += repeat_to(np.roll(level(wave, 1.0), -start), samples)
    return level(total, 1.0)


def music(samples: int, rng: np.random.Generator, beats_per_minute: float = 100.0) -> np.ndarray:
    """Return synthetic music, at unit root mean square: minor chords with overtones, a bass, a beat."""
    beat = round(60 / beats_per_minute * SAMPLE_RATE)
    scale = np.array([0, 2, 3, 5, 7, 8, 10])
    root_hertz = 110 * 2 ** (rng.integers(12) / 12)
    total = np.zeros(samples + beat, np.float64)
    seconds = np.arange(beat) / SAMPLE_RATE
    for start in range(0, samples, beat):
        degree = int(rng.integers(7))
        notes = [scale[(degree + step) % 7] + 12 * ((degree + step) // 7) for step in (0, 2, 4)]
        decay = np.exp(-seconds * 3)
        for note, weight in [(scale[degree] - 12, 1.5), *((note + 12, 1.0) for note in notes)]:
            pitch = root_hertz * 2 ** (note / 12)
            for overtone in range(1, 5):
                wave = np.sin(2 * np.pi * pitch * overtone * seconds)
                total[start : start + beat] += weight / overtone**1.5 * decay * wave
        hit = rng.standard_normal(beat) * np.exp(-seconds * 40)
        total[start : start + beat] += hit
    return level(total[:samples], 1.0)
