"""Fine-tune LoRA adapters with transformers.Trainer; an interrupted run resumes and ends with the same bytes.

The stock Trainer's AdamW, linear decay after warm-up, gradient clipping at 1 and checkpoints are kept. Four things
differ. The batches of the whole run are planned in advance (train.batches), so that resuming means skipping,
and so that several processes share each batch. A checkpoint counts only once a mark is written after its last byte
(train.callbacks): a run killed while it writes one resumes from the one before. Dev loss is measured token by token
(train.dev_evaluation). And adapters are written without times, paths or sets, so that equal weights are equal bytes.

Which linears get an adapter is the recipe's `finetune.roles`. The paper names none; `attn`, `mlp`, `audio.attn`,
`audio.mlp` and `projector` are what peft calls `all-linear`, the set that its documentation recommends, and leave the
head alone, as peft does.

The artifact: adapter/ (adapter_config.json, adapter_model.safetensors), log.jsonl (step with loss, learning_rate,
grad_norm, or with eval_loss and eval_bleu_<language>), curve.csv, curve.svg, curve.png, finetuning_report.json.
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint
from submission.model.families import read_config
from submission.processors import given_processors
from submission.runtime.loading import load_processor
from submission.runtime.prompt import Example, end_token_id
from submission.store.digests import canonical_json, sha256_file, write_text
from submission.store.launch import launched
from submission.system.recipe.training_options import FinetuneOptions
from submission.text.corpus import Utterance, iterate_corpus, read_corpus
from submission.text.segments import SAMPLE_RATE
from train.batches import PlannedBatches, Utterances, collate_targets, feature_bytes, plan_batches, render_prompts
from train.callbacks import (
    ADAPTER_FILES,
    BEST,
    CHECKPOINTS,
    TrainingCallback,
    best_step,
    check_processes,
    last_complete,
    write_log,
)
from train.corpora.decoded_audio import DecodedAudio, Place
from train.dev_evaluation import DevEvaluation
from train.loss_curve import BLEU, write_plots, write_table
from train.model import TargetLoss, load_adapted, save_adapter, target_modules, trainable_parameters
from train.processes import first_decides
from train.sharding import check_sharded, check_sharding
from train.utterance_table import UtteranceTable, distinct_places, shared_places, write_utterance_table

REPORT = "finetuning_report.json"
"""Written last, after adapter/ and log.jsonl: a run that has it is finished."""
KEPT_FEATURES_BYTES = 512 << 20
"""Audio features up to this size are computed once, before the first step, and kept; beyond it data workers compute
them again each epoch."""
DECODED = "decoded.f32"
"""Below checkpoints/, and removed with them."""
MOST_WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The task that the campaign fixes: prompt, languages, end token."""

    model_name: str
    prompt: str
    """With `{target_language}`, and a place for the audio as the family expects it."""
    languages: dict[str, str]
    """Code of each target language -> its name in the prompt."""
    end_token: str


class LoraTrainer(Trainer):
    """Trainer with planned batches, evaluation by `DevEvaluation`, and adapters written by `save_adapter`."""

    def __init__(self, *, batches: PlannedBatches, dev: DevEvaluation, base_name: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.batches = batches
        self.dev = dev
        self.base_name = base_name
        base = self.adapted.get_base_model()
        assert isinstance(base, PreTrainedModel)
        self.target_loss = TargetLoss(base)

    @property
    def adapted(self) -> PeftModel:
        """The model in training, without the wrapper that it may be called in."""
        assert isinstance(self.model, PeftModel)
        return self.model

    @property
    def training_utterances(self) -> Utterances:
        """What is trained on."""
        assert isinstance(self.train_dataset, Utterances)
        return self.train_dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean cross-entropy of the step's labels; over all processes where there are several."""
        labels = inputs.pop("labels")
        loss = self.target_loss(model, inputs, labels, num_items_in_batch) * self.accelerator.num_processes
        return (loss, {"loss": loss}) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader[Example]:
        """Return the loader of the whole run's batches, this process' share of each; to the Trainer it is one epoch.

        It is not prepared by accelerate, which would give whole batches to the processes in turn.
        """
        workers = self.args.dataloader_num_workers
        return DataLoader(
            self.training_utterances,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            generator=torch.Generator(),  # its own, so that dropout does not depend on which process loads what
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory,
            multiprocessing_context="spawn" if workers else None,
        )

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return and log eval_loss and eval_bleu_<language> of dev."""
        self.adapted.eval()
        forward: Any = self.model_wrapped if self.is_fsdp_enabled else self.adapted

        def summed_loss(batch: dict[str, Any]) -> torch.Tensor:
            inputs = self._prepare_inputs(batch)
            return self.target_loss(forward, inputs, inputs.pop("labels"), 1)

        metrics = {"eval_loss": self.dev.loss(self.accelerator, summed_loss)}
        with self.accelerator.autocast():
            bleu = self.dev.bleu(self.accelerator, forward, synced=self.is_fsdp_enabled)
        metrics |= {f"{BLEU}{language}": score for language, score in bleu.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        if not self.args.should_save:
            return  # called in every process; under FSDP only the first one is given the whole weights
        folder = output_dir or self.args.output_dir
        assert folder is not None  # `training_arguments` names one
        save_adapter(self.accelerator.unwrap_model(self.model), Path(folder), self.base_name, state_dict)

    def save_adapter_to(self, folder: Path) -> None:
        """Write the adapters as they are now; every process must call it, the first one writes."""
        weights = self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else None
        if self.args.should_save:
            self._save(str(folder), weights)


def training_arguments(
    folder: Path, options: FinetuneOptions, steps: int, workers: int, processes: int = 1
) -> TrainingArguments:
    """Return the Trainer's settings; it reports to no service and prints no progress bar."""
    cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        num_train_epochs=1,  # the planned batches of all epochs are one
        per_device_train_batch_size=options.batch_size // processes,
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=False,
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
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_num_workers=workers,
        dataloader_pin_memory=cuda,
        dataloader_multiprocessing_context="spawn" if workers else None,
        use_cpu=not cuda,
        disable_tqdm=True,
        report_to="none",
        push_to_hub=False,
        seed=options.seed,
    )
    if arguments.device.type == "cuda":
        arguments._n_gpu = 1  # one device per process: never torch's DataParallel
    return arguments


def _finished(out: Path) -> dict[str, Any] | None:
    """Return the report of a run that was killed after its last file, and remove its checkpoints; else None."""
    if not (out / REPORT).is_file():
        return None
    if (out / CHECKPOINTS).is_dir():
        shutil.rmtree(out / CHECKPOINTS)  # perhaps partly removed already, so never to be resumed from
    return json.loads((out / REPORT).read_text(encoding="utf-8"))


def _read(corpus: Path, task: Task, folder: Path) -> tuple[UtteranceTable, UtteranceTable]:
    """Return the utterances to train on and those to evaluate on: of dev, what is not trained on, sorted by length.

    folder: the first process writes both tables there, and all of them map the files.
    """
    paths = folder / "train.arrow", folder / "dev.arrow"
    with PartialState().main_process_first():
        if PartialState().is_main_process:
            _write_tables(corpus, *paths)
    train, dev = (UtteranceTable(path) for path in paths)
    if unknown := {*train.languages, *dev.languages} - task.languages.keys():
        raise UserError("corpus", f"has the target languages {sorted(unknown)}", f"known: {sorted(task.languages)}")
    if not len(dev):
        what = "everything in dev.jsonl is in train.jsonl too"
        raise UserError(str(corpus), what, "hold recordings out: corpus.held_out_recordings in the recipe")
    return train, dev


def _write_tables(corpus: Path, train: Path, dev: Path) -> None:
    """Write train.jsonl as a table, and dev.jsonl without what is trained on."""
    utterances = read_corpus(corpus / "dev.jsonl")
    places = {u.stretch for u in utterances}
    trained = set()

    def recorded() -> Iterator[Utterance]:
        for u in iterate_corpus(corpus / "train.jsonl"):
            if (place := u.stretch) in places:
                trained.add(place)
            yield u

    write_utterance_table(train, recorded())
    rest = [u for u in utterances if u.stretch not in trained]
    write_utterance_table(dev, sorted(rest, key=lambda u: u.end - u.start))


def _resumable(out: Path) -> tuple[dict[str, Any] | None, Path | None]:
    """Return the report of a run that is finished, and the checkpoint to resume from."""
    with PartialState(cpu=not torch.cuda.is_available()).main_process_first():
        report = _finished(out)
        if report is not None:
            return report, None
        (out / CHECKPOINTS).mkdir(exist_ok=True)
        return None, last_complete(out / CHECKPOINTS)


def finetune(base: Path, corpus: Path, data: Path, task: Task, options: FinetuneOptions, out: Path) -> dict[str, Any]:
    """Train adapters for the base model on train.jsonl of `corpus`, evaluating on dev.jsonl; return the report.

    out may hold the files of a killed run, which is then resumed from its last complete checkpoint; on a CPU it ends
    with the bytes of an uninterrupted one. data: the folder that the utterances' audio is relative to. Where a
    launcher started several processes, all of them call this with the same arguments and share every batch.
    Raises UserError for a base that is not whole, for a batch that the processes cannot share evenly, and for a
    checkpoint that another number of processes wrote.
    """
    report, checkpoint = _resumable(out)
    if report is not None:
        return report
    if checkpoint is not None:
        check_processes(checkpoint, PartialState().num_processes)
    trainer = _make_trainer(base, corpus, data, task, options, out)
    steps, state = len(trainer.batches), PartialState()
    done = int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0
    if checkpoint and state.is_main_process:
        print(f"finetune: resuming from step {done} of {steps}", file=sys.stderr, flush=True)
    trainer.args.eval_on_start = checkpoint is None
    if state.num_processes > 1:
        torch.manual_seed(options.seed + 1 + state.process_index)  # dropout of its own per process
    with launched().progress("finetune", steps - done, "steps") as tick:
        trainer.add_callback(TrainingCallback(out, tick, state.wait_for_everyone, first_decides))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return _publish(trainer, base, corpus, options, out)


def _make_trainer(base: Path, corpus: Path, data: Path, task: Task, options: FinetuneOptions, out: Path) -> LoraTrainer:
    check_sharding(os.environ)
    read_checkpoint(base)
    train, dev = _read(corpus, task, out / CHECKPOINTS)
    state = PartialState()
    if options.batch_size % state.num_processes:
        what = f"{options.batch_size} utterances cannot be shared evenly by {state.num_processes} processes"
        raise UserError("recipe: finetune.batch_size", what, "start a number of processes that divides it")
    processor = load_processor(base)
    end_token_id(processor, task.end_token)
    keep = len(distinct_places(train, dev)) * feature_bytes(dev[:1], processor) <= KEPT_FEATURES_BYTES
    workers = 0 if keep else min(MOST_WORKERS, max(1, given_processors() // state.num_processes - 1))
    make = functools.partial(
        Utterances,
        processor=processor,
        audio=_decoded(data, out, [] if keep else shared_places(train, dev)),
        prompts=render_prompts(task.prompt, task.languages),
        end_token=task.end_token,
        keep=keep,
    )
    train_examples, dev_examples = make(train), make(dev)
    if keep:
        with launched().progress("finetune: audio features", len(train) + len(dev), "utterances") as tick:
            train_examples.extract_all(tick)
            dev_examples.extract_all(tick)
    batches = plan_batches(train.lengths.tolist(), options.batch_size, options.epochs, options.seed)
    trainer = LoraTrainer(
        batches=PlannedBatches(batches, options.batch_size, state.process_index, state.num_processes),
        dev=DevEvaluation(dev_examples, options.batch_size, options.bleu_utterances, workers),
        base_name=task.model_name,
        model=load_adapted(base, options),
        args=training_arguments(out, options, len(batches), workers, state.num_processes),
        train_dataset=train_examples,
        eval_dataset=dev_examples,
        data_collator=functools.partial(collate_targets, pad_token_id=processor.tokenizer.pad_token_id),
    )
    check_sharded(os.environ, trainer.is_fsdp_enabled)
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which is for results
    return trainer


def _decoded(data: Path, out: Path, places: Sequence[Place]) -> DecodedAudio:
    """Return the reader of samples, with each recording decoded once that would be decoded for each of its places."""
    decoded, state = DecodedAudio(data, out / CHECKPOINTS / DECODED, places), PartialState()
    share = len(decoded.recordings()[state.process_index :: state.num_processes])
    with launched().progress("finetune: decoding", share, "recordings") as tick:
        decoded.decode(state.process_index, state.num_processes, state.wait_for_everyone, tick)
    return decoded


def _sample(corpus: Path, utterances: UtteranceTable) -> dict[str, Any]:
    """Return what identifies the utterances that were trained on."""
    languages: dict[str, dict[str, Any]] = {}
    own_language, lengths = utterances.arrow.column("target_lang").to_numpy(), utterances.lengths
    for language in utterances.languages:
        own = lengths[own_language == language]
        languages[language] = {"utterances": len(own), "hours": round(int(own.sum()) / SAMPLE_RATE / 3600, 4)}
    ids = (name for chunk in utterances.arrow.column("id").chunks for name in chunk.to_pylist())
    names = sorted({name.partition("/")[0] for name in ids})
    return {"sha256": sha256_file(corpus / "train.jsonl"), "corpora": names, "languages": languages}


def _describe(
    trainer: LoraTrainer, base: Path, corpus: Path, options: FinetuneOptions, kept_step: int
) -> dict[str, Any]:
    """Return the report of a finished run."""
    train = trainer.training_utterances.utterances
    assert isinstance(train, UtteranceTable)  # of the corpus
    model = trainer.accelerator.unwrap_model(trainer.model)
    history = trainer.state.log_history
    evaluations = [entry for entry in history if "eval_loss" in entry]
    return {
        "base": trainer.base_name,
        "steps": trainer.state.global_step,
        "kept_step": kept_step,
        "seed": options.seed,
        "processes": trainer.accelerator.num_processes,
        "sample": _sample(corpus, train),
        "utterances": {"train": len(train), "dev": len(trainer.dev.utterances)},
        "trained_parameters": trainable_parameters(model),
        "adapted_linears": dict(Counter(target_modules(read_config(base), options.roles).values())),
        "dev_loss_by_step": [[entry["step"], entry["eval_loss"]] for entry in evaluations],
        "dev_bleu_by_step": [
            [entry["step"], {k.removeprefix(BLEU): v for k, v in entry.items() if k.startswith(BLEU)}]
            for entry in evaluations
        ],
    }


def _publish(trainer: LoraTrainer, base: Path, corpus: Path, options: FinetuneOptions, out: Path) -> dict[str, Any]:
    """Write the artifact's files and remove the Trainer's own files, some of them pickles; return the report."""
    history, step = trainer.state.log_history, trainer.state.global_step
    trainer.save_adapter_to(out / "adapter")
    if not trainer.is_world_process_zero():
        return {}
    if options.keep == "best":
        step = best_step(history) or step
        for name in ADAPTER_FILES:
            shutil.copyfile(out / CHECKPOINTS / BEST.format(step=step) / name, out / "adapter" / name)
    write_log(out / "log.jsonl", history)
    write_table(out / "curve.csv", history)
    write_plots(out, history, f"{trainer.base_name}: fine-tuning")
    report = _describe(trainer, base, corpus, options, step)
    write_text(out / REPORT, canonical_json(report))
    shutil.rmtree(out / CHECKPOINTS)
    return report
