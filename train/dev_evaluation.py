"""Evaluate the model in training on dev: its loss on the targets, and BLEU of greedy translations.

Both are the same for any number of processes, up to rounding: the processes share the batches, and sums are reduced.
Every process runs every round, since a model that is sharded over devices needs all of them in each forward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from sacrebleu.metrics import BLEU
from torch.utils.data import DataLoader

from submission.runtime.families.family import generate
from submission.runtime.prompt import IGNORED, Example, collate, end_token_id
from submission.store.launch import launched
from submission.text.languages import bleu_tokenizer
from train.batches import PlannedBatches, Utterances, collate_targets

if TYPE_CHECKING:
    from accelerate import Accelerator

TOKENS_PER_TOKEN = 2
"""Most tokens of a translation, in multiples of the longest reference's; repetition loops end there."""


def corpus_bleu(language: str, hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Return BLEU with sacrebleu's defaults but for the language's tokenizer, to two digits."""
    metric = BLEU(tokenize=bleu_tokenizer(language))
    return round(metric.corpus_score(list(hypotheses), [list(references)]).score, 2)


def _rounds(batches: Sequence[list[int]], rank: int, processes: int) -> list[tuple[list[int], bool]]:
    """Return one process' batches, as many as every other process has, and whether each counts."""
    rounds = range(0, len(batches), processes)
    return [(batches[min(first + rank, len(batches) - 1)], first + rank < len(batches)) for first in rounds]


class DevEvaluation:
    """Loss and BLEU of the model on the dev utterances that it is not trained on."""

    def __init__(self, utterances: Utterances, batch_size: int, bleu_utterances: int, workers: int) -> None:
        """utterances: sorted by length, so that batches are; bleu_utterances: how many of each language get BLEU."""
        self.utterances = utterances
        indices = range(len(utterances))
        self.batches = [list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size)]
        self.translated = [i for language in self._languages() for i in _spread(self._of(language), bleu_utterances)]
        self.translated.sort()
        self.batch_size = batch_size
        self.workers = workers
        self._loader: DataLoader[Example] | None = None

    def _languages(self) -> list[str]:
        return sorted({u.target_lang for u in self.utterances.utterances})

    def _of(self, language: str) -> list[int]:
        return [i for i, u in enumerate(self.utterances.utterances) if u.target_lang == language]

    def loss(self, accelerator: Accelerator, summed_loss: Callable[[dict[str, Any]], torch.Tensor]) -> float:
        """Return the mean cross-entropy over all target tokens; summed_loss: batch -> its sum over the batch's."""
        rounds = _rounds(self.batches, accelerator.process_index, accelerator.num_processes)
        if self._loader is None:
            self._loader = DataLoader(
                self.utterances,
                batch_sampler=PlannedBatches([batch for batch, _ in rounds], self.batch_size),
                collate_fn=functools.partial(
                    collate_targets, pad_token_id=self.utterances.processor.tokenizer.pad_token_id
                ),
                generator=torch.Generator(),  # its own, so that dropout does not depend on which process loads what
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
                multiprocessing_context="spawn" if self.workers else None,
            )
        sums = torch.zeros(2, dtype=torch.float64)
        with launched().progress("finetune: dev loss", len(rounds), "batches") as tick:
            for (_, counts), batch in zip(rounds, self._loader, strict=True):
                tokens = int((batch["labels"][:, 1:] != IGNORED).sum())
                total = float(summed_loss(batch))
                if counts:
                    sums += torch.tensor([total, tokens], dtype=torch.float64)
                tick(1)
        total, tokens = accelerator.reduce(sums.to(accelerator.device), reduction="sum").tolist()
        return total / tokens

    def bleu(self, accelerator: Accelerator, model: Any, *, synced: bool) -> dict[str, float]:
        """Return target language -> BLEU of greedy translations of some of its utterances, sacrebleu's defaults.

        model: the one in training, or a wrapper of it, with its `generate`. synced: call the model until every process
        has finished, as a model that is sharded over devices requires.
        """
        batches = [self.translated[i : i + self.batch_size] for i in range(0, len(self.translated), self.batch_size)]
        found: dict[int, str] = {}
        rounds = _rounds(batches, accelerator.process_index, accelerator.num_processes)
        with launched().progress("finetune: dev translations", len(rounds), "batches") as tick:
            for batch, counts in rounds:
                texts = self.translate(batch, model, synced)
                if counts:
                    found |= zip(batch, texts, strict=True)
                tick(1)
        if accelerator.num_processes > 1:
            parts: list[dict[int, str]] = [{}] * accelerator.num_processes
            torch.distributed.all_gather_object(parts, found)
            found = {index: text for part in parts for index, text in part.items()}
        scores = {}
        for language in self._languages() if found else []:
            indices = [i for i in self.translated if self.utterances.utterances[i].target_lang == language]
            references = [self.utterances.utterances[i].target for i in indices]
            scores[language] = corpus_bleu(language, [found[i] for i in indices], references)
        return scores

    def translate(self, batch: list[int], model: Any, synced: bool) -> list[str]:
        """Return greedy translations of a batch of utterances, given by their indices, without the end token."""
        processor = self.utterances.processor
        tokenizer, end = processor.tokenizer, end_token_id(processor, self.utterances.end_token)
        references = [self.utterances.utterances[i].target for i in self.translated]
        longest = max(len(tokenizer.encode(text, add_special_tokens=False)) for text in references)
        inputs = collate([self.utterances.prompt_only(i) for i in batch], tokenizer.pad_token_id, "left", labels=False)
        sequences = generate(
            model,
            **{name: tensor.to(model.device) for name, tensor in inputs.items()},
            do_sample=False,
            num_beams=1,
            max_new_tokens=TOKENS_PER_TOKEN * longest,
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
            synced_gpus=synced,
        )
        generated = sequences[:, inputs["input_ids"].shape[1] :].tolist()
        kept = [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in generated]
        return [
            tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False) for tokens in kept
        ]


def _spread(indices: list[int], count: int) -> list[int]:
    """Return `count` of the indices, evenly spread; all where there are fewer."""
    count = min(count, len(indices))
    return [indices[i * len(indices) // count] for i in range(count)]
