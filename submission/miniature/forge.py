"""Train the miniature's base model from random weights: `python -m submission.miniature forge --out DIR`.

A curriculum of two phases, both with Muon (see `optimiser`):

1. The audio encoder, or where there is none the lower half of the decoder, is trained to recognise the spoken words
   (connectionist temporal classification). Without this phase, training on translations alone ignores the audio for a
   long time.
2. The whole model is trained to translate: cross-entropy on the target tokens + 0.3 times the first loss, with the
   learning rate falling to zero.

The word and letter heads of the first phase are discarded; the rest is written as a Hugging Face checkpoint in bf16,
with `forge.json` beside it: settings, versions, losses by step, and scores on held-out sentences. The same settings
with the same number of processes on the same kind of processor give the same weights; another processor rounds
differently.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import count
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.multiprocessing
from transformers import PreTrainedModel

from submission.errors import UserError
from submission.miniature import gemma4, model
from submission.miniature.curriculum import TrainingExample, one_thread, plan_examples
from submission.miniature.evaluation import Translate, evaluate_checkpoint
from submission.miniature.gemma4_training import DecoderLearner
from submission.miniature.language import DOMAINS, Sentence, sentences
from submission.miniature.optimiser import Optimiser, ProcessGroup, rate_scale, single_process
from submission.miniature.training import EncoderLearner, JointModel
from submission.progress import progress
from submission.store.digests import canonical_json, write_text

AnyShape = model.Shape | gemma4.DecoderShape
SHAPES: dict[str, AnyShape] = {
    shape.name: shape for shape in (model.SMALL, model.MINIATURE, gemma4.SMALL_DECODER, gemma4.GEMMA4)
}

TOKENIZER_SENTENCES = 1500
"""Sentences per domain that the tokenizer is trained on, each in three languages."""

LOG_EVERY_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Settings of the training from random weights."""

    steps: int
    """Optimizer steps in both phases together."""
    listening_share: float = 0.38
    """Share of the steps that the first phase takes."""
    recordings: int = 10000
    """Different recordings; an epoch is all of them."""
    batch_size: int = 32
    """Recordings per step, each with all its translations, over all processes."""
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    weight_decay: float = 0.01
    ctc_weight: float = 0.3
    """Weight of the first phase's losses beside the cross-entropy in the second phase."""
    workers: int = 2
    """Single-threaded processes that synthesise the recordings and share every batch."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "recordings", "batch_size", "workers"):
            if getattr(self, name) < 1:
                raise UserError("forge", f"{name} is {getattr(self, name)}", "use 1 or more")
        if self.batch_size % self.workers:
            raise UserError(
                "forge",
                f"batch_size {self.batch_size} does not divide among {self.workers} workers",
                "choose a multiple",
            )
        if self.recordings < self.batch_size:
            raise UserError(
                "forge",
                f"{self.recordings} recordings are fewer than a batch of {self.batch_size}",
                "choose a larger number of recordings",
            )

    @property
    def listening_steps(self) -> int:
        """Steps of the first phase."""
        return round(self.steps * self.listening_share)


class Batches(Protocol):
    """What batches are made from."""

    def batches(self, size: int, seed: int) -> list[np.ndarray]:
        """Return one epoch as index arrays of `size` recordings of similar length, in random order."""


class Learner(Protocol):
    """What the forge needs of a model family. It is sent to every process that trains."""

    def training_set(self, examples: Sequence[TrainingExample], path: Path, workers: int) -> Any:
        """Record the examples, write what the model reads of them to `path`, and return their `Batches`."""

    def joint_model(self, training_set: Any, seed: int) -> JointModel:
        """Return the model with its first weights and the heads of the first phase."""

    def losses(
        self, joint: JointModel, training_set: Any, indices: np.ndarray, rng: np.random.Generator, *, listening: bool
    ) -> dict[str, torch.Tensor]:
        """Return the losses of some recordings: words and letters, and translation unless only listening."""

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write a checkpoint with everything that belongs to it."""

    def translator(self, folder: Path) -> Translate:
        """Return what translates recordings with the checkpoint of a folder, by the stock classes."""


LEARNERS: dict[type, Callable[[Any, Sequence[Sentence]], Learner]] = {
    model.Shape: EncoderLearner,
    gemma4.DecoderShape: DecoderLearner,
}
"""Kind of shape -> how a model of it learns; made of the shape and the sentences that its tokenizer is trained on."""


def forge(
    out: Path, shape: AnyShape, training: Training, *, evaluation_sentences: int = 50, command: str = ""
) -> dict[str, Any]:
    """Train a model of `shape` from scratch into the folder `out` and return what forge.json says.

    evaluation_sentences: held-out sentences per evaluation set that are translated at the end; 0 skips the evaluation.
    command: the command line, for forge.json.
    Raises UserError if `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(str(out), "the folder is not empty", "name a new one")
    started = time.monotonic()
    learner = LEARNERS[type(shape)](shape, tokenizer_sentences(training.seed))
    examples = plan_examples(training.recordings, training.seed)
    with tempfile.TemporaryDirectory(prefix="forge-") as name:
        work_folder = Path(name)
        training_set = learner.training_set(examples, work_folder / "features.f16", training.workers)
        spoken_seconds = time.monotonic() - started
        curve = train_weights(work_folder, learner, training_set, training)
        trained = learner.joint_model(training_set, training.seed).model
        trained.load_state_dict(torch.load(work_folder / "weights.pt", weights_only=True))
    learner.save(trained, out)
    trained_seconds = time.monotonic() - started - spoken_seconds
    scores = (
        evaluate_checkpoint(out, learner.translator, evaluation_sentences, training.seed, training.workers)
        if evaluation_sentences
        else {}
    )
    report = {
        "command": command,
        "shape": asdict(shape),
        "training": asdict(training),
        "parameters": sum(parameter.numel() for parameter in trained.parameters()),
        "losses": curve,
        "scores": scores,
        "seconds": {"speaking": round(spoken_seconds), "training": round(trained_seconds)},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "espeakng-loader", "numpy")},
        },
        "machine": platform.machine(),
    }
    write_text(out / "forge.json", canonical_json(report))
    return report


def tokenizer_sentences(seed: int) -> list[Sentence]:
    """Return the sentences that a tokenizer is trained on: training sentences of every domain."""
    found = (sentences(domain, TOKENIZER_SENTENCES, seed=seed, split="train") for domain in DOMAINS)
    return [sentence for some in found for sentence in some]


def shape_named(name: str) -> AnyShape:
    """Return a shape by its name, or raise UserError with the names that exist."""
    if name not in SHAPES:
        raise UserError("forge", f"no shape {name!r}", f"use one of {', '.join(SHAPES)}")
    return SHAPES[name]


def train_weights(work_folder: Path, learner: Learner, training_set: Any, training: Training) -> list[dict[str, float]]:
    """Train with several processes, write work_folder/weights.pt, and return the losses by step."""
    if training.workers == 1:
        return train_process(single_process(), work_folder, learner, training_set, training)
    elements = sum(parameter.numel() for parameter in learner.joint_model(training_set, training.seed).parameters())
    board = torch.zeros(training.workers, elements).share_memory_()
    barrier = torch.multiprocessing.get_context("spawn").Barrier(training.workers)
    arguments = (board, barrier, work_folder, learner, training_set, training)
    torch.multiprocessing.spawn(_train_process_as, arguments, nprocs=training.workers)
    curve: list[dict[str, float]] = torch.load(work_folder / "curve.pt", weights_only=True)
    return curve


def _train_process_as(rank: int, board: torch.Tensor, barrier: Barrier, *arguments: Any) -> None:
    train_process(ProcessGroup(rank=rank, size=len(board), board=board, barrier=barrier), *arguments)


def train_process(
    processes: ProcessGroup, work_folder: Path, learner: Learner, training_set: Any, training: Training
) -> list[dict[str, float]]:
    """Do one process' part of the training; the first one prints, logs and saves."""
    with one_thread():
        joint = learner.joint_model(training_set, training.seed).train()
        curve = train_both_phases(processes, joint, learner, training_set, training)
    if processes.rank == 0:
        torch.save(joint.model.state_dict(), work_folder / "weights.pt")
        torch.save(curve, work_folder / "curve.pt")
    return curve


def train_both_phases(
    processes: ProcessGroup, joint: JointModel, learner: Learner, training_set: Any, training: Training
) -> list[dict[str, float]]:
    """Run both phases and return the losses, averaged over every ten steps."""
    optimiser = Optimiser(
        joint,
        muon_rate=training.muon_rate,
        adam_rate=training.adam_rate,
        weight_decay=training.weight_decay,
    )
    curve: list[dict[str, float]] = []
    recent: list[dict[str, float]] = []
    shown = progress("train", training.steps, "steps") if processes.rank == 0 else nullcontext(lambda _: None)
    with shown as tick:
        for step, indices in zip(range(training.steps), endless_batches(training_set, training), strict=False):
            listening = step < training.listening_steps
            rng = np.random.default_rng([training.seed, step, processes.rank])
            own = indices[processes.rank :: processes.size]
            losses = learner.losses(joint, training_set, own, rng, listening=listening)
            recognition = (losses["words"] + losses["letters"]) * (1.0 if listening else training.ctc_weight)
            (recognition + losses.get("translation", 0.0)).backward()
            optimiser.step(rate_scale(step, training.steps), processes)
            recent.append({name: float(loss.detach()) for name, loss in losses.items()})
            last = step + 1 in (training.listening_steps, training.steps)
            if last or (step + 1) % LOG_EVERY_STEPS == 0:
                curve.append({"step": step + 1} | mean_losses(recent))
                recent.clear()
                if processes.rank == 0:
                    show(curve[-1])
            tick(1)
    return curve


def endless_batches(training_set: Batches, training: Training) -> Iterator[np.ndarray]:
    """Yield batches, one epoch after another."""
    for epoch in count():
        yield from training_set.batches(training.batch_size, seed=training.seed * 1000 + epoch)


def mean_losses(recent: list[dict[str, float]]) -> dict[str, float]:
    """Return each loss's mean over some steps, to four decimals."""
    return {name: round(sum(row[name] for row in recent) / len(recent), 4) for name in recent[-1]}


def show(row: dict[str, float]) -> None:
    """Print one line of losses on stderr."""
    losses = ", ".join(f"{name} {row[name]:.3f}" for name in row if name != "step")
    print(f"step {row['step']:.0f}: {losses}", file=sys.stderr, flush=True)
