"""Train the miniature's base model from random weights: `python -m submission.miniature forge --out DIR`.

A curriculum of two phases, both with Muon (see `optimiser`):

1. The audio encoder alone learns to spell the words that it hears (connectionist temporal classification).
Without this, cross-entropy on translations alone does not find the audio for a long time. 2. The whole model
learns to translate: cross-entropy on the target tokens + 0.3 times the first loss, the learning rate falling
to zero.

The word head of the first phase is thrown away; what remains is written as a Hugging Face checkpoint in bf16,
with `forge.json` beside it: settings, versions, how the losses fell, and scores on held-out sentences. The
same settings with the same number of processes on the same kind of processor give the same weights; another
processor rounds differently.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import count
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing
from transformers import Qwen2AudioConfig

from submission.errors import UserError
from submission.miniature.curriculum import one_thread, plan_lessons, record_features
from submission.miniature.evaluation import examine
from submission.miniature.language import DOMAINS, sentences
from submission.miniature.model import (
    SHAPES,
    Shape,
    build_model,
    make_config,
    make_processor,
    save_checkpoint,
    train_tokenizer,
)
from submission.miniature.optimiser import Optimiser, Team, alone, rate_scale
from submission.miniature.training import LETTERS, Batch, TrainingSet, encode, listening_losses, translation_loss
from submission.progress import progress
from submission.store.digests import canonical_json, write_text

TOKENIZER_SENTENCES = 1500
"""Sentences per domain that the tokenizer is trained on, each in three languages."""

LOG_EVERY_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How long and how fast the forge learns."""

    steps: int
    """Optimizer steps in both phases together."""
    listening_share: float = 0.38
    """Share of the steps that the first phase takes."""
    recordings: int = 10000
    """Different recordings; they are heard again once all have been heard."""
    batch_size: int = 32
    """Recordings per step, each with all its translations, over all processes."""
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    weight_decay: float = 0.01
    ctc_weight: float = 0.3
    """What the losses of listening count beside the cross-entropy in the second phase."""
    workers: int = 2
    """Single-threaded processes; they speak, and they share every batch."""
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
                f"{self.recordings} recordings make no batch of {self.batch_size}",
                "ask for more recordings",
            )

    @property
    def listening_steps(self) -> int:
        """Steps of the first phase."""
        return round(self.steps * self.listening_share)


def forge(out: Path, shape: Shape, training: Training, *, examined: int = 50, command: str = "") -> dict:
    """Train a model of `shape` from scratch into the folder `out` and return what forge.json says.

    examined: held-out sentences per domain and condition that are translated at the end; 0 examines nothing.
    command: recorded in forge.json as what was typed.
    Raises UserError if `out` holds anything already.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(str(out), "the folder is not empty", "name a new one")
    started = time.monotonic()
    processor = make_processor(train_tokenizer(tokenizer_texts(training.seed), shape.vocabulary), shape)
    config = make_config(processor.tokenizer, shape)
    config._attn_implementation = "eager"  # sdpa's backward pass on a CPU is 2.7 times slower
    lessons = plan_lessons(training.recordings, training.seed)
    with tempfile.TemporaryDirectory(prefix="forge-") as name:
        workshop = Path(name)
        processor.save_pretrained(workshop / "processor")
        path = workshop / "features.f16"
        features = record_features(lessons, workshop / "processor", path, training.workers)
        spoken_seconds = time.monotonic() - started
        curve = learn(workshop, config, TrainingSet(lessons, features, processor.tokenizer, shape.mel_frames), training)
        model = build_model(config, training.seed)
        model.load_state_dict(torch.load(workshop / "weights.pt", weights_only=True))
    save_checkpoint(model, processor, out)
    trained_seconds = time.monotonic() - started - spoken_seconds
    scores = examine(out, examined, training.seed, training.workers) if examined else {}
    report = {
        "command": command,
        "shape": asdict(shape),
        "training": asdict(training),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
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


def tokenizer_texts(seed: int) -> list[str]:
    """Return what the tokenizer is trained on: sentences of every domain in all three languages."""
    texts = []
    for domain in DOMAINS:
        for sentence in sentences(domain, TOKENIZER_SENTENCES, seed=seed, split="train"):
            texts += [sentence.source, *(sentence.targets[code] for code in sorted(sentence.targets))]
    return texts


def shape_named(name: str) -> Shape:
    """Return a shape by its name, or raise UserError with the names that exist."""
    if name not in SHAPES:
        raise UserError("forge", f"no shape {name!r}", f"use one of {', '.join(SHAPES)}")
    return SHAPES[name]


def learn(workshop: Path, config: Qwen2AudioConfig, school: TrainingSet, training: Training) -> list[dict[str, float]]:
    """Train with a team of processes, leave the weights in workshop/weights.pt, return the losses by step."""
    if training.workers == 1:
        return attend(alone(), workshop, config, school, training)
    elements = sum(parameter.numel() for parameter in Pupil(config, school, training.seed).parameters())
    board = torch.zeros(training.workers, elements).share_memory_()
    barrier = torch.multiprocessing.get_context("spawn").Barrier(training.workers)
    arguments = (board, barrier, workshop, config, school, training)
    torch.multiprocessing.spawn(_attend_as, arguments, nprocs=training.workers)
    return torch.load(workshop / "curve.pt", weights_only=True)


def _attend_as(rank: int, board: torch.Tensor, barrier: Barrier, *arguments) -> None:
    attend(Team(rank=rank, size=len(board), board=board, barrier=barrier), *arguments)


class Pupil(torch.nn.Module):
    """The model, and the heads of the first phase."""

    def __init__(self, config: Qwen2AudioConfig, school: TrainingSet, seed: int) -> None:
        super().__init__()
        self.model = build_model(config, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.word_head = torch.nn.Linear(config.audio_config.d_model, len(school.vocabulary) + 1)
            self.letter_head = torch.nn.Linear(config.audio_config.d_model, len(LETTERS) + 1)


def attend(
    team: Team, workshop: Path, config: Qwen2AudioConfig, school: TrainingSet, training: Training
) -> list[dict[str, float]]:
    """Do one process's part of the training; the first of the team prints, logs and saves."""
    with one_thread():
        pupil = Pupil(config, school, training.seed).train()
        curve = take_lessons(team, pupil, school, training)
    if team.rank == 0:
        torch.save(pupil.model.state_dict(), workshop / "weights.pt")
        torch.save(curve, workshop / "curve.pt")
    return curve


def take_lessons(team: Team, pupil: Pupil, school: TrainingSet, training: Training) -> list[dict[str, float]]:
    """Run both phases and return the losses, averaged over every ten steps."""
    optimiser = Optimiser(
        pupil,
        muon_rate=training.muon_rate,
        adam_rate=training.adam_rate,
        weight_decay=training.weight_decay,
    )
    curve: list[dict[str, float]] = []
    recent: list[dict[str, float]] = []
    shown = progress("learn", training.steps, "steps") if team.rank == 0 else nullcontext(lambda _: None)
    with shown as tick:
        for step, indices in zip(range(training.steps), endless(school, training), strict=False):
            listening = step < training.listening_steps
            rng = np.random.default_rng([training.seed, step, team.rank])
            batch = school.batch(indices[team.rank :: team.size], None if listening else rng)
            losses = lesson_losses(pupil, school, batch, listening=listening)
            heard = (losses["words"] + losses["letters"]) * (1.0 if listening else training.ctc_weight)
            (heard + losses.get("translation", 0.0)).backward()
            optimiser.step(rate_scale(step, training.steps), team)
            recent.append({name: float(loss.detach()) for name, loss in losses.items()})
            last = step + 1 in (training.listening_steps, training.steps)
            if last or (step + 1) % LOG_EVERY_STEPS == 0:
                curve.append({"step": step + 1} | mean_losses(recent))
                recent.clear()
                if team.rank == 0:
                    show(curve[-1])
            tick(1)
    return curve


def endless(school: TrainingSet, training: Training) -> Iterator[np.ndarray]:
    """Yield batches, one epoch after another."""
    for epoch in count():
        yield from school.batches(training.batch_size, seed=training.seed * 1000 + epoch)


def lesson_losses(pupil: Pupil, school: TrainingSet, batch: Batch, *, listening: bool) -> dict[str, torch.Tensor]:
    """Return the losses of what is heard and, unless only listening is learned, of the translation."""
    encoded = encode(pupil.model.model.audio_tower, batch.mel, batch.frames)
    losses = listening_losses(pupil.word_head, pupil.letter_head, encoded, batch)
    if not listening:
        losses["translation"] = translation_loss(pupil.model, encoded[0], batch, school)
    return losses


def mean_losses(recent: list[dict[str, float]]) -> dict[str, float]:
    """Return each loss's mean over some steps, to four decimals."""
    return {name: round(sum(row[name] for row in recent) / len(recent), 4) for name in recent[-1]}


def show(row: dict[str, float]) -> None:
    """Print one line of losses on stderr."""
    losses = ", ".join(f"{name} {row[name]:.3f}" for name in row if name != "step")
    print(f"step {row['step']:.0f}: {losses}", file=sys.stderr, flush=True)
