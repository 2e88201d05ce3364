"""What the miniature is taught: sentences of every domain, spoken by many voices, in good and bad rooms.

A lesson says everything about one recording (texts, voice, acoustics, seed), so recordings can be made by any
number of processes and come out the same. Only the log-mel features are kept, in one file that the trainers
map into memory.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from submission.miniature import acoustics
from submission.miniature.language import DOMAINS, sentences
from submission.miniature.voice import speak, voice_named, voices
from submission.progress import progress

Condition = Literal["clean", "telephone", "noise", "babble", "music"]

CONDITIONS: dict[Condition, float] = {
    "clean": 0.5,
    "telephone": 0.15,
    "noise": 0.15,
    "babble": 0.1,
    "music": 0.1,
}
"""Share of the lessons heard in each condition."""

NEW_DOMAIN = "talks"
"""The domain that fine-tuning adapts to; the base model has hardly heard it."""

NEW_DOMAIN_SHARE = 0.02
DOUBLE_SHARE = 0.12
"""Share of lessons of two sentences with a pause between them, since automatic segments hold such pairs."""

BABBLE_TEXTS = (
    "I think we should wait for the others before we begin with this.",
    "No, the second one was much better than the first one, really.",
    "Could you please tell me how long it takes from here to there?",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One recording to learn from."""

    domain: str
    spoken: tuple[str, ...]
    """One or two texts as they are said."""
    targets: dict[str, str]
    """The translation by language code."""
    voice: str
    condition: Condition
    seed: int
    """For everything random about the recording."""

    @property
    def words(self) -> list[str]:
        """The words that are heard, lower case, as the model learns to recognise them first."""
        return spoken_words(" ".join(self.spoken))


def spoken_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation; digits are words of their own."""
    return re.findall(r"[a-z']+|\d", text.lower())


def joined(parts: Sequence[str], language: str) -> str:
    """Return sentences as one text: Chinese takes no blank between them."""
    return ("" if language == "zh" else " ").join(parts)


def plan_lessons(count: int, seed: int) -> list[Example]:
    """Return `count` lessons from the training sentences of all domains, shuffled; the new domain's share is small."""
    rng = np.random.default_rng([seed, 1])
    known = [domain for domain in DOMAINS if domain != NEW_DOMAIN]
    of_new = round(count * NEW_DOMAIN_SHARE)
    wanted = dict.fromkeys(known, -(-(count - of_new) // len(known))) | {NEW_DOMAIN: of_new}
    lessons: list[Example] = []
    for domain in sorted(wanted):
        pool = sentences(domain, round(wanted[domain] * (1 + DOUBLE_SHARE)) + 1, seed=seed, split="train")
        place = 0
        for _ in range(wanted[domain]):
            taken = pool[place : place + 1 + int(rng.random() < DOUBLE_SHARE)]
            place = (place + len(taken)) % (len(pool) - 1)
            lessons.append(draw_lesson(domain, taken, rng))
    return [lessons[index] for index in rng.permutation(len(lessons))[:count]]


def draw_lesson(domain: str, taken: Sequence, rng: np.random.Generator) -> Example:
    """Return a lesson of one or two sentences with a random trained voice and condition."""
    speakers = voices("train")
    languages = taken[0].targets
    return Example(
        domain=domain,
        spoken=tuple(sentence.spoken for sentence in taken),
        targets={code: joined([sentence.targets[code] for sentence in taken], code) for code in languages},
        voice=speakers[int(rng.integers(len(speakers)))].name,
        condition=list(CONDITIONS)[int(rng.choice(len(CONDITIONS), p=list(CONDITIONS.values())))],
        seed=int(rng.integers(2**31)),
    )


def record(lesson: Example) -> np.ndarray:
    """Return a lesson's recording, float32 [samples] at 16 kHz: its voice varied a little, its condition applied."""
    rng = np.random.default_rng(lesson.seed)
    voice = voice_named(lesson.voice)
    varied = dataclasses.replace(
        voice,
        words_per_minute=voice.words_per_minute + int(rng.integers(-12, 16)),
        pitch=voice.pitch + int(rng.integers(-6, 7)),
    )
    waves = [speak(text, varied) for text in lesson.spoken]
    pauses = rng.uniform(0.0, 0.25), *rng.uniform(0.15, 0.5, len(waves) - 1), rng.uniform(0.0, 0.25)
    wave, _ = acoustics.concatenate(waves, pauses)
    return acoustics.limit(in_condition(wave, lesson.condition, rng))


def in_condition(wave: np.ndarray, condition: Condition, rng: np.random.Generator) -> np.ndarray:
    """Return speech as it sounds in a condition, at a random severity."""
    if condition == "telephone":
        return acoustics.telephone_band(acoustics.add_noise(wave, rng.uniform(15, 35), rng))
    if condition == "noise":
        colour = ("white", "pink")[int(rng.integers(2))]
        return acoustics.add_noise(wave, rng.uniform(4, 25), rng, colour)
    if condition == "babble":
        return acoustics.mix(wave, acoustics.babble(talkers(), len(wave), rng), rng.uniform(5, 20))
    if condition == "music":
        return acoustics.mix(wave, acoustics.music(len(wave), rng), rng.uniform(5, 20))
    return wave


@cache
def talkers() -> tuple[np.ndarray, ...]:
    """Return the people who babble in the background, spoken once per process."""
    speakers = voices("train")
    return tuple(speak(text, speakers[3 * place]) for place, text in enumerate(BABBLE_TEXTS))


TAIL_FRAMES = 2
"""Frames kept past a recording's end: the encoder's convolutions look so far, and its last moments ring in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Log-mel features of many recordings, one after the other in a file of float16 [frames, bins]."""

    path: Path
    bins: int
    counts: np.ndarray
    """int64 [recordings]: frames of each recording; 0 for what was left out."""
    ends: np.ndarray
    """int64 [recordings]: where each recording's frames end in the file, its tail included."""

    def open(self) -> np.ndarray:
        """Return the frames of all recordings, mapped into memory."""
        return np.memmap(self.path, np.float16, "r", shape=(int(self.ends[-1]), self.bins))


_extractor = None


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread for a while: the work is spread over processes, and sums do not depend on the machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _start_worker(folder: str) -> None:
    """Prepare a process of its own for `_listen`."""
    import torch

    torch.set_num_threads(1)
    _take_extractor(folder)


def _take_extractor(folder: str) -> None:
    global _extractor
    from transformers import WhisperFeatureExtractor

    _extractor = WhisperFeatureExtractor.from_pretrained(folder)


def _listen(lesson: Example) -> tuple[int, np.ndarray]:
    """Return one recording's frame count, and its log-mel frames with a tail by the real extractor.

    The frames are float16 [frames, bins]; a recording longer than the window has none.
    """
    wave = record(lesson)
    if len(wave) > _extractor.n_samples:
        return 0, np.zeros((0, _extractor.feature_size), np.float16)
    output = _extractor(wave, sampling_rate=_extractor.sampling_rate, return_attention_mask=True, return_tensors="np")
    count = int(output["attention_mask"].sum())
    frames = output["input_features"][0, :, : count + TAIL_FRAMES].T
    return count, np.ascontiguousarray(frames, dtype=np.float16)


def record_features(
    lessons: Sequence[Example], processor_folder: Path, path: Path, workers: int, label: str = "speak"
) -> Features:
    """Record every lesson with `workers` processes, write the features to `path`, and say where each lies.

    Recordings longer than the encoder's window are left empty, and counted on stderr.
    """
    counts, lengths = [], []
    with path.open("wb") as file, progress(label, len(lessons), "recordings") as tick:
        for count, frames in _heard(lessons, processor_folder, workers):
            frames.tofile(file)
            counts.append(count)
            lengths.append(len(frames))
            tick(1)
    too_long = counts.count(0)
    if too_long:
        print(f"{label}: left out {too_long} recordings longer than the window", file=sys.stderr, flush=True)
    return Features(
        path=path,
        bins=frames.shape[1],
        counts=np.array(counts, np.int64),
        ends=np.cumsum(lengths, dtype=np.int64),
    )


def _heard(lessons: Sequence[Example], processor_folder: Path, workers: int) -> Iterator[tuple[int, np.ndarray]]:
    if workers <= 1:
        _take_extractor(str(processor_folder))
        with one_thread():
            yield from map(_listen, lessons)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (str(processor_folder),)) as pool:
        yield from pool.imap(_listen, lessons, chunksize=16)
