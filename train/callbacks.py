"""Trainer callbacks: progress, complete checkpoints, the adapter with the lowest dev loss, and the log."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from submission.errors import UserError
from submission.store.digests import write_text
from train.loss_curve import BLEU

COMPLETE = "complete"
"""Name of the file that marks a finished checkpoint; it holds the number of processes that wrote it."""
CHECKPOINTS = "checkpoints"
BEST = "best-{step}"
"""Below checkpoints/: a copy of the adapter whose dev loss is the lowest so far."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
MOST_LOST_SECONDS = 480.0
"""A checkpoint is written at the first logged step this long after the last one, so that a kill costs at most ten
minutes of work."""
LOGGED = ("loss", "learning_rate", "grad_norm", "eval_loss")


class TrainingCallback(TrainerCallback):
    """Show progress, stop a run that diverges, save in time, mark complete checkpoints, and keep the best adapter."""

    def __init__(
        self,
        folder: Path,
        tick: Callable[[float], None],
        barrier: Callable[[], None],
        broadcast: Callable[[bool], bool],
    ) -> None:
        """barrier: returns once every process has called it; broadcast: the first process's value, for all of them."""
        self.folder = folder
        self.tick = tick
        self.barrier = barrier
        self.broadcast = broadcast
        self.saved = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the time to the first checkpoint from here."""
        self.saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance the progress line, and ask for a checkpoint where the last one is too long ago.

        Only at logged steps: a run that resumes elsewhere would log other means than an uninterrupted one.
        """
        if state.is_world_process_zero:
            self.tick(1)
        if state.global_step % args.logging_steps == 0:
            late = self.broadcast(time.monotonic() - self.saved >= MOST_LOST_SECONDS)
            control.should_save = control.should_save or late

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print what was logged, and write it to log.jsonl; UserError where the loss is not finite."""
        logs: dict[str, float] = kwargs["logs"]
        if not math.isfinite(logs.get("loss", 0.0)):
            raise UserError(
                f"finetune step {state.global_step}", f"the loss is {logs['loss']}", "lower finetune.learning_rate"
            )
        if not state.is_world_process_zero:
            return
        write_log(self.folder / "log.jsonl", state.log_history)
        if "loss" in logs:
            print(
                f"finetune: step {state.global_step} of {state.max_steps}, loss {logs['loss']:.4f}, "
                f"learning rate {logs['learning_rate']:.3g}",
                file=sys.stderr,
                flush=True,
            )
        if "eval_loss" in logs:
            bleu = [f"{name.removeprefix(BLEU)} {score:.1f}" for name, score in logs.items() if name.startswith(BLEU)]
            scores = f", BLEU {', '.join(bleu)}" if bleu else ""
            print(
                f"finetune: step {state.global_step}, dev loss {logs['eval_loss']:.4f}{scores}",
                file=sys.stderr,
                flush=True,
            )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark a checkpoint as complete once all of it is on disk, and keep the best adapter beside it."""
        self.barrier()  # every process writes the state of its random numbers
        self.saved = time.monotonic()
        if not state.is_world_process_zero:
            return
        checkpoint = self.folder / CHECKPOINTS / f"checkpoint-{state.global_step}"
        for path in checkpoint.rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
        best = best_step(state.log_history)
        if state.global_step == best:
            _copy_adapter(checkpoint)
        write_text(checkpoint / COMPLETE, f"{args.world_size}\n")
        # Only now: a run killed before this line resumes from the last complete checkpoint.
        for path in sorted(checkpoint.parent.glob(BEST.format(step="*"))):
            if path.name != BEST.format(step=best):
                shutil.rmtree(path)


def best_step(history: Sequence[dict[str, Any]]) -> int | None:
    """Return the first step after 0 with the lowest dev loss."""
    losses = [(entry["eval_loss"], entry["step"]) for entry in history if "eval_loss" in entry and entry["step"] > 0]
    return min(losses)[1] if losses else None


def _copy_adapter(checkpoint: Path) -> None:
    """Copy a checkpoint's adapter as the best."""
    step = checkpoint.name.removeprefix("checkpoint-")
    folder = checkpoint.parent / BEST.format(step=step)
    folder.mkdir(exist_ok=True)
    for name in ADAPTER_FILES:
        if not (checkpoint / name).is_file():
            what = f"step {step} wrote no {name}"
            raise UserError("finetune", what, "under FSDP set fsdp_state_dict_type to FULL_STATE_DICT")
        shutil.copyfile(checkpoint / name, folder / name)


def write_log(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write what was logged, one JSON object a line, without times."""
    lines = []
    for entry in history:
        names = (*LOGGED, *sorted(name for name in entry if name.startswith(BLEU)))
        lines.append({name: entry[name] for name in ("step", *names) if name in entry})
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines if len(line) > 1))


def last_complete(folder: Path) -> Path | None:
    """Return the latest complete checkpoint, and remove those that are not complete."""
    complete = {}
    for path in sorted(folder.glob("checkpoint-*")):
        if (path / COMPLETE).is_file():
            complete[int(path.name.removeprefix("checkpoint-"))] = path
        else:
            shutil.rmtree(path)
    return complete[max(complete)] if complete else None


def check_processes(checkpoint: Path, processes: int) -> None:
    """Refuse to resume with another number of processes, whose random numbers would differ."""
    wrote = (checkpoint / COMPLETE).read_text(encoding="utf-8").strip()
    if wrote != str(processes):
        what = f"was written by another number of processes: {wrote or '?'}, this run has {processes}"
        raise UserError(str(checkpoint), what, f"start as many as before, or remove {checkpoint.parent} to start over")
