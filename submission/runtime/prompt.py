"""From audio and text to the tensors that Qwen2-Audio reads, the same way for training and for decoding.

Every utterance goes through the real Qwen2AudioProcessor alone and is padded afterwards, so that no value of it
depends on its neighbours in the batch. Three silent faults of the plain processor call are refused here: audio
over the encoder's window is cut, audio so short that it expands to less than two <|AUDIO|> tokens takes the
model's old path (which fails in `generate`), and samples not scaled to ±1 become garbage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from submission.errors import UserError
from submission.text.segments import SAMPLE_RATE

if TYPE_CHECKING:
    from transformers import Qwen2AudioProcessor

END_TOKEN = "<|im_end|>"
IGNORED = -100
"""The label that cross-entropy leaves out."""
PEAK_LIMIT = 4.0
"""Above this the samples are not scaled to ±1 (resampling a full-scale signal overshoots by far less)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFeatures:
    """Audio as the encoder reads it; the same for every language that it is translated to."""

    features: torch.Tensor
    """float32 [mel bins, frames]: log-mel spectrogram of the whole window."""
    feature_mask: torch.Tensor
    """int32 [frames]: 1 where there is audio."""
    positions: int
    """How many <|AUDIO|> tokens stand for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One utterance as the model reads it, without padding."""

    audio: AudioFeatures
    input_ids: torch.Tensor
    """int64 [tokens]: the prompt with its <|AUDIO|> expanded, then the target and the end token if there is one."""
    prompt_tokens: int
    """How many of the tokens are prompt; the rest is what the loss is taken on."""


def render_prompt(template: str, target_language: str) -> str:
    """Return a campaign's prompt for a language: `Translate this speech to German:`."""
    return template.replace("{target_language}", target_language)


def window_samples(processor: Qwen2AudioProcessor) -> int:
    """Return the longest audio that the encoder takes whole, in samples."""
    return processor.feature_extractor.n_samples


def shortest_samples(processor: Qwen2AudioProcessor) -> int:
    """Return the shortest audio that expands to two <|AUDIO|> tokens, in samples.

    Tokens are (((frames - 1) // 2 + 1) - 2) // 2 + 1 of ceil(samples / hop) frames: two from seven frames on.
    """
    return 6 * processor.feature_extractor.hop_length + 1


def end_token_id(processor: Qwen2AudioProcessor, end_token: str = END_TOKEN) -> int:
    """Return the id of the token that ends a target; UserError if the tokenizer does not hold it whole."""
    ids = processor.tokenizer.encode(end_token, add_special_tokens=False)
    if len(ids) != 1:
        raise UserError(
            "tokenizer",
            f"end token {end_token!r} is {len(ids)} tokens, expected 1",
            "set the campaign's end token",
        )
    return ids[0]


def check_waveform(processor: Qwen2AudioProcessor, waveform: np.ndarray, where: str = "audio") -> None:
    """Raise UserError for audio that the model would misread in silence (see the module's docstring)."""
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
            f"{len(waveform)} samples at 16 kHz ({len(waveform) / SAMPLE_RATE:.3f} s); the encoder takes "
            f"{shortest} to {longest} ({shortest / SAMPLE_RATE:.3f} to {longest / SAMPLE_RATE:g} s)",
            "split longer audio into segments, leave shorter audio out",
        )
    peak = float(np.abs(waveform).max())
    if not peak <= PEAK_LIMIT:  # so that NaN is refused too
        raise UserError(where, f"peak {peak:g}, expected at most about 1", "scale samples to ±1")


def extract_features(processor: Qwen2AudioProcessor, waveform: np.ndarray, where: str = "audio") -> AudioFeatures:
    """Turn audio, float32 [samples] at 16 kHz and ±1, into what the encoder reads.

    Raises UserError as `check_waveform`, with `where` naming the utterance.
    """
    check_waveform(processor, waveform, where)
    batch = processor(text=[processor.audio_token], audio=[waveform], sampling_rate=SAMPLE_RATE, return_tensors="pt")
    return AudioFeatures(
        features=batch["input_features"][0],
        feature_mask=batch["feature_attention_mask"][0],
        positions=batch["input_ids"].shape[1],
    )


def encode(
    processor: Qwen2AudioProcessor,
    heard: AudioFeatures,
    prompt: str,
    target: str | None = None,
    end_token: str = END_TOKEN,
) -> Example:
    """Put audio and text together.

    prompt: holds one <|AUDIO|>, which is expanded as the processor does it. target: the translation, tokenized apart
    from the prompt (so that the prompt's tokens are those that decoding gives the model) and without giving any
    special token in it its meaning.
    """
    if prompt.count(processor.audio_token) != 1:
        raise UserError("prompt", f"expected one {processor.audio_token} in {prompt!r}", "mend the campaign's prompt")
    expanded = prompt.replace(processor.audio_token, processor.audio_token * heard.positions)
    ids = processor.tokenizer(expanded)["input_ids"]
    prompt_tokens = len(ids)
    if target is not None:
        ids += processor.tokenizer.encode(target, add_special_tokens=False, split_special_tokens=True)
        ids += [end_token_id(processor, end_token)]
    return Example(audio=heard, input_ids=torch.tensor(ids, dtype=torch.int64), prompt_tokens=prompt_tokens)


def collate(
    examples: Sequence[Example], pad_token_id: int, side: Literal["left", "right"], *, labels: bool
) -> dict[str, torch.Tensor]:
    """Pad examples to one batch.

    Returns input_ids, attention_mask int64 [batch, tokens]; input_features float32 [batch, mel bins, frames];
    feature_attention_mask int32 [batch, frames]; with labels also labels int64 [batch, tokens], -100 on prompt and
    padding. Masks come from lengths, never from ids: the pad token may mean something elsewhere.
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
        answer = begin + example.prompt_tokens
        targets[row, answer : begin + length] = example.input_ids[example.prompt_tokens :]
    batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "input_features": torch.stack([example.audio.features for example in examples]),
        "feature_attention_mask": torch.stack([example.audio.feature_mask for example in examples]),
    }
    return batch | {"labels": targets} if labels else batch


def build_inputs(
    processor: Qwen2AudioProcessor,
    waveforms: Sequence[np.ndarray],
    prompts: Sequence[str],
    targets: Sequence[str] | None = None,
    *,
    end_token: str = END_TOKEN,
    names: Sequence[str] | None = None,
) -> dict[str, torch.Tensor]:
    """Return the model's inputs for a batch: left-padded for generation, right-padded with labels for training.

    waveforms: float32 [samples] each, 16 kHz, ±1; prompts: one each, as `render_prompt` gives them; targets: one
    translation each, for training. names: what errors call the utterances. Tensors as in `collate`.
    """
    if not (len(waveforms) == len(prompts) and (targets is None or len(targets) == len(waveforms))):
        raise ValueError("waveforms, prompts and targets differ in number")
    heard = [extract_features(processor, w, names[i] if names else f"audio {i}") for i, w in enumerate(waveforms)]
    examples = [
        encode(processor, heard[i], prompt, targets[i] if targets is not None else None, end_token)
        for i, prompt in enumerate(prompts)
    ]
    side = "left" if targets is None else "right"
    return collate(examples, processor.tokenizer.pad_token_id, side, labels=targets is not None)
