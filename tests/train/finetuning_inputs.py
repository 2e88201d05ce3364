"""A base model of random weights and a corpus of noise, for tests of fine-tuning and merging."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from submission.miniature.model import PROMPT, SMALL
from submission.system.recipe.training_options import FinetuneOptions
from submission.text.corpus import Utterance, write_corpus
from tests.support.tiny_qwen import build_checkpoint
from train.finetune import Task

TEXTS = {"de": ["der Hund schläft", "die Katze sieht den Hund", "ein Haus"], "zh": ["狗在睡觉", "猫看见狗", "一座房子"]}
TASK = Task(model_name="small", prompt=PROMPT, languages={"de": "German", "zh": "Chinese"}, end_token="<|im_end|>")
ROLES = ("attn", "mlp", "audio.attn", "audio.mlp", "projector", "lm_head")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuningInputs:
    """The folders that a test trains on."""

    base: Path
    corpus: Path
    data: Path


def options(**changes: object) -> FinetuneOptions:
    """Return options for a run of 8 steps in which everything is adapted and dropout needs its generator."""
    values = {
        "roles": ROLES,
        "rank": 4,
        "alpha": 8,
        "dropout": 0.1,
        "learning_rate": 1e-2,
        "epochs": 2,
        "batch_size": 4,
        "warmup_ratio": 0.03,
        "weight_decay": 0.0,
        "dtype": "float32",
        "gradient_checkpointing": False,
        "log_every_steps": 2,
        "save_every_steps": 4,
        "seed": 42,
        "bleu_utterances": 1,
    }
    return FinetuneOptions(**(values | changes))


def write_finetuning_inputs(root: Path) -> FinetuningInputs:
    """Write a random base model and a corpus of both languages; the last two of its ten stretches of noise are dev.

    The first two are of one recording at another rate, which has to be decoded whole; the others are files.
    """
    build_checkpoint(root / "base", [text for texts in TEXTS.values() for text in texts] * 9, SMALL, seed=3)
    (root / "data").mkdir()
    utterances = []
    rng = np.random.default_rng(0)
    soundfile.write(root / "data/speech.flac", 0.1 * rng.standard_normal(24_000), 24_000)
    for number in range(10):
        samples = 8_000 + 4_000 * (number % 8)
        name, start = ("speech.flac", 2_000 * number) if number < 2 else (f"{number}.wav", 0)
        if number >= 2:
            soundfile.write(root / f"data/{name}", 0.1 * rng.standard_normal(samples), 16_000)
        for language, texts in TEXTS.items():
            utterances.append(
                Utterance(
                    id=f"noise/{number}",
                    audio=name,
                    start=start,
                    end=start + samples,
                    source="noise",
                    target=texts[number % len(texts)],
                    source_lang="en",
                    target_lang=language,
                    recording=name,
                )
            )
    (root / "corpus").mkdir()
    write_corpus(root / "corpus/train.jsonl", utterances[:-4])
    write_corpus(root / "corpus/dev.jsonl", utterances[-4:])
    return FinetuningInputs(base=root / "base", corpus=root / "corpus", data=root / "data")


def logged(folder: Path, name: str) -> list[float]:
    """Return a column of a run's log."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line[name] for line in lines if name in line]
