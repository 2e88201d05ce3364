"""LoRA fine-tuning through transformers.Trainer, made so that a killed run goes on and ends the same.

What the stock Trainer does is kept: AdamW, linear decay after warm-up, gradient clipping at 1, its checkpoints. Three
things are ours. The batches of the whole run are planned in advance (train.batches), so that resuming means skipping.
A checkpoint counts only once a mark is written after its last byte: a kill in the middle of writing one falls back to
the one before. And adapters are written without times, paths or sets, so that equal weights are equal bytes.

Which linears get an adapter is the recipe's `finetune.roles`. The paper does not say; `attn`, `mlp`, `audio.attn`,
`audio.mlp` and `projector` are what peft calls `all-linear`, the set that its documentation recommends, and leave the
head alone, as peft does.

The artifact: adapter/ (adapter_config.json, adapter_model.safetensors), log.jsonl (step with loss, learning_rate,
grad_norm, or with eval_loss), report.json.
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from submission.architectures import read_config
from submission.checkpoint import read_checkpoint
from submission.corpus import Utterance, read_corpus
from submission.digest import canonical_json, write_text
from submission.errors import UserError
from submission.progress import progress
from submission.recipe import FinetuneOptions
from submission.runtime.loading import load_processor
from submission.runtime.prompt import end_token_id
from train.batches import PlannedBatches, Utterances, collate_targets, feature_bytes, plan_batches, render_prompts
from train.model import TargetLoss, load_adapted, save_adapter, target_modules, trainable_parameters

COMPLETE = "complete"
"""Name of the file that marks a finished checkpoint."""
CHECKPOINTS = "checkpoints"
REPORT = "report.json"
"""Written last, after adapter/ and log.jsonl: a run that has it is finished."""
KEPT_FEATURES_BYTES = 512 << 20
"""Audio features up to this size are computed once and kept; beyond it data workers compute them again each epoch."""
MOST_WORKERS = 8
LOGGED = ("loss", "learning_rate", "grad_norm", "eval_loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the model learns to do, as the campaign fixes it."""

    model_name: str
    prompt: str
    """With `{target_language}` and one <|AUDIO|>."""
    languages: dict[str, str]
    """Code of each target language -> its name in the prompt."""
    end_token: str


class LoraTrainer(Trainer):
    """Trainer that takes its batches from a plan and writes adapters by `save_adapter`."""

    def __init__(self, *, batches: PlannedBatches, base_name: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.batches = batches
        self.base_name = base_name
        self.target_loss = TargetLoss(self.model.get_base_model())

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean cross-entropy of the step's labels; over all processes where there are several."""
        labels = inputs.pop("labels")
        loss = self.target_loss(model, inputs, labels, num_items_in_batch) * self.accelerator.num_processes
        return (loss, {"loss": loss}) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of the whole run's batches; to the Trainer the run is one epoch."""
        workers = self.args.dataloader_num_workers
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory,
            multiprocessing_context="spawn" if workers else None,
        )
        return self.accelerator.prepare(loader)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        save_adapter(
            self.accelerator.unwrap_model(self.model), Path(output_dir or self.args.output_dir), self.base_name
        )


class Watch(TrainerCallback):
    """Shows progress, stops a run that diverges, and marks checkpoints once they are whole."""

    def __init__(self, folder: Path, tick: Callable[[float], None]) -> None:
        self.folder = folder
        self.tick = tick

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.tick(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if not math.isfinite(logs.get("loss", 0.0)):
            raise UserError(
                f"finetune step {state.global_step}", f"the loss is {logs['loss']}", "lower finetune.learning_rate"
            )
        if "eval_loss" in logs:
            print(f"finetune: step {state.global_step}, dev loss {logs['eval_loss']:.4f}", file=sys.stderr, flush=True)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        write_log(self.folder / "log.jsonl", state.log_history)
        checkpoint = self.folder / CHECKPOINTS / f"checkpoint-{state.global_step}"
        for path in checkpoint.iterdir():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        write_text(checkpoint / COMPLETE, "")


def write_log(path: Path, history: list[dict[str, Any]]) -> None:
    """Write what was logged, one JSON object a line, without times."""
    lines = [{key: entry[key] for key in ("step", *LOGGED) if key in entry} for entry in history]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines if len(line) > 1))


def last_complete(folder: Path) -> Path | None:
    """Return the latest checkpoint that was written to its end, having removed those that were not."""
    whole = {}
    for path in sorted(folder.glob("checkpoint-*")):
        if (path / COMPLETE).is_file():
            whole[int(path.name.removeprefix("checkpoint-"))] = path
        else:
            shutil.rmtree(path)
    return whole[max(whole)] if whole else None


def training_arguments(folder: Path, options: FinetuneOptions, steps: int, workers: int) -> TrainingArguments:
    """Return the Trainer's settings. Nothing is reported anywhere and nothing is drawn on the screen by it."""
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        num_train_epochs=1,  # the planned batches of all epochs are one
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(options.warmup_ratio * steps),
        weight_decay=options.weight_decay,
        max_grad_norm=1.0,
        optim="adamw_torch",
        bf16=options.dtype == "bfloat16",
        activation_checkpointing=options.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if options.gradient_checkpointing else None,
        logging_steps=options.log_every_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=options.save_every_steps,
        save_strategy="steps",
        save_steps=options.save_every_steps,
        save_total_limit=2,
        prediction_loss_only=True,
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
        dataloader_pin_memory=cuda,
        dataloader_multiprocessing_context="spawn" if workers else None,
        use_cpu=not cuda,
        disable_tqdm=True,
        report_to="none",
        push_to_hub=False,
        seed=options.seed,
    )


def _finished(out: Path) -> dict[str, Any] | None:
    """Return the report of a run that was killed after its last file, having removed what the kill left; or None."""
    if not (out / REPORT).is_file():
        return None
    if (out / CHECKPOINTS).is_dir():
        shutil.rmtree(out / CHECKPOINTS)  # perhaps half removed already, marks and all: never to be resumed from
    return json.loads((out / REPORT).read_text(encoding="utf-8"))


def _check(utterances: list[Utterance], task: Task) -> None:
    unknown = {u.target_lang for u in utterances} - task.languages.keys()
    if unknown:
        raise UserError("corpus", f"has the target languages {sorted(unknown)}", f"known: {sorted(task.languages)}")


def finetune(base: Path, corpus: Path, data: Path, task: Task, options: FinetuneOptions, out: Path) -> dict[str, Any]:
    """Train adapters for the base model on train.jsonl of `corpus`, watching the loss on dev.jsonl; return the report.

    out may hold what a killed run left; the run then goes on from its last complete checkpoint, and on a CPU it ends
    with the bytes that an uninterrupted one gives. data: the folder that the utterances' audio is relative to.
    Raises UserError for a base that is not whole.
    """
    if (report := _finished(out)) is not None:
        return report
    read_checkpoint(base)
    train, dev = (read_corpus(corpus / f"{part}.jsonl") for part in ("train", "dev"))
    _check([*train, *dev], task)
    processor = load_processor(base)
    end_token_id(processor, task.end_token)
    keep = feature_bytes([*train, *dev], processor) <= KEPT_FEATURES_BYTES
    workers = 0 if keep else min(MOST_WORKERS, max(1, (os.cpu_count() or 1) - 1))
    prompts = render_prompts(task.prompt, task.languages)
    batches = plan_batches([u.end - u.start for u in train], options.batch_size, options.epochs, options.seed)
    (out / CHECKPOINTS).mkdir(exist_ok=True)
    checkpoint = last_complete(out / CHECKPOINTS)
    done = int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0
    if checkpoint:
        print(f"finetune: going on from step {done} of {len(batches)}", file=sys.stderr, flush=True)
    arguments = training_arguments(out, options, len(batches), workers)
    arguments.eval_on_start = checkpoint is None
    dev.sort(key=lambda u: u.end - u.start)
    make = functools.partial(
        Utterances, processor=processor, data=data, prompts=prompts, end_token=task.end_token, keep=keep
    )
    model = load_adapted(base, options)
    trainer = LoraTrainer(
        batches=PlannedBatches(batches, options.batch_size),
        base_name=task.model_name,
        model=model,
        args=arguments,
        train_dataset=make(train),
        eval_dataset=make(dev),
        data_collator=functools.partial(collate_targets, pad_token_id=processor.tokenizer.pad_token_id),
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which is for results
    with progress("finetune", len(batches) - done, "steps") as tick:
        trainer.add_callback(Watch(out, tick))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return _publish(trainer, base, train, dev, task, options, out)


def _publish(
    trainer: LoraTrainer,
    base: Path,
    train: list[Utterance],
    dev: list[Utterance],
    task: Task,
    options: FinetuneOptions,
    out: Path,
) -> dict[str, Any]:
    """Write the artifact's files and remove the Trainer's own, among which are pickles."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    save_adapter(model, out / "adapter", task.model_name)
    history = trainer.state.log_history
    write_log(out / "log.jsonl", history)
    dev_losses = [[entry["step"], entry["eval_loss"]] for entry in history if "eval_loss" in entry]
    report = {
        "steps": trainer.state.global_step,
        "utterances": {"train": len(train), "dev": len(dev)},
        "trained_parameters": trainable_parameters(model),
        "adapted_linears": dict(Counter(target_modules(read_config(base), options.roles).values())),
        "dev_loss_by_step": dev_losses,
    }
    write_text(out / REPORT, canonical_json(report))
    shutil.rmtree(out / CHECKPOINTS)
    return report
