"""Plan the batches of a whole training run before it starts, and make the examples that fill them.

Because the plan is one list from the first step to the last, a resumed run only has to skip as many batches as were
trained on; no sampler's state has to be restored. Several processes share each planned batch among them, so that
a step means the same utterances however many there are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from submission.runtime.families import RUNTIMES, runtime_of_processor
from submission.runtime.families.family import AudioFeatures
from submission.runtime.prompt import Example, collate, encode, extract_features, render_prompt
from submission.text.corpus import Utterance
from train.corpora.decoded_audio import DecodedAudio

CHUNK_BATCHES = 50
"""Batches that are sorted by length together: enough to fill each with like lengths, few enough to stay random."""


def plan_batches(lengths: Sequence[int], batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Return the indices of every batch of a run.

    Every index occurs once per epoch, in an order that depends on the seed and the epoch alone. The epochs follow each
    other without a break, so only the last batch of the run may be short. Batches hold utterances of like length.
    """
    stream: list[int] = []
    for epoch in range(epochs):
        order = list(range(len(lengths)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        stream += order
    batches = []
    chunk = CHUNK_BATCHES * batch_size
    for begin in range(0, len(stream), chunk):
        part = sorted(stream[begin : begin + chunk], key=lambda index: lengths[index])
        rest = part[: len(part) % batch_size]  # the shortest ones: the batch that is not full costs the least
        full = [part[i : i + batch_size] for i in range(len(rest), len(part), batch_size)]
        random.Random(f"{seed}/{begin}/batches").shuffle(full)
        batches += full + ([rest] if rest else [])
    return batches


def share(batch: list[int], rank: int, processes: int) -> list[int]:
    """Return the part of a batch that one of several processes takes: every index that many apart.

    A process for which there is nothing left gets the first index with its bits inverted, for which `Utterances`
    returns the example without labels: every process takes part in every step, and this one adds nothing to it.
    """
    return batch[rank::processes] or [~batch[0]]


class PlannedBatches(Sampler[list[int]]):
    """A plan, or one process' share of it, as a sampler for torch's DataLoader and accelerate."""

    def __init__(self, batches: list[list[int]], batch_size: int, rank: int = 0, processes: int = 1) -> None:
        """batch_size: of the whole batch; rank: which of the processes this one is."""
        self.batches = [share(batch, rank, processes) for batch in batches]
        self.batch_size = batch_size // processes
        self.drop_last = False

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class Utterances(Dataset[Example]):
    """Utterances as examples, made on access in the data workers; audio features may be computed once and kept."""

    def __init__(
        self,
        utterances: Sequence[Utterance],
        processor: Any,
        audio: DecodedAudio,
        prompts: dict[str, str],
        end_token: str,
        keep: bool,
    ) -> None:
        """audio: reads the samples; prompts: language code -> rendered prompt; keep: hold all audio features."""
        self.utterances = utterances
        self.processor = processor
        self.audio = audio
        self.prompts = prompts
        self.end_token = end_token
        self.kept: dict[tuple[str, int, int], AudioFeatures] | None = {} if keep else None

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> Example:
        """Return an utterance's example; for an inverted index (see `share`) the same without labels."""
        u = self.utterances[index if index >= 0 else ~index]
        example = encode(self.processor, self._features(u), self.prompts[u.target_lang], u.target, self.end_token)
        return example if index >= 0 else replace(example, prompt_tokens=len(example.input_ids))

    def prompt_only(self, index: int) -> Example:
        """Return an utterance's example without its target, as decoding gives it to the model."""
        u = self.utterances[index]
        return encode(self.processor, self._features(u), self.prompts[u.target_lang])

    def extract_all(self, tick: Callable[[float], None]) -> None:
        """Compute the audio features that are kept, so that no step waits for them."""
        for u in self.utterances:
            self._features(u)
            tick(1)

    def _features(self, u: Utterance) -> AudioFeatures:
        stretch = u.stretch
        if self.kept is not None and stretch in self.kept:
            return self.kept[stretch]
        features = extract_features(self.processor, self.audio.read(u.audio, u.start, u.end), u.id)
        if self.kept is not None:
            self.kept[stretch] = features
        return features


def collate_targets(examples: Sequence[Example], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Return a training batch whose audio features end soon after its longest audio.

    Tensors as in submission.runtime.prompt.collate, but fewer frames where the family can do without (`shorten`).
    """
    batch = collate(examples, pad_token_id, "right", labels=True)
    return RUNTIMES[examples[0].audio.family].shorten(batch)


def feature_bytes(utterances: Sequence[Utterance], processor: Any) -> int:
    """Return the memory that the audio features of all utterances take together."""
    bytes_of = runtime_of_processor(processor).feature_bytes
    stretches = {u.stretch for u in utterances}
    return sum(bytes_of(processor, end - start) for _, start, end in stretches)


def render_prompts(template: str, languages: dict[str, str]) -> dict[str, str]:
    """Return the prompt for each target language; languages: code -> name in the prompt."""
    return {code: render_prompt(template, name) for code, name in languages.items()}
