"""Qwen2-Audio at run time: log-mel features of a whole window, and a prompt in which <|AUDIO|> is repeated.

Two silent faults of the plain processor call are excluded by `window_samples` and `shortest_samples`: audio over the
encoder's window is cut, and audio so short that it expands to less than two <|AUDIO|> tokens takes the model's old path
(which fails in `generate`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    PreTrainedConfig,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)

from submission.errors import UserError
from submission.runtime.families.family import AudioFeatures, FamilyRuntime, Inputs, Window
from submission.text.segments import SAMPLE_RATE

NAME = "qwen2_audio"
FEATURES = "input_features"
MASK = "feature_attention_mask"
FRAMES_PER_SECOND = 100
"""Of the published model's log-mel spectrogram."""


def read_processor(folder: Path) -> Qwen2AudioProcessor:
    """Return the processor of a model folder.

    Qwen2's tokenizer takes vocabulary, merges and added tokens from the files, and none of the rules that may stand
    beside them: a decoder that replaces text, a normalizer, a truncation.
    """
    return Qwen2AudioProcessor(
        feature_extractor=WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True),
        tokenizer=Qwen2Tokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
    )


def window_samples(processor: Qwen2AudioProcessor) -> int:
    """Return the longest audio that the encoder takes whole, in samples."""
    samples: int = processor.feature_extractor.n_samples
    return samples


def shortest_samples(processor: Qwen2AudioProcessor) -> int:
    """Return the shortest audio that expands to two <|AUDIO|> tokens, in samples: seven frames (`audio_positions`)."""
    hop: int = processor.feature_extractor.hop_length
    return 6 * hop + 1


def audio_positions(frames: int) -> int:
    """Return how many <|AUDIO|> tokens stand for ceil(samples / hop) frames: two strides of two."""
    return (((frames - 1) // 2 + 1) - 2) // 2 + 1


def extract_features(processor: Qwen2AudioProcessor, waveform: np.ndarray) -> AudioFeatures:
    """Return the features of the real processor: float32 [mel bins, frames] and int32 [frames], 1 where there is audio.

    The number of positions is counted in what the processor expands one <|AUDIO|> to.
    """
    batch = processor(text=[processor.audio_token], audio=[waveform], sampling_rate=SAMPLE_RATE, return_tensors="pt")
    return AudioFeatures(
        family=NAME,
        tensors={FEATURES: batch[FEATURES][0], MASK: batch[MASK][0]},
        frames=int(batch[MASK][0].sum()),
        positions=batch["input_ids"].shape[1],
    )


def feature_bytes(processor: Qwen2AudioProcessor, samples: int) -> int:
    """Return the bytes of a whole window's spectrogram, which any audio is padded to."""
    extractor = processor.feature_extractor
    numbers: int = extractor.feature_size * extractor.nb_max_frames
    return 4 * numbers


def prompt_ids(processor: Qwen2AudioProcessor, prompt: str, positions: int) -> list[int]:
    """Return the ids of a prompt that holds one <|AUDIO|>, which is expanded as the processor does it."""
    token = processor.audio_token
    if prompt.count(token) != 1:
        raise UserError("prompt", f"expected one {token} in {prompt!r}", "correct the campaign's prompt")
    ids: list[int] = processor.tokenizer(prompt.replace(token, token * positions))["input_ids"]
    return ids


def collate_audio(audio: Sequence[AudioFeatures], input_ids: torch.Tensor) -> Inputs:
    """Return float32 [batch, mel bins, frames] and int32 [batch, frames]; every window has the same length."""
    return {name: torch.stack([features.tensors[name] for features in audio]) for name in (FEATURES, MASK)}


def shorten(inputs: Inputs) -> Inputs:
    """Return inputs with fewer frames.

    The encoder's convolutions look one frame past the audio, so two are kept; the number is even because the encoder
    halves it.
    """
    frames = int(inputs[MASK].sum(dim=1).max()) + 2
    end = frames + frames % 2
    return inputs | {name: inputs[name][..., :end].contiguous() for name in (FEATURES, MASK)}


class _FirstRows(torch.nn.Module):
    """Replaces the table of audio positions by its first rows."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)


def shortened_window(model: Qwen2AudioForConditionalGeneration) -> Window:
    """Return the context in which the encoder takes features of fewer frames than its window has.

    Its attention is masked beyond the audio anyway. Done from outside, on the stock model. (A subclass with another
    forward would be neater, but transformers maps checkpoint names by class: the head of a subclass is silently left at
    random.)
    """
    tower = model.model.audio_tower
    positions = tower.embed_positions
    table = positions.weight.detach().clone()  # the module's own may be sharded over devices later

    @contextmanager
    def window(inputs: Mapping[str, torch.Tensor]) -> Iterator[None]:
        nonlocal table
        table = table.to(inputs[FEATURES].device)
        length = inputs[FEATURES].shape[-1] // 2
        whole = tower.config.max_source_positions
        tower.embed_positions = _FirstRows(table[:length])
        tower.config.max_source_positions = length
        try:
            yield
        finally:
            tower.embed_positions = positions
            tower.config.max_source_positions = whole

    return window


def noise(config: dict[str, Any], seconds: float, generator: torch.Generator) -> AudioFeatures:
    """Return normally distributed features of a whole window, of which the mask covers so many seconds."""
    audio = Qwen2AudioConfig.from_dict(config).audio_config
    assert isinstance(audio, PreTrainedConfig)  # which the configuration makes of a dict
    window = 2 * audio.max_source_positions
    frames = min(window, round(seconds * FRAMES_PER_SECOND))
    features = torch.randn(audio.num_mel_bins, window, generator=generator)
    mask = (torch.arange(window) < frames).to(torch.int32)
    return AudioFeatures(
        family=NAME, tensors={FEATURES: features, MASK: mask}, frames=frames, positions=audio_positions(frames)
    )


def audio_token(config: dict[str, Any]) -> int:
    """Return the id of <|AUDIO|>."""
    token: int = Qwen2AudioConfig.from_dict(config).audio_token_id
    return token


RUNTIME = FamilyRuntime(
    name=NAME,
    model_class=Qwen2AudioForConditionalGeneration,
    processor_class=Qwen2AudioProcessor,
    read_processor=read_processor,
    window_samples=window_samples,
    shortest_samples=shortest_samples,
    extract_features=extract_features,
    feature_bytes=feature_bytes,
    prompt_ids=prompt_ids,
    collate_audio=collate_audio,
    shorten=shorten,
    shortened_window=shortened_window,
    frozen_roles=("embedding",),
    noise=noise,
    audio_token=audio_token,
)
