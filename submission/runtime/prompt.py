"""Make the tensors that a model takes from audio and text, the same way for training and for decoding.

Every utterance goes through its family's processor (`submission.runtime.families`) alone and is padded afterwards, so
that no value of it depends on its neighbours in the batch. Audio that the plain processor call would misread without a
message is refused here: longer than the model's window, shorter than it can take, and samples not scaled to ±1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from submission.errors import UserError
from submission.runtime.audio import PEAK_LIMIT
from submission.runtime.families import RUNTIMES, runtime_of_processor
from submission.runtime.families.family import AudioFeatures, Inputs
from submission.text.segments import SAMPLE_RATE

IGNORED = -100
"""The label that cross-entropy leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One utterance as the model reads it, without padding."""

    audio: AudioFeatures
    input_ids: torch.Tensor
    """int64 [tokens]: the prompt with the positions of the audio, then the target and the end token if there is one."""
    prompt_tokens: int
    """How many of the tokens are prompt; the rest is what the loss is taken on."""


def render_prompt(template: str, target_language: str) -> str:
    """Return a campaign's prompt for a language: `Translate this speech to German:`."""
    return template.replace("{target_language}", target_language)


def window_samples(processor: Any) -> int:
    """Return the longest audio that the processor's model takes whole, in samples."""
    return runtime_of_processor(processor).window_samples(processor)


def shortest_samples(processor: Any) -> int:
    """Return the shortest audio that the processor's model takes, in samples."""
    return runtime_of_processor(processor).shortest_samples(processor)


def end_token_id(processor: Any, end_token: str | None = None) -> int:
    """Return the id of the token that ends a target, None for the tokenizer's own.

    Raises UserError if the tokenizer does not hold it whole.
    """
    end_token = processor.tokenizer.eos_token if end_token is None else end_token
    ids = processor.tokenizer.encode(end_token, add_special_tokens=False)
    if len(ids) != 1:
        raise UserError(
            "tokenizer",
            f"end token {end_token!r} is {len(ids)} tokens, expected 1",
            "set the campaign's end token",
        )
    return int(ids[0])


def check_waveform(processor: Any, waveform: np.ndarray, where: str = "audio") -> None:
    """Raise UserError for audio that the model would misread silently (see the module's docstring)."""
    if waveform.ndim != 1 or waveform.dtype != np.float32:
        raise UserError(
            where,
            f"expected float32 [samples], got {waveform.dtype} {list(waveform.shape)}",
            "read it with submission.runtime.audio.read_audio, which scales to ±1",
        )
    longest, shortest = window_samples(processor), shortest_samples(processor)
    if not shortest <= len(waveform) <= longest:
        raise UserError(
            where,
            f"{len(waveform)} samples at 16 kHz ({len(waveform) / SAMPLE_RATE:.3f} s); the model takes "
            f"{shortest} to {longest} ({shortest / SAMPLE_RATE:.3f} to {longest / SAMPLE_RATE:g} s)",
            "split longer audio into segments, leave shorter audio out",
        )
    peak = float(np.abs(waveform).max())
    if not peak <= PEAK_LIMIT:  # so that NaN is refused too
        raise UserError(where, f"peak {peak:g}, expected at most about 1", "scale samples to ±1")


def extract_features(processor: Any, waveform: np.ndarray, where: str = "audio") -> AudioFeatures:
    """Turn audio, float32 [samples] at 16 kHz and ±1, into what the model reads.

    Raises UserError as `check_waveform`, with `where` naming the utterance.
    """
    check_waveform(processor, waveform, where)
    return runtime_of_processor(processor).extract_features(processor, waveform)


def encode(
    processor: Any,
    features: AudioFeatures,
    prompt: str,
    target: str | None = None,
    end_token: str | None = None,
) -> Example:
    """Put audio and text together.

    prompt: as `render_prompt` gives it; the family puts the audio's positions into it. target: the translation,
    tokenized apart from the prompt (so that the prompt's tokens are those that decoding gives the model) and without
    giving any special token in it its meaning. end_token: follows a target, None for the tokenizer's own.
    """
    ids = runtime_of_processor(processor).prompt_ids(processor, prompt, features.positions)
    prompt_tokens = len(ids)
    if target is not None:
        ids += processor.tokenizer.encode(target, add_special_tokens=False, split_special_tokens=True)
        ids += [end_token_id(processor, end_token)]
    return Example(audio=features, input_ids=torch.tensor(ids, dtype=torch.int64), prompt_tokens=prompt_tokens)


def collate(examples: Sequence[Example], pad_token_id: int, side: Literal["left", "right"], *, labels: bool) -> Inputs:
    """Pad examples of one family to one batch.

    Returns input_ids, attention_mask int64 [batch, tokens], and the family's audio tensors (`collate_audio`); with
    labels also labels int64 [batch, tokens], -100 on prompt and padding. Masks come from lengths, never from ids: the
    pad token may mean something elsewhere.
    """
    width = max(len(example.input_ids) for example in examples)
    ids = torch.full((len(examples), width), pad_token_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    targets = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        begin = 0 if side == "right" else width - length
        ids[row, begin : begin + length] = example.input_ids
        mask[row, begin : begin + length] = 1
        target = begin + example.prompt_tokens
        targets[row, target : begin + length] = example.input_ids[example.prompt_tokens :]
    family = RUNTIMES[examples[0].audio.family]
    audio = family.collate_audio([example.audio for example in examples], ids)
    batch = {"input_ids": ids, "attention_mask": mask} | audio
    return batch | {"labels": targets} if labels else batch


def build_inputs(
    processor: Any,
    waveforms: Sequence[np.ndarray],
    prompts: Sequence[str],
    targets: Sequence[str] | None = None,
    *,
    end_token: str | None = None,
    names: Sequence[str] | None = None,
) -> Inputs:
    """Return the model's inputs for a batch: left-padded for generation, right-padded with labels for training.

    waveforms: float32 [samples] each, 16 kHz, ±1; prompts: one each, as `render_prompt` gives them; targets: one
    translation each, for training. names: of the utterances, for errors. Tensors as in `collate`.
    """
    if not (len(waveforms) == len(prompts) and (targets is None or len(targets) == len(waveforms))):
        raise ValueError("waveforms, prompts and targets differ in number")
    audio = [extract_features(processor, w, names[i] if names else f"audio {i}") for i, w in enumerate(waveforms)]
    examples = [
        encode(processor, audio[i], prompt, targets[i] if targets is not None else None, end_token)
        for i, prompt in enumerate(prompts)
    ]
    side: Literal["left", "right"] = "left" if targets is None else "right"
    return collate(examples, processor.tokenizer.pad_token_id, side, labels=targets is not None)
