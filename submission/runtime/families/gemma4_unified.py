"""Gemma 4 Unified at run time: frames of raw samples, and the chat template's prompt with the text before the audio.

The library's processor needs torchvision for images, which a system for speech has not; `SpeechProcessor` is that
processor without them. Inputs are those of its `apply_chat_template`, token for token and sample for sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    Gemma4UnifiedForConditionalGeneration,
    Gemma4UnifiedProcessor,
    GemmaTokenizer,
    ProcessorMixin,
)
from transformers.models.gemma4_unified.feature_extraction_gemma4_unified import Gemma4UnifiedAudioFeatureExtractor
from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedTextScaledWordEmbedding

from submission.errors import UserError
from submission.model.families import read_config
from submission.model.families.gemma4_unified import FAMILY, USEFUL_POSITIONS
from submission.runtime.families.family import AudioFeatures, FamilyRuntime, Inputs, plain_lookup
from submission.text.segments import SAMPLE_RATE

NAME = "gemma4_unified"
FEATURES = "input_features"
MASK = "input_features_mask"
FRAME_SAMPLES = 640


class SpeechProcessor(Gemma4UnifiedProcessor):
    """The library's processor without its parts for images and videos."""

    def __init__(
        self,
        feature_extractor: Any,
        tokenizer: Any,
        chat_template: str | None = None,
        audio_seq_length: int = 750,
        audio_ms_per_token: int = 40,
    ) -> None:
        ProcessorMixin.__init__(
            self, feature_extractor=feature_extractor, tokenizer=tokenizer, chat_template=chat_template
        )
        self.audio_seq_length = audio_seq_length
        self.audio_ms_per_token = audio_ms_per_token
        self.audio_token, self.audio_token_id = tokenizer.audio_token, tokenizer.audio_token_id
        self.boa_token, self.eoa_token = tokenizer.boa_token, tokenizer.eoa_token


def read_processor(folder: Path) -> SpeechProcessor:
    """Return the processor of a model folder.

    Gemma's tokenizer takes vocabulary, merges and added tokens from the files, and none of the rules that may stand
    beside them.
    """
    settings = read_config(folder / "processor_config.json")
    template = folder / "chat_template.jinja"
    tokenizer = GemmaTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return SpeechProcessor(
        feature_extractor=Gemma4UnifiedAudioFeatureExtractor.from_pretrained(folder, local_files_only=True),
        tokenizer=tokenizer,
        chat_template=template.read_text(encoding="utf-8") if template.is_file() else tokenizer.chat_template,
        **{key: settings[key] for key in ("audio_seq_length", "audio_ms_per_token") if key in settings},
    )


def window_samples(processor: Gemma4UnifiedProcessor) -> int:
    """Return the longest audio that the model is known to understand, in samples."""
    frame: int = processor.feature_extractor.audio_samples_per_token
    return min(processor.audio_seq_length, USEFUL_POSITIONS) * frame


def extract_features(processor: Gemma4UnifiedProcessor, waveform: np.ndarray) -> AudioFeatures:
    """Return float32 [frames, samples of a frame]; the last frame is filled up with zeros."""
    frames = processor.feature_extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt")[FEATURES][0]
    return AudioFeatures(family=NAME, tensors={FEATURES: frames}, frames=len(frames), positions=len(frames))


def feature_bytes(processor: Gemma4UnifiedProcessor, samples: int) -> int:
    """Return the bytes of whole frames of a waveform of this length."""
    frame: int = processor.feature_extractor.audio_samples_per_token
    return 4 * (samples + -samples % frame)


def prompt_ids(processor: Gemma4UnifiedProcessor, prompt: str, positions: int) -> list[int]:
    """Return the ids of a user's turn with the prompt and behind it the audio, and of what opens the model's turn.

    Rendered by the chat template with thinking off and expanded as the processor does it.
    """
    turn: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": prompt}, {"type": "audio"}]}]
    rendered = str(processor.apply_chat_template(turn, add_generation_prompt=True, enable_thinking=False))
    token = str(processor.audio_token)
    if rendered.count(token) != 1:
        what = f"the chat template makes {rendered.count(token)} {token} of it, expected 1: {prompt!r}"
        raise UserError("prompt", what, "correct the campaign's prompt, or take the base model's chat template")
    expanded = rendered.replace(token, f"{processor.boa_token}{token * positions}{processor.eoa_token}")
    whole = rendered.startswith(processor.tokenizer.bos_token)  # as in the library: the template has it already
    ids: list[int] = processor.tokenizer(expanded, add_special_tokens=not whole)["input_ids"]
    return ids


def collate_audio(audio: Sequence[AudioFeatures], input_ids: torch.Tensor) -> Inputs:
    """Return float32 [batch, frames, samples of a frame], padded with zeros, and bool [batch, frames].

    The library's token types are not among them: they open masks between the parts of an image, and there is none.
    """
    longest = max(features.frames for features in audio)
    frames = torch.zeros(len(audio), longest, audio[0].tensors[FEATURES].shape[1])
    mask = torch.zeros(len(audio), longest, dtype=torch.bool)
    for row, features in enumerate(audio):
        frames[row, : features.frames] = features.tensors[FEATURES]
        mask[row, : features.frames] = True
    return {FEATURES: frames, MASK: mask}


def noise(config: dict[str, Any], seconds: float, generator: torch.Generator) -> AudioFeatures:
    """Return normally distributed samples in whole frames, so many seconds of them."""
    frame = config["audio_config"].get("audio_embed_dim", FRAME_SAMPLES)
    frames = torch.randn(max(1, round(seconds * SAMPLE_RATE / frame)), frame, generator=generator) / 10
    return AudioFeatures(family=NAME, tensors={FEATURES: frames}, frames=len(frames), positions=len(frames))


def audio_token(config: dict[str, Any]) -> int:
    """Return the id of <|audio|>."""
    token: int = config.get("audio_token_id", 258_881)
    return token


def lookup_scale(layer: nn.Embedding) -> float:
    """Return what the embedding multiplies its rows by: the square root of their width."""
    if type(layer) is Gemma4UnifiedTextScaledWordEmbedding:
        return float(layer.scalar_embed_scale)
    return plain_lookup(layer)


RUNTIME = FamilyRuntime(
    name=NAME,
    model_class=Gemma4UnifiedForConditionalGeneration,
    processor_class=Gemma4UnifiedProcessor,
    read_processor=read_processor,
    window_samples=window_samples,
    shortest_samples=lambda processor: 1,
    extract_features=extract_features,
    feature_bytes=feature_bytes,
    prompt_ids=prompt_ids,
    collate_audio=collate_audio,
    shorten=lambda inputs: inputs,
    shortened_window=lambda model: lambda inputs: nullcontext(),
    frozen_roles=("embedding",),  # and with it the head
    noise=noise,
    audio_token=audio_token,
    logit_cap=lambda model: FAMILY.logit_cap(model.config.to_dict()),
    lookup_scale=lookup_scale,
)
