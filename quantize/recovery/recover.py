"""Recover a packed model at no bytes: tune scales, zero-points, norms and biases towards the model before packing.

Codes stay as the solver found them. On utterances of the training corpora, with their translation, the divergence of
the packed model's next-token distributions from the original's is minimized (knowledge distillation, Hinton et al.
2015; that scales alone recover much after quantization: EfficientQAT, Chen et al. 2024, its end-to-end phase). The
original runs once, and its distributions are kept on disk; then it is gone, and the packed model is tuned.

All translations of a stretch of audio are read: utterances are few beside the numbers that are tuned, and another
target text teaches more than the same one again. An eighth of the stretches is held out: the tuned numbers are written
where they are nearer to the original on these, and the packed model as it was where they are not.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from quantize.artifact_files import RECOVERY_REPORT
from quantize.calibration.model_moments import free_bytes
from quantize.calibration.utterance_choice import choose_utterances
from quantize.recovery.teacher import Teacher, write_teacher
from quantize.recovery.tunable_model import TunableModel
from quantize.recovery.tuning import mean_divergence, tune
from submission.errors import UserError
from submission.model.checkpoint import Checkpoint, read_checkpoint
from submission.model.recovery_size import recovery_bytes
from submission.runtime.examples import load_examples
from submission.runtime.families import runtime_of
from submission.runtime.loading import load_processor, load_weights
from submission.runtime.loss import Estimate
from submission.store.digests import canonical_json, write_text
from submission.system.recipe.quantize_options import HELD_OUT_SHARE, RecoveryOptions
from submission.text.corpus import Utterance, read_corpus

TEACHER = "teacher.safetensors"
STATE = "state.safetensors"
"""Beside the model while it is tuned: the original's distributions, and where a killed run resumes."""
CURVE_STEPS = 10
"""Steps that a figure of the report's curve is the mean of."""


def recover_system(
    merged: Path,
    packed: Path,
    corpus: Path,
    data: Path,
    out: Path,
    *,
    options: RecoveryOptions,
    prompts: Mapping[str, str],
    end_token: str,
    device: str = "cpu",
) -> None:
    """Fill `out` with the artifact of the stage recover: model/ and recovery_report.json.

    merged: the checkpoint; packed: the model packed from it; corpus: the folder with train.jsonl, whose audio paths are
    relative to `data`; prompts: pair -> rendered prompt. The same arguments give the same bytes on one machine and
    number of threads, also where a killed run is resumed. Raises UserError, before any audio is read, for a model that
    does not fit in memory and for more utterances than there are.
    """
    checkpoint = read_checkpoint(packed)
    check_recovery_memory(checkpoint, device)
    train = corpus / "train.jsonl"
    utterances = drawn_utterances(read_corpus(train), options, str(train))
    processor = load_processor(merged)
    spoken = {pair.partition("-")[2]: prompts[pair] for pair in options.pairs}
    examples = load_examples(utterances, data, processor, spoken, end_token, label="recover: audio features")
    pad = processor.tokenizer.pad_token_id
    if not (out / TEACHER).is_file():
        original = load_weights(merged, torch.float32, device)
        write_teacher(original, runtime_of(checkpoint.config).logits, examples, pad, out / TEACHER)
        del original
    teacher, student = Teacher(out / TEACHER, examples), TunableModel(packed, device)
    held_out = drawn_held_out(utterances, options.seed)
    before = mean_divergence(student, teacher, examples, held_out, pad)
    tuned_on = [index for index in range(len(examples)) if index not in set(held_out)]
    losses = tune(student, teacher, examples, tuned_on, pad, out / STATE, options)
    after = mean_divergence(student, teacher, examples, held_out, pad)
    better = after.value < before.value
    write_model(checkpoint, student.stored() if better else {}, out / "model")
    report = {
        **asdict(options),
        "utterances": len(tuned_on),
        "held_out_utterances": len(held_out),
        "numbers": sum(parameter.numel() for parameter in student.parameters()),
        "divergence_before": _figure(before),
        "divergence_after": _figure(after),
        "kept": "tuned" if better else "as packed",
        "curve": _curve(losses),
    }
    write_text(out / RECOVERY_REPORT, canonical_json(report))
    for name in (TEACHER, STATE):
        (out / name).unlink(missing_ok=True)


def check_recovery_memory(checkpoint: Checkpoint, device: str) -> None:
    """Raise UserError where the model in float32 with its activations does not fit in the device's free memory."""
    needed, free = recovery_bytes(checkpoint.config), free_bytes(device)
    if needed > free:
        what = f"recovery takes {needed / 2**30:.1f} GiB for the model, {device} has {free / 2**30:.1f} free"
        fix = "run this step on a machine or GPU with more memory, or leave quantize.recovery out"
        raise UserError(str(checkpoint.folder), what, fix)


def drawn_utterances(corpus: Sequence[Utterance], options: RecoveryOptions, where: str) -> list[Utterance]:
    """Return all translations, by the options' pairs, of as many stretches of audio as they say, in the corpus's order.

    Raises UserError where a pair or that number is not there.
    """
    drawn = {u.stretch for u in choose_utterances(corpus, options, where, key="quantize.recovery")}
    return [u for u in corpus if u.stretch in drawn and u.pair in options.pairs]


def drawn_held_out(utterances: Sequence[Utterance], seed: int) -> list[int]:
    """Return the indices of the utterances of one in HELD_OUT_SHARE stretches of audio, ascending."""
    stretches = list(dict.fromkeys(u.stretch for u in utterances))
    held_out = set(random.Random(f"{seed} held out").sample(stretches, len(stretches) // HELD_OUT_SHARE))
    return [index for index, u in enumerate(utterances) if u.stretch in held_out]


def write_model(packed: Checkpoint, tuned: Mapping[str, torch.Tensor], out: Path) -> None:
    """Write a copy of a packed model with other numbers in some tensors, by their stored names, at their places."""
    shutil.rmtree(out, ignore_errors=True)  # of a killed run
    shutil.copytree(packed.folder, out)
    for name, tensor in tuned.items():
        located = packed.located[name]
        with (out / located.path.name).open("r+b") as file:
            file.seek(located.offset)
            file.write(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


def _figure(estimate: Estimate) -> dict[str, Any]:
    return {"value": _rounded(estimate.value), "standard_error": _rounded(estimate.standard_error)}


def _curve(losses: Sequence[float]) -> list[float]:
    """Return the means of every CURVE_STEPS steps."""
    parts = [losses[start : start + CURVE_STEPS] for start in range(0, len(losses), CURVE_STEPS)]
    return [_rounded(sum(part) / len(part)) for part in parts]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
