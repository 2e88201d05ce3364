"""Measure time and memory of a training step, against a plain loop of peft and transformers.Trainer.

The plain loop is the usual first version: the processor called on the texts and audios of a batch in the collator, with
its own padding; random batches; the model's own loss over every position. Both get the same base, adapters, utterances,
precision, batch size and number of steps. Each run is a process of its own, so that its peak memory is its own, and the
two take turns, so that other load on the machine affects both; rates are medians over the turns. Ours computes the
audio features before the first step where they are few enough to be kept, the plain loop in the step: the time that it
takes for the utterances of the timed steps is added to ours.
"""

from __future__ import annotations

import functools
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from submission.runtime.audio import read_slice
from submission.runtime.loading import load_processor
from submission.runtime.prompt import IGNORED
from submission.store.store import peak_bytes
from submission.system.recipe.training_options import FinetuneOptions
from submission.text.corpus import Utterance, read_corpus
from submission.text.segments import SAMPLE_RATE
from train.batches import PlannedBatches, Utterances, collate_targets, plan_batches, render_prompts
from train.corpora.decoded_audio import DecodedAudio
from train.dev_evaluation import DevEvaluation
from train.finetune import LoraTrainer, Task, training_arguments
from train.model import load_adapted

WARM_UP_STEPS = 2
"""Steps that are not timed: allocators and caches fill."""


class _Clock(TrainerCallback):
    """Record when each step ended, in wall and CPU time; the loading of its batch is part of a step."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append((time.perf_counter(), time.process_time()))

    def per_step(self) -> tuple[float, float]:
        """Return wall and CPU seconds per step, the first ones left out."""
        (wall, cpu), (last_wall, last_cpu) = self.ends[WARM_UP_STEPS - 1], self.ends[-1]
        count = len(self.ends) - WARM_UP_STEPS
        return (last_wall - wall) / count, (last_cpu - cpu) / count


def _settings(options: FinetuneOptions, folder: Path, steps: int) -> TrainingArguments:
    arguments = training_arguments(folder, options, steps, workers=0)
    arguments.set_save("no")
    arguments.set_evaluate("no")
    arguments.max_steps = steps
    return arguments


def _our_trainer(
    base: Path, utterances: list[Utterance], data: Path, task: Task, options: FinetuneOptions, folder: Path, steps: int
) -> Trainer:
    processor = load_processor(base)
    prompts = render_prompts(task.prompt, task.languages)
    examples = Utterances(utterances, processor, DecodedAudio(data, folder), prompts, task.end_token, keep=True)
    lengths = [u.end - u.start for u in utterances]
    epochs = 1 + steps * options.batch_size // len(utterances)
    batches = plan_batches(lengths, options.batch_size, epochs, options.seed)
    return LoraTrainer(
        batches=PlannedBatches(batches, options.batch_size),
        dev=DevEvaluation(examples, options.batch_size, 0, 0),
        base_name=task.model_name,
        model=load_adapted(base, options),
        args=_settings(options, folder, steps),
        train_dataset=examples,
        data_collator=functools.partial(collate_targets, pad_token_id=processor.tokenizer.pad_token_id),
    )


def _plain_trainer(
    base: Path, utterances: list[Utterance], data: Path, task: Task, options: FinetuneOptions, folder: Path, steps: int
) -> Trainer:
    processor = load_processor(base)
    processor.tokenizer.padding_side = "right"
    prompts = render_prompts(task.prompt, task.languages)

    def collate(batch: list[Utterance]) -> dict[str, torch.Tensor]:
        texts = [prompts[u.target_lang] + u.target + task.end_token for u in batch]
        audio = [read_slice(data / u.audio, u.start, u.end) for u in batch]
        inputs = processor(text=texts, audio=audio, sampling_rate=SAMPLE_RATE, padding=True, return_tensors="pt")
        labels = inputs["input_ids"].clone()
        for row, u in enumerate(batch):
            target = processor.tokenizer(u.target + task.end_token)["input_ids"]
            end = int(inputs["attention_mask"][row].sum())
            labels[row, : end - len(target)] = IGNORED
            labels[row, end:] = IGNORED
        return dict(inputs) | {"labels": labels}

    return Trainer(
        model=load_adapted(base, options),
        args=_settings(options, folder, steps),
        train_dataset=utterances,
        data_collator=collate,
    )


LOOPS: dict[str, Callable[..., Trainer]] = {"ours": _our_trainer, "plain": _plain_trainer}


def _train(
    loop: str, base: Path, corpus: Path, data: Path, task: Task, options: FinetuneOptions, steps: int
) -> dict[str, float]:
    """Return the cost of some steps of one loop; meant for a process of its own."""
    utterances = read_corpus(corpus / "train.jsonl")
    utterances = random.Random(options.seed).sample(utterances, min(len(utterances), steps * options.batch_size))
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = LOOPS[loop](base, utterances, data, task, options, Path(folder), steps)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        begun = time.perf_counter(), time.process_time()
        if isinstance(trainer.train_dataset, Utterances):  # our loop
            trainer.train_dataset.extract_all(lambda amount: None)
        features, features_cpu = (
            (now - then) / steps for now, then in zip((time.perf_counter(), time.process_time()), begun, strict=True)
        )
        trainer.train()
    wall, cpu = clock.per_step()
    return {
        "utterances_per_second": options.batch_size / (wall + features),
        "cpu_seconds_per_step": cpu + features_cpu,
        "of_which_features_cpu_seconds": features_cpu,
        "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_bytes(),
    }


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def bench_step(
    base: Path, corpus: Path, data: Path, task: Task, options: FinetuneOptions, *, steps: int, turns: int
) -> dict[str, Any]:
    """Return utterances/s and peak memory of both loops, and ours over the plain one's.

    steps: of each run, the first ones not timed; turns: how often the two alternate.
    """
    if steps <= WARM_UP_STEPS:
        raise ValueError(f"{steps} steps leave none to time")
    runs: dict[str, list[dict[str, float]]] = {loop: [] for loop in LOOPS}
    for _ in range(turns):
        for loop in LOOPS:
            runs[loop].append(alone(_train, loop, base, corpus, data, task, options, steps))
    result: dict[str, Any] = {
        loop: {name: statistics.median(run[name] for run in found) for name in found[0]} for loop, found in runs.items()
    }
    ours, plain = result["ours"], result["plain"]
    pairs = zip(runs["ours"], runs["plain"], strict=True)
    result["throughput_ratio"] = statistics.median(
        a["utterances_per_second"] / b["utterances_per_second"] for a, b in pairs
    )
    result["cpu_ratio"] = plain["cpu_seconds_per_step"] / ours["cpu_seconds_per_step"]
    result["memory_ratio"] = ours["peak_bytes"] / plain["peak_bytes"]
    return result | {"steps": steps, "turns": turns, "batch_size": options.batch_size}
