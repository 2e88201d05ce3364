"""Evaluate a checkpoint on held-out sentences: the stock processor, `generate`, BLEU and chrF by sacrebleu.

Every domain is evaluated in clean speech by the voices of training; the known domains together also by voices and
accents that training does not have, over the telephone, and in noise. Sentences are single and from the held-out
split.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import ProcessorMixin, Qwen2AudioForConditionalGeneration

from submission.miniature.curriculum import NEW_DOMAIN, Condition, TrainingExample, one_thread, record
from submission.miniature.language import DOMAINS, sentences
from submission.miniature.model import LANGUAGES, PROMPT
from submission.miniature.voice import Split, voices
from submission.runtime.families.family import generate

BATCH_SIZE = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """One set of held-out recordings that is scored by itself."""

    name: str
    """Name of its scores, e.g. `clean/daily`."""
    domains: tuple[str, ...]
    speakers: Split
    condition: Condition


KNOWN = tuple(domain for domain in DOMAINS if domain != NEW_DOMAIN)
EVALUATION_SETS = (
    *(
        EvaluationSet(name=f"clean/{domain}", domains=(domain,), speakers="train", condition="clean")
        for domain in DOMAINS
    ),
    EvaluationSet(name="new-voices/known", domains=KNOWN, speakers="heldout", condition="clean"),
    EvaluationSet(name="telephone/known", domains=KNOWN, speakers="train", condition="telephone"),
    EvaluationSet(name="noise/known", domains=KNOWN, speakers="train", condition="noise"),
)


def evaluation_examples(evaluation_set: EvaluationSet, count: int, seed: int) -> list[TrainingExample]:
    """Return the examples of an evaluation set: `count` held-out sentences, spread over its domains and speakers."""
    rng = np.random.default_rng([seed, 2])
    speakers = voices(evaluation_set.speakers)
    pools = [sentences(domain, count, seed=seed, split="heldout") for domain in evaluation_set.domains]
    return [
        TrainingExample(
            domain=sentence.domain,
            spoken=(sentence.spoken,),
            targets=sentence.targets,
            voice=speakers[place % len(speakers)].name,
            condition=evaluation_set.condition,
            seed=int(rng.integers(2**31)),
        )
        for place, sentence in enumerate(pools[place % len(pools)][place] for place in range(count))
    ]


Translate = Callable[[Sequence[np.ndarray], str], list[str]]
"""Recordings, float32 [samples] at 16 kHz, and the name of a language -> their greedy translations."""


def evaluate_checkpoint(
    folder: Path, translator: Callable[[Path], Translate], count: int, seed: int, workers: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Return BLEU and chrF by evaluation set and language for `count` held-out sentences each.

    Sets are divided among single-threaded processes; their number does not change the scores.
    """
    tasks = [(folder, translator, evaluation_set, count, seed) for evaluation_set in EVALUATION_SETS]
    if workers == 1:
        results = [_evaluate(*task) for task in tasks]
    else:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            results = pool.starmap(_evaluate, tasks, chunksize=1)
    return {evaluation_set.name: result for evaluation_set, result in zip(EVALUATION_SETS, results, strict=True)}


def _evaluate(
    folder: Path, translator: Callable[[Path], Translate], evaluation_set: EvaluationSet, count: int, seed: int
) -> dict[str, dict[str, float]]:
    """Return one evaluation set's scores by language, computed on one thread."""
    with one_thread():
        translate_all = translator(folder)
        examples = evaluation_examples(evaluation_set, count, seed)
        waves = [record(example) for example in examples]
        return {
            code: score(translate_all(waves, name), [example.targets[code] for example in examples], code)
            for code, name in LANGUAGES.items()
        }


def translate(
    model: Qwen2AudioForConditionalGeneration,
    processor: ProcessorMixin,
    waves: Sequence[np.ndarray],
    target_language: str,
) -> list[str]:
    """Return the greedy translation of each recording, float32 [samples] at 16 kHz."""
    rate = processor.feature_extractor.sampling_rate
    prompt = PROMPT.format(target_language=target_language)
    order = sorted(range(len(waves)), key=lambda index: len(waves[index]))
    found: dict[int, str] = {}
    for start in range(0, len(order), BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        inputs = processor(
            text=[prompt] * len(chosen),
            audio=[waves[index] for index in chosen],
            sampling_rate=rate,
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            output = generate(model, **inputs, max_new_tokens=64)
        texts = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        found.update(zip(chosen, texts, strict=True))
    return [found[index].strip() for index in range(len(waves))]


def score(hypotheses: list[str], references: list[str], language: str) -> dict[str, float]:
    """Return corpus BLEU (13a, or zh for Chinese) and chrF, to one decimal."""
    from sacrebleu.metrics import BLEU, CHRF

    bleu = BLEU(tokenize="zh" if language == "zh" else "13a")
    return {
        "bleu": round(bleu.corpus_score(hypotheses, [references]).score, 1),
        "chrf": round(CHRF().corpus_score(hypotheses, [references]).score, 1),
    }
