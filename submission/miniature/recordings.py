"""Synthesise the miniature's recordings: sentences, voices, pauses, environment, and the position of each sentence.

A session is a plan (data), a recording is its result: 16-bit samples and the positions of its sentences, so that a
gold segment is exactly the samples at its positions. Random numbers depend on the session's name and the seed alone;
only the sentences depend on the sessions recorded before, since no sentence is used twice.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from submission.miniature import acoustics
from submission.miniature.curriculum import talkers
from submission.miniature.language import Sentence, Split, sentences
from submission.miniature.voice import Voice, speak, voice_named
from submission.text.segments import SAMPLE_RATE

LONGEST_SECONDS = 6.4
"""No sentence is longer when it is spoken, so that all fit the 8 s window of the model."""

POOL = 50
"""Sentences generated at first per domain and split; the pool doubles when they are used up."""

Environment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


# --- environments


def quiet(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return speech with noise 30 to 45 dB below it."""
    return acoustics.add_noise(wave, rng.uniform(30, 45), rng)


def noisy(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return speech in noise 8 to 18 dB below it."""
    noise = acoustics.noise(_fast_length(len(wave)), "pink", rng)[: len(wave)]
    return acoustics.mix(wave, noise, rng.uniform(8, 18))


def crowded(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return speech with other voices in the background, 10 to 18 dB below it."""
    return acoustics.mix(wave, acoustics.babble(talkers(), len(wave), rng), rng.uniform(10, 18))


def musical(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return speech over music 8 to 16 dB below it."""
    return acoustics.mix(wave, acoustics.music(len(wave), rng), rng.uniform(8, 16))


def telephone(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return speech over a telephone line, with noise 18 to 30 dB below it."""
    samples = _fast_length(len(wave))
    padded = np.pad(acoustics.add_noise(wave, rng.uniform(18, 30), rng), (0, samples - len(wave)))
    return acoustics.telephone_band(padded)[: len(wave)]


def _fast_length(samples: int) -> int:
    """Return a length from `samples` on that has a fast Fourier transform (a prime one takes fifty times as long)."""
    step = 1 << max(samples.bit_length() - 4, 0)
    return -(-samples // step) * step


ENVIRONMENTS: tuple[Environment, ...] = (quiet, noisy, crowded, musical, telephone)


# --- sentences and sessions


class SentencePool:
    """Sentences of every domain and split, each returned once."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._pools: dict[tuple[str, Split], list[Sentence]] = {}
        self._used: dict[tuple[str, Split], int] = {}

    def take(self, domain: str, split: Split) -> Sentence:
        """Return the next sentence."""
        key = domain, split
        used, pool = self._used.get(key, 0), self._pools.get(key, [])
        if used == len(pool):  # a larger pool begins with the same sentences
            self._pools[key] = sentences(domain, max(POOL, 2 * used), seed=self._seed, split=split)
        self._used[key] = used + 1
        return self._pools[key][used]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The plan of a recording."""

    name: str
    """File name without `.wav`; the session's random numbers depend on it."""
    domains: tuple[str, ...]
    """Domains of the sentences, in turn."""
    voices: tuple[str, ...]
    """Speakers of the sentences, in turn."""
    lines: int
    """Number of sentences."""
    environment: Environment
    split: Split = "heldout"
    pauses_seconds: tuple[float, float] = (0.5, 1.7)
    """Shortest and longest pause before, between and after sentences."""
    speed: float = 1.0
    """Factor on the voices' words per minute."""
    longest_words: int = 15
    """Longer sentences are skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedSentence:
    """A sentence in a recording, in samples at 16 kHz; `end` is exclusive."""

    sentence: Sentence
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticRecording:
    """The samples of a session and the positions of its sentences."""

    name: str
    """File name, with `.wav`."""
    samples: np.ndarray
    """int16 [samples], mono, 16 kHz."""
    lines: tuple[PlacedSentence, ...]

    def cut(self, line: PlacedSentence) -> np.ndarray:
        """Return the samples of one line."""
        return self.samples[line.start : line.end]


def record(session: Session, pool: SentencePool, seed: int, tick: Callable[[float], None]) -> SyntheticRecording:
    """Return the recording of a session; `tick` is called once per sentence.

    Sentences that are too long are skipped.
    """
    rng = np.random.default_rng([seed, zlib.crc32(session.name.encode("utf-8"))])
    waves: list[np.ndarray] = []
    sentences: list[Sentence] = []
    speakers = [_varied(name, session.speed, rng) for name in session.voices]
    while len(sentences) < session.lines:
        turn = len(sentences)
        sentence = pool.take(session.domains[turn % len(session.domains)], session.split)
        if len(sentence.source.split(" ")) > session.longest_words:
            continue
        wave = speak(sentence.spoken, speakers[turn % len(speakers)])
        if len(wave) > LONGEST_SECONDS * SAMPLE_RATE:
            continue
        waves.append(wave)
        sentences.append(sentence)
        tick(1)
    pauses = rng.uniform(*session.pauses_seconds, len(sentences) + 1)
    wave, places = acoustics.concatenate(waves, [float(pause) for pause in pauses])
    recorded = acoustics.limit(acoustics.gain(session.environment(wave, rng), rng.uniform(-6, 0)))
    lines = tuple(
        PlacedSentence(sentence=sentence, start=start, end=end)
        for sentence, (start, end) in zip(sentences, places, strict=True)
    )
    return SyntheticRecording(name=f"{session.name}.wav", samples=pcm(recorded), lines=lines)


def _varied(name: str, speed: float, rng: np.random.Generator) -> Voice:
    """Return a voice at a slightly different speed and pitch."""
    voice = voice_named(name)
    words_per_minute = round(voice.words_per_minute * speed) + int(rng.integers(-8, 9))
    return dataclasses.replace(voice, words_per_minute=words_per_minute, pitch=voice.pitch + int(rng.integers(-4, 5)))


def jingle(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return a piece of music for between the parts of a broadcast, int16 [samples]."""
    return pcm(acoustics.limit(acoustics.music(round(seconds * SAMPLE_RATE), rng) * 0.1))


def spliced(name: str, pieces: Sequence[SyntheticRecording | np.ndarray]) -> SyntheticRecording:
    """Return recordings and sounds (int16 [samples]) one after the other as one recording."""
    lines: list[PlacedSentence] = []
    position = 0
    samples = [piece.samples if isinstance(piece, SyntheticRecording) else piece for piece in pieces]
    for piece, wave in zip(pieces, samples, strict=True):
        if isinstance(piece, SyntheticRecording):
            lines += [
                dataclasses.replace(line, start=position + line.start, end=position + line.end) for line in piece.lines
            ]
        position += len(wave)
    return SyntheticRecording(name=f"{name}.wav", samples=np.concatenate(samples), lines=tuple(lines))


def pcm(wave: np.ndarray) -> np.ndarray:
    """Return float samples within ±1 as 16-bit integers."""
    return np.round(wave * 32767).astype(np.int16)


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write int16 [samples] as a 16 kHz mono wav."""
    soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16", format="WAV")
