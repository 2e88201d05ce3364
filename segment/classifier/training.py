"""Training of the classifier, which labels every frame of a recording as inside an utterance or not.

As in SHAS: new windows of 20 s every epoch (here: the inference windows under a random shift), binary
cross-entropy in which pauses, the rarer class, weigh more, AdamW under a cosine. Unlike there, the encoder may
be small and learn from scratch along with the head; then a warm-up precedes the cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from segment.classifier.model import Classifier, build, load_classifier, normalise, save_classifier
from segment.classifier.training_data import LabelledRecording
from segment.probabilities.windows import TAIL_SECONDS, AudioSource, Window, frame_probabilities, plan_windows
from submission.errors import UserError
from submission.progress import progress
from submission.runtime.audio import read_slice
from submission.store.digests import canonical_json, write_text
from submission.text.segments import SAMPLE_RATE

FORGE = "forge.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How a classifier is trained; UserError for numbers that are not positive."""

    config: str = "tiny"
    """Name in classifier.CONFIGURATIONS."""
    steps: int = 400
    """Optimizer steps."""
    batch_size: int = 8
    """Windows per step."""
    window_seconds: float = 20.0
    learning_rate: float = 2e-3
    """Peak of the schedule: linear warm-up over the first tenth, then a cosine to zero."""
    weight_decay: float = 0.01
    seed: int = 42
    heldout_every: int = 8
    """Every n-th recording (by name) is held out and measured."""
    dtype: Literal["float32", "float16"] = "float32"
    """How the weights are saved."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "heldout_every"):
            if getattr(self, name) < 1:
                option = f"--{name.replace('_', '-')}"
                raise UserError(option, f"expected at least 1, got {getattr(self, name)}", "write a positive number")
        if not 0 < self.learning_rate < math.inf:
            raise UserError("--learning-rate", f"expected more than 0, got {self.learning_rate}", "write e.g. 2e-3")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameScore:
    """Frames counted against the labels at threshold 0.5."""

    true_speech: int
    false_speech: int
    true_pause: int
    false_pause: int

    def __add__(self, other: FrameScore) -> FrameScore:
        return FrameScore(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    def figures(self) -> dict[str, float]:
        """Return precision, recall and F1 of speech, F1 of pauses, and their mean (macro F1)."""

        def f1(right: int, wrong: int) -> float:
            return 2 * right / (2 * right + wrong) if right + wrong else 1.0

        wrong = self.false_speech + self.false_pause
        speech, pause = f1(self.true_speech, wrong), f1(self.true_pause, wrong)
        figures = {
            "precision": self.true_speech / max(1, self.true_speech + self.false_speech),
            "recall": self.true_speech / max(1, self.true_speech + self.false_pause),
            "f1": speech,
            "f1_pause": pause,
            "f1_macro": (speech + pause) / 2,
        }
        return {name: round(value, 4) for name, value in figures.items()}


def measure(classifier: Classifier, recordings: Sequence[LabelledRecording]) -> dict[str, Any]:
    """Return frame figures of a classifier over recordings: together (frames pooled) and each."""
    total = FrameScore(true_speech=0, false_speech=0, true_pause=0, false_pause=0)
    each = {}
    with progress("measuring", sum(r.samples for r in recordings) / SAMPLE_RATE, "s of audio") as tick:
        for recording in recordings:

            def read(start: int, end: int, path: Path = recording.path) -> np.ndarray:
                return read_slice(path, start, end)

            source = AudioSource(read=read, samples=recording.samples)
            (probabilities,) = frame_probabilities([source], classifier.probabilities, tick=tick)
            speech = probabilities >= 0.5
            label = recording.labels()
            score = FrameScore(
                true_speech=int((speech & label).sum()),
                false_speech=int((speech & ~label).sum()),
                true_pause=int((~speech & ~label).sum()),
                false_pause=int((~speech & label).sum()),
            )
            total += score
            each[recording.name] = score.figures()
    return {"all": total.figures(), "recordings": each}


def train_classifier(recordings: Sequence[LabelledRecording], options: TrainingOptions, out: Path) -> dict[str, Any]:
    """Train a classifier, save it with forge.json into `out`, and return the content of forge.json.

    The held-out figures are those of the saved weights, after their rounding.
    """
    heldout = list(recordings[:: options.heldout_every])
    training = [r for r in recordings if r not in heldout]
    if not training:
        raise UserError("--corpus", f"{len(recordings)} recordings leave none to train on", "give at least two")
    classifier = build(options.config, options.seed)
    loss = _fit(classifier, training, options)
    save_classifier(classifier, out, getattr(torch, options.dtype))
    report = {
        "options": asdict(options),
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "training": _amount(training),
        "final_loss": round(loss, 4),
        "heldout": _amount(heldout) | measure(load_classifier(out), heldout),
    }
    write_text(out / FORGE, canonical_json(report))
    return report


def _amount(recordings: Sequence[LabelledRecording]) -> dict[str, float]:
    samples = sum(r.samples for r in recordings)
    return {
        "count": len(recordings),
        "hours": round(samples / SAMPLE_RATE / 3600, 3),
        "speech_share": round(
            sum(int(r.labels().sum()) for r in recordings) / sum(len(r.labels()) for r in recordings), 4
        ),
    }


def _fit(classifier: Classifier, recordings: Sequence[LabelledRecording], options: TrainingOptions) -> float:
    """Train in place; return the mean loss of the last tenth of the steps."""
    optimizer = torch.optim.AdamW(
        classifier.parameters(), options.learning_rate, betas=(0.9, 0.98), weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmed_cosine(options.steps))
    labels = {r.name: r.labels() for r in recordings}
    pause_share = 1 - np.concatenate(list(labels.values())).mean()
    batches = _batches(recordings, labels, options)
    losses = []
    classifier.train()
    with (
        torch.random.fork_rng(devices=[]),
        progress(f"training {options.config}", options.steps, "steps") as tick,
    ):
        torch.manual_seed(options.seed)  # dropout
        for _ in range(options.steps):
            waveforms, lengths, targets, counted = next(batches)
            loss = _frame_loss(classifier(waveforms, lengths), targets, counted, torch.tensor(pause_share))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            tick(1)
    classifier.eval()
    return float(np.mean(losses[-max(1, options.steps // 10) :]))


def _warmed_cosine(steps: int) -> Callable[[int], float]:
    """Return step -> factor of the learning rate: up over the first tenth of the steps, then down by a cosine."""
    warmup = max(1, steps // 10)

    def rate(step: int) -> float:
        cosine = 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))
        return (step + 1) / warmup if step < warmup else cosine

    return rate


def _frame_loss(
    logits: torch.Tensor, targets: torch.Tensor, counted: torch.Tensor, speech_weight: torch.Tensor
) -> torch.Tensor:
    """Return the mean cross-entropy of the frames that count; all [batch, frames], as many as the fewest have."""
    logits = logits[:, : targets.shape[1]]
    targets, counted = targets[:, : logits.shape[1]], counted[:, : logits.shape[1]]
    total = binary_cross_entropy_with_logits(logits, targets, counted, pos_weight=speech_weight, reduction="sum")
    return total / counted.sum()


FrameBatch = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]


def _batches(
    recordings: Sequence[LabelledRecording], labels: dict[str, np.ndarray], options: TrainingOptions
) -> Iterator[FrameBatch]:
    """Yield batches for ever: epoch after epoch, each with windows under new shifts in a new order."""
    rng = np.random.default_rng(options.seed)
    width = round(options.window_seconds * SAMPLE_RATE)
    while True:
        windows = [
            (recording, window)
            for recording in recordings
            for window in plan_windows(recording.samples, int(rng.integers(width)), options.window_seconds)
            if window.end - window.start >= TAIL_SECONDS * SAMPLE_RATE
        ]
        if not windows:
            raise UserError("--corpus", f"no recording lasts {TAIL_SECONDS} s", "give long recordings")
        order = [windows[i] for i in rng.permutation(len(windows))]
        for i in range(0, len(order), options.batch_size):
            yield _collate(order[i : i + options.batch_size], labels)


def _collate(windows: Sequence[tuple[LabelledRecording, Window]], labels: dict[str, np.ndarray]) -> FrameBatch:
    """Return normalised waveforms [batch, samples], lengths (None: all alike), targets and weights [batch, frames]."""
    audio = [torch.from_numpy(read_slice(r.path, w.start, w.end)) for r, w in windows]
    lengths = torch.tensor([len(a) for a in audio])
    frames = [w.last_frame - w.first_frame for _, w in windows]
    waveforms = torch.zeros(len(audio), int(lengths.max()))
    targets, counted = torch.zeros(len(audio), max(frames)), torch.zeros(len(audio), max(frames))
    for row, ((recording, window), samples) in enumerate(zip(windows, audio, strict=True)):
        waveforms[row, : len(samples)] = normalise(samples[None])[0]
        inside = labels[recording.name][window.first_frame : window.last_frame]
        targets[row, : len(inside)] = torch.from_numpy(inside).float()
        counted[row, : len(inside)] = 1.0
    return waveforms, None if (lengths == lengths[0]).all() else lengths, targets, counted
