"""Build the miniature: a tiny, real Qwen2-Audio of the published classes, with a few million parameters.

The shape keeps what makes compression of the large model interesting: an untied language-model head, at least
eight decoder layers to choose from, and widths that groups of 64 and 128 divide. It differs from the large
one in its window (8 s of audio at a hop of 20 ms instead of 30 s at 10 ms), so one audio position of the
language model is 80 ms.

A checkpoint is written by `save_pretrained`, so its tensors carry the names of the hub's Qwen2-Audio-7B
(`audio_tower.…`, `multi_modal_projector.linear.…`, `language_model.model.…`,
`language_model.lm_head.weight`), although transformers 5 names its modules differently in memory.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from submission.text.segments import SAMPLE_RATE

PROMPT = "<|audio_bos|><|AUDIO|><|audio_eos|>Translate this speech to {target_language}:\n"
"""The prompt of the paper and of the miniature's campaign; the tokenizer is trained to make it short."""

LANGUAGES = {"de": "German", "zh": "Chinese"}
"""Target languages by code, as the prompt names them."""

PAD = "<|endoftext|>"
END = "<|im_end|>"
AUDIO = "<|AUDIO|>"
SPECIAL = (PAD, "<|im_start|>", END, "<|audio_bos|>", AUDIO, "<|audio_eos|>")

WIDTH_MULTIPLE = 128
HOP_SAMPLES = 320
MEL_FRAMES_PER_POSITION = 2  # the second convolution's stride


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Every width of a miniature; all that quantization groups must divide are multiples of 128."""

    name: str
    """What `forge --shape` calls it."""
    vocabulary: int
    """Rows of the embedding and of the head, special tokens included."""
    hidden: int
    """Width of the language model."""
    intermediate: int
    """Width inside the language model's MLPs."""
    layers: int
    """Decoder layers."""
    heads: int
    """Attention heads of the decoder (as many for keys and values, like Qwen2-Audio-7B)."""
    audio_width: int
    """Width of the audio encoder."""
    audio_intermediate: int
    """Width inside the audio encoder's MLPs."""
    audio_layers: int
    """Audio encoder layers."""
    audio_heads: int
    """Attention heads of the audio encoder."""
    mel_bins: int = 80
    """Bands of the log-mel spectrogram."""
    window_seconds: int = 8
    """The longest audio that the encoder takes; longer audio is truncated by the processor."""

    def __post_init__(self) -> None:
        for field in ("vocabulary", "hidden", "intermediate", "audio_width", "audio_intermediate"):
            value = getattr(self, field)
            if value <= 0 or value % WIDTH_MULTIPLE:
                raise ValueError(f"shape {self.name}: {field} {value} is no multiple of {WIDTH_MULTIPLE}")
        for width, heads in (("hidden", "heads"), ("audio_width", "audio_heads")):
            columns, parts = getattr(self, width), getattr(self, heads)
            if columns % parts:
                raise ValueError(f"shape {self.name}: {heads} {parts} does not divide {width} {columns}")

    @property
    def mel_frames(self) -> int:
        """Mel frames in one full window."""
        return self.window_seconds * SAMPLE_RATE // HOP_SAMPLES


SMALL = Shape(
    name="small",
    vocabulary=512,
    hidden=128,
    intermediate=128,
    layers=2,
    heads=2,
    audio_width=128,
    audio_intermediate=256,
    audio_layers=2,
    audio_heads=2,
)
MINIATURE = Shape(
    name="miniature",
    vocabulary=1024,
    hidden=128,
    intermediate=384,
    layers=8,
    heads=2,
    audio_width=128,
    audio_intermediate=512,
    audio_layers=4,
    audio_heads=4,
)
SHAPES = {shape.name: shape for shape in (SMALL, MINIATURE)}


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Qwen2Tokenizer:
    """Return a byte-level BPE tokenizer of Qwen2's kind, trained on `texts` and on both prompts.

    Each prompt counts as often as there are texts, so that its words become single tokens. It never exceeds
    `vocabulary` entries, special tokens included, and has fewer where the texts are too few to merge further.
    """
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    spoken_prompt = PROMPT.rpartition("|>")[2]
    prompts = [spoken_prompt.format(target_language=name) for name in LANGUAGES.values()] * max(len(texts), 1)
    bpe.train_from_iterator([*texts, *prompts], trainer)
    learned = _learned(bpe)
    return Qwen2Tokenizer(
        **learned,
        unk_token=PAD,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        extra_special_tokens=[token for token in SPECIAL if token not in (PAD, END)],
    )


def _learned(bpe: Tokenizer) -> dict[str, Any]:
    """Return the vocabulary and the merges of a trained BPE, as Qwen2Tokenizer takes them."""
    model = json.loads(bpe.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def make_processor(tokenizer: Qwen2Tokenizer, shape: Shape) -> Qwen2AudioProcessor:
    """Return the processor of a shape: log-mel features of exactly one window, and the tokenizer."""
    extractor = WhisperFeatureExtractor(
        feature_size=shape.mel_bins,
        sampling_rate=SAMPLE_RATE,
        hop_length=HOP_SAMPLES,
        chunk_length=shape.window_seconds,
        n_fft=400,
        return_attention_mask=True,
    )
    return Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=tokenizer)


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Return the id of one token of the vocabulary."""
    number = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(number, int)  # only a list of tokens gives a list
    return number


def make_config(tokenizer: Qwen2Tokenizer, shape: Shape) -> Qwen2AudioConfig:
    """Return the model configuration of a shape, with the tokenizer's special ids."""
    ids = {token: token_id(tokenizer, token) for token in SPECIAL}
    text = {
        "model_type": "qwen2",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "bos_token_id": ids[PAD],
        "eos_token_id": ids[END],
        "pad_token_id": ids[PAD],
    }
    audio = {
        "model_type": "qwen2_audio_encoder",
        "num_mel_bins": shape.mel_bins,
        "d_model": shape.audio_width,
        "encoder_layers": shape.audio_layers,
        "encoder_attention_heads": shape.audio_heads,
        "encoder_ffn_dim": shape.audio_intermediate,
        "max_source_positions": shape.mel_frames // MEL_FRAMES_PER_POSITION,
    }
    return Qwen2AudioConfig(
        text_config=text,
        audio_config=audio,
        audio_token_index=ids[AUDIO],
        tie_word_embeddings=False,  # type: ignore[call-arg]  # every configuration takes it; this class does not list it
    )


def sinusoids(positions: int, width: int) -> np.ndarray:
    """Return Whisper's fixed position table, float32 [positions, width]: sines, then cosines.

    Hugging Face leaves this frozen table at random; a model trained from scratch needs the real one.
    """
    step = np.log(10000.0) / (width // 2 - 1)
    angles = np.arange(positions)[:, None] * np.exp(-step * np.arange(width // 2))[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def build_model(config: Qwen2AudioConfig, seed: int) -> Qwen2AudioForConditionalGeneration:
    """Return a model with random float32 weights, from `seed` alone, and sinusoidal audio positions.

    The convolutions start as He et al. (2015) have it: with the library's small numbers the positions, whose amplitude
    is fixed, dominate the audio, and training takes half as long again.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Qwen2AudioForConditionalGeneration = Qwen2AudioForConditionalGeneration._from_config(
            config, dtype=torch.float32
        )
        tower = model.model.audio_tower
        for convolution in (tower.conv1, tower.conv2):
            torch.nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    table = tower.embed_positions.weight
    with torch.no_grad():
        table.copy_(torch.from_numpy(sinusoids(*table.shape)))
    model.eval()
    return model


def save_checkpoint(model: Qwen2AudioForConditionalGeneration, processor: Qwen2AudioProcessor, folder: Path) -> None:
    """Write model (in bf16), generation settings and processor as one Hugging Face folder.

    The model itself is left in its own dtype. Generation is greedy and stops at `<|im_end|>`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = model.config.text_config
    assert isinstance(text, PreTrainedConfig)  # which the configuration makes of a dict
    settings = GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
        do_sample=False,
        max_new_tokens=64,
    )
    half = copy.deepcopy(model)
    half.bfloat16()
    for config in (half.config, half.config.text_config, half.config.audio_config):
        assert isinstance(config, PreTrainedConfig)
        config.dtype = torch.bfloat16
    half.generation_config = settings
    half.save_pretrained(folder)
    processor.save_pretrained(folder)
