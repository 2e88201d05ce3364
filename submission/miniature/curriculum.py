"""Training examples of the base model: sentences of every domain, spoken by many voices, in clean and noisy conditions.

An example determines its recording (texts, voice, acoustics, seed), so any number of processes makes the same
recordings. Only what the model reads of them is kept, in one file that the training processes map into memory.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from submission.counting import counted
from submission.miniature import acoustics
from submission.miniature.language import DOMAINS, Sentence, sentences
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
"""Share of the examples in each condition."""

NEW_DOMAIN = "talks"
"""The domain that fine-tuning adapts to; the base model is trained on little of it."""

NEW_DOMAIN_SHARE = 0.02
DOUBLE_SHARE = 0.12
"""Share of examples of two sentences with a pause between them, since automatic segments hold such pairs."""

BABBLE_TEXTS = (
    "I think we should wait for the others before we begin with this.",
    "No, the second one was much better than the first one, really.",
    "Could you please tell me how long it takes from here to there?",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingExample:
    """One recording to train on, and its translations."""

    domain: str
    spoken: tuple[str, ...]
    """One or two texts as they are spoken."""
    targets: dict[str, str]
    """The translation by language code."""
    voice: str
    condition: Condition
    seed: int
    """For everything random about the recording."""

    @property
    def words(self) -> list[str]:
        """The spoken words in lower case: the targets of the first training phase."""
        return spoken_words(" ".join(self.spoken))


def spoken_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation; digits are words of their own."""
    return re.findall(r"[a-z']+|\d", text.lower())


def joined(parts: Sequence[str], language: str) -> str:
    """Return sentences as one text: Chinese takes no blank between them."""
    return ("" if language == "zh" else " ").join(parts)


def plan_examples(count: int, seed: int) -> list[TrainingExample]:
    """Return `count` examples from the training sentences of all domains, shuffled; the new domain's share is small."""
    rng = np.random.default_rng([seed, 1])
    known = [domain for domain in DOMAINS if domain != NEW_DOMAIN]
    of_new = round(count * NEW_DOMAIN_SHARE)
    wanted = dict.fromkeys(known, -(-(count - of_new) // len(known))) | {NEW_DOMAIN: of_new}
    examples: list[TrainingExample] = []
    for domain in sorted(wanted):
        pool = sentences(domain, round(wanted[domain] * (1 + DOUBLE_SHARE)) + 1, seed=seed, split="train")
        place = 0
        for _ in range(wanted[domain]):
            taken = pool[place : place + 1 + int(rng.random() < DOUBLE_SHARE)]
            place = (place + len(taken)) % (len(pool) - 1)
            examples.append(sample_example(domain, taken, rng))
    return [examples[index] for index in rng.permutation(len(examples))[:count]]


def sample_example(domain: str, taken: Sequence[Sentence], rng: np.random.Generator) -> TrainingExample:
    """Return an example of one or two sentences with a random training voice and condition."""
    speakers = voices("train")
    languages = taken[0].targets
    return TrainingExample(
        domain=domain,
        spoken=tuple(sentence.spoken for sentence in taken),
        targets={code: joined([sentence.targets[code] for sentence in taken], code) for code in languages},
        voice=speakers[int(rng.integers(len(speakers)))].name,
        condition=list(CONDITIONS)[int(rng.choice(len(CONDITIONS), p=list(CONDITIONS.values())))],
        seed=int(rng.integers(2**31)),
    )


def record(example: TrainingExample) -> np.ndarray:
    """Return an example's recording, float32 [samples] at 16 kHz: its voice varied a little, its condition applied."""
    rng = np.random.default_rng(example.seed)
    voice = voice_named(example.voice)
    varied = dataclasses.replace(
        voice,
        words_per_minute=voice.words_per_minute + int(rng.integers(-12, 16)),
        pitch=voice.pitch + int(rng.integers(-6, 7)),
    )
    waves = [speak(text, varied) for text in example.spoken]
    pauses = rng.uniform(0.0, 0.25), *rng.uniform(0.15, 0.5, len(waves) - 1), rng.uniform(0.0, 0.25)
    wave, _ = acoustics.concatenate(waves, pauses)
    return acoustics.limit(in_condition(wave, example.condition, rng))


def in_condition(wave: np.ndarray, condition: Condition, rng: np.random.Generator) -> np.ndarray:
    """Return speech as it sounds in a condition, at a random severity."""
    if condition == "telephone":
        return acoustics.telephone_band(acoustics.add_noise(wave, rng.uniform(15, 35), rng))
    if condition == "noise":
        colours: tuple[acoustics.Colour, ...] = ("white", "pink")
        colour = colours[int(rng.integers(2))]
        return acoustics.add_noise(wave, rng.uniform(4, 25), rng, colour)
    if condition == "babble":
        return acoustics.mix(wave, acoustics.babble(talkers(), len(wave), rng), rng.uniform(5, 20))
    if condition == "music":
        return acoustics.mix(wave, acoustics.music(len(wave), rng), rng.uniform(5, 20))
    return wave


@cache
def talkers() -> tuple[np.ndarray, ...]:
    """Return the background speakers of babble, synthesised once per process."""
    speakers = voices("train")
    return tuple(speak(text, speakers[3 * place]) for place, text in enumerate(BABBLE_TEXTS))


Extraction = Callable[[np.ndarray], tuple[int, np.ndarray]]
"""A recording, float32 [samples] -> its number of frames, 0 where it is longer than the window, and float16
[frames, width] with whatever the model reads past its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What a model reads of many recordings, one after the other in a file of float16 [frames, width]."""

    path: Path
    width: int
    counts: np.ndarray
    """int64 [recordings]: frames of each recording; 0 for what was left out."""
    ends: np.ndarray
    """int64 [recordings]: end of each recording's frames in the file, its tail included."""

    def open(self) -> np.ndarray:
        """Return the frames of all recordings, mapped into memory."""
        return np.memmap(self.path, np.float16, "r", shape=(int(self.ends[-1]), self.width))


_extraction: Extraction | None = None


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: the work is spread over processes, and sums do not depend on the machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _start_worker(extraction: Extraction) -> None:
    """Prepare a worker process for `_record_and_extract`."""
    import torch

    global _extraction
    torch.set_num_threads(1)
    _extraction = extraction


def _record_and_extract(example: TrainingExample) -> tuple[int, np.ndarray]:
    assert _extraction is not None  # each worker begins with `_start_worker`
    return _extraction(record(example))


def record_features(
    examples: Sequence[TrainingExample], extraction: Extraction, path: Path, workers: int, label: str = "features"
) -> Features:
    """Record every example with `workers` processes, write the features to `path`, and return their positions.

    Recordings longer than the window are left empty, and counted on stderr.
    """
    counts, lengths = [], []
    with path.open("wb") as file, progress(label, len(examples), "recordings") as tick:
        for count, frames in _all_features(examples, extraction, workers):
            frames.tofile(file)
            counts.append(count)
            lengths.append(len(frames))
            tick(1)
    too_long = counts.count(0)
    if too_long:
        print(f"{label}: left out {counted(too_long, 'recording')} longer than the window", file=sys.stderr, flush=True)
    return Features(
        path=path,
        width=frames.shape[1],
        counts=np.array(counts, np.int64),
        ends=np.cumsum(lengths, dtype=np.int64),
    )


def _all_features(
    examples: Sequence[TrainingExample], extraction: Extraction, workers: int
) -> Iterator[tuple[int, np.ndarray]]:
    if workers <= 1:
        with one_thread():
            yield from (extraction(record(example)) for example in examples)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (extraction,)) as pool:
        yield from pool.imap(_record_and_extract, examples, chunksize=16)
