"""Build the second miniature: a tiny, real Gemma 4 Unified of the published classes, with a few million parameters.

It keeps what sets this family apart. Layers have two shapes: sliding-window layers with two key/value heads, and
full-attention layers with heads twice as wide, one key/value head, and keys that serve as values. The head is tied to
the scaled embedding. There is no audio encoder: raw frames of 640 samples (40 ms) go through a weightless norm and one
linear into the decoder. A vision embedder is there too, small and untrained, since a published checkpoint has one.

The model starts from random weights, except for what would take a small training long to find: the audio linear starts
as a bank of windowed cosines and sines, and the first MLP starts by squaring them and adding up each band, so that the
second layer sees the energy of every band in either half of a frame.
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
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Gemma4UnifiedAudioFeatureExtractor,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    GemmaTokenizer,
    GenerationConfig,
    PreTrainedConfig,
)
from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedTextDecoderLayer

from submission.miniature.model import LANGUAGES, WIDTH_MULTIPLE, token_id
from submission.store.digests import canonical_json, write_text
from submission.text.segments import SAMPLE_RATE

INSTRUCTION = "Translate this speech to {target_language}:"
"""What the user says before the audio; the tokenizer is trained to make it short."""

PAD, END_OF_TEXT, START, UNKNOWN, MASK = "<pad>", "<eos>", "<bos>", "<unk>", "<mask>"
TURN, END = "<|turn>", "<turn|>"
AUDIO, AUDIO_START, AUDIO_END = "<|audio|>", "<|audio>", "<audio|>"
IMAGE, IMAGE_START, IMAGE_END, VIDEO = "<|image|>", "<|image>", "<image|>", "<|video|>"
CHANNEL, CHANNEL_END = "<|channel>", "<channel|>"
PLAIN = (PAD, END_OF_TEXT, START, UNKNOWN, MASK)
MARKS = {
    "audio_token": AUDIO,
    "boa_token": AUDIO_START,
    "eoa_token": AUDIO_END,
    "image_token": IMAGE,
    "boi_token": IMAGE_START,
    "eoi_token": IMAGE_END,
    "video_token": VIDEO,
    "sot_token": TURN,
    "eot_token": END,
    "soc_token": CHANNEL,
    "eoc_token": CHANNEL_END,
}
"""The tokenizer's attribute -> special token."""
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' -}}
{%- if message['content'] is string -%}{{- message['content'] | trim -}}
{%- else -%}
{%- for item in message['content'] -%}
{%- if item['type'] == 'text' -%}{{- item['text'] | trim -}}
{%- elif item['type'] == 'audio' -%}{{- '<|audio|>' -}}
{%- elif item['type'] == 'image' -%}{{- '<|image|>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|turn>model\\n' -}}
{%- if not enable_thinking | default(false) -%}{{- '<|channel>thought\\n<channel|>' -}}{%- endif -%}
{%- endif -%}
"""
"""In the manner of the published one: turns, the audio's place, and an empty thought where thinking is off."""

FRAME_SAMPLES = 640
PATCH_SIZE = 4
BANDS = 32
"""Bands of the first layers' filters, in each half of a frame."""
LOWEST_HERTZ, HIGHEST_HERTZ = 100.0, 7200.0
AUDIO_AMPLITUDE = 0.3
"""Root mean square of an audio vector at the start; what the first layer adds to it has about 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """Every width of a miniature without an encoder; what quantization groups must divide are multiples of 128."""

    name: str
    """What `forge --shape` calls it."""
    vocabulary: int
    """Rows of the embedding, which is the head as well, special tokens included."""
    hidden: int
    """Width of the decoder."""
    intermediate: int
    """Width inside the MLPs."""
    layers: int
    """Decoder layers; every second one is a full-attention layer."""
    heads: int
    """Attention heads for queries, in all layers."""
    sliding_heads: int = 2
    """Key/value heads of a sliding-window layer; a full-attention layer has one."""
    head_width: int = 64
    """Width of a head in a sliding-window layer; twice as much in a full-attention layer."""
    sliding_window: int = 64
    """Positions that a sliding-window layer sees."""
    letter_layer: int = 2
    """Layers below the letters of the recognition loss."""
    word_layer: int = 4
    """Layers below its words."""
    window_seconds: int = 8
    """The longest audio that is trained on."""

    def __post_init__(self) -> None:
        for field in ("vocabulary", "hidden", "intermediate"):
            value = getattr(self, field)
            if value <= 0 or value % WIDTH_MULTIPLE:
                raise ValueError(f"shape {self.name}: {field} {value} is no multiple of {WIDTH_MULTIPLE}")
        if self.layers % 2 or not 0 < self.letter_layer <= self.word_layer <= self.layers:
            raise ValueError(f"shape {self.name}: {self.layers} layers do not alternate, or end below the losses")


def train_gemma_tokenizer(texts: Sequence[str], vocabulary: int) -> GemmaTokenizer:
    """Return a BPE tokenizer of Gemma's kind (blanks as "▁", bytes as a fallback), trained on `texts` and the prompt.

    Merges never reach across words. The prompt's pieces count as often as there are texts, so that they become single
    tokens. It never exceeds `vocabulary` entries, special tokens included.
    """
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", behavior="merged_with_next"),
            pre_tokenizers.Punctuation(behavior="isolated"),
        ]
    )
    fixed = [*PLAIN, *BYTES, *MARKS.values()]
    room = vocabulary - len(fixed)
    trainer = trainers.BpeTrainer(vocab_size=room, limit_alphabet=room // 2, show_progress=False)
    said = [INSTRUCTION.format(target_language=name) for name in LANGUAGES.values()]
    prompts = [*said, "user", "model", "thought"] * max(len(texts), 1)
    bpe.train_from_iterator([*texts, *prompts, *["\n"] * max(len(texts), 1)], trainer)
    learned: dict[str, Any] = json.loads(bpe.to_str())["model"]
    ordered = [*fixed, *sorted(learned["vocab"], key=learned["vocab"].__getitem__)]
    return GemmaTokenizer(
        vocab={token: number for number, token in enumerate(ordered)},
        merges=[tuple(pair) for pair in learned["merges"]],  # type: ignore[misc]  # pairs are what it takes
        padding_side="left",
        extra_special_tokens=MARKS,
        chat_template=CHAT_TEMPLATE,
        add_bos_token=False,
    )


def make_gemma_config(tokenizer: GemmaTokenizer, shape: DecoderShape) -> Gemma4UnifiedConfig:
    """Return the model configuration of a shape, with the tokenizer's special ids."""
    ids = {token: token_id(tokenizer, token) for token in (*PLAIN, *MARKS.values())}
    text = {
        "model_type": "gemma4_unified_text",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.sliding_heads,
        "head_dim": shape.head_width,
        "global_head_dim": 2 * shape.head_width,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "sliding_window": shape.sliding_window,
        "layer_types": ["sliding_attention", "full_attention"] * (shape.layers // 2),
        "max_position_embeddings": 1024,
        "final_logit_softcapping": 30.0,
        "pad_token_id": ids[PAD],
        "eos_token_id": ids[END_OF_TEXT],
        "bos_token_id": ids[START],
    }
    vision = {
        "model_type": "gemma4_unified_vision",
        "patch_size": PATCH_SIZE,
        "mm_embed_dim": shape.hidden,
        "mm_posemb_size": 32,
        "output_proj_dims": shape.hidden,
    }
    return Gemma4UnifiedConfig(
        text_config=text,
        audio_config={"model_type": "gemma4_unified_audio", "audio_embed_dim": FRAME_SAMPLES},
        vision_config=vision,
        audio_token_id=ids[AUDIO],
        boa_token_id=ids[AUDIO_START],
        eoa_token_index=ids[AUDIO_END],
        image_token_id=ids[IMAGE],
        boi_token_id=ids[IMAGE_START],
        eoi_token_id=ids[IMAGE_END],
        video_token_id=ids[VIDEO],
    )


def filter_bank() -> np.ndarray:
    """Return windowed cosines and sines, float32 [halves · bands · 2, samples], of mean norm 1.

    Hann windows of 20 ms, one in each half of a frame; centres equally far apart in mel; louder towards high
    frequencies, as speech is quieter there.
    """
    lowest, highest = (float(2595 * np.log10(1 + hertz / 700)) for hertz in (LOWEST_HERTZ, HIGHEST_HERTZ))
    mel = np.linspace(lowest, highest, BANDS)
    centres = 700 * (10 ** (mel / 2595) - 1)
    seconds = np.arange(FRAME_SAMPLES) / SAMPLE_RATE
    half = FRAME_SAMPLES // 2
    rows = []
    for start in (0, half):
        window = np.zeros(FRAME_SAMPLES)
        window[start : start + half] = np.hanning(half + 1)[:half]
        for centre in centres:
            wave = 2 * np.pi * centre * seconds
            rows += [window * part * (centre / 1000 + 0.3) for part in (np.cos(wave), np.sin(wave))]
    bank = np.stack(rows)
    mean_norm: float = np.linalg.norm(bank, axis=1).mean()
    return np.asarray(bank / mean_norm, np.float32)


def build_gemma_model(config: Gemma4UnifiedConfig, seed: int) -> Gemma4UnifiedForConditionalGeneration:
    """Return a model with float32 weights from `seed` alone: random, but for the first layer (see the module)."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model: Gemma4UnifiedForConditionalGeneration = Gemma4UnifiedForConditionalGeneration._from_config(
            config, dtype=torch.float32
        )
        decoder = model.model.language_model
        for layer in decoder.layers:  # attention scores start as they do with the usual scaling
            layer.self_attn.k_norm.weight.fill_(layer.self_attn.head_dim**-0.5)
        linear = model.model.embed_audio.embedding_projection.weight
        bank = torch.from_numpy(filter_bank())[: len(linear)]
        linear.normal_(0, AUDIO_AMPLITUDE * FRAME_SAMPLES**-0.5)
        linear[: len(bank)] = bank * AUDIO_AMPLITUDE
        square_and_add(decoder.layers[0], len(bank))
    model.eval()
    return model


def square_and_add(layer: Gemma4UnifiedTextDecoderLayer, filters: int) -> None:
    """Let a layer's MLP compute the energy of each pair of filters, written in as many orthogonal directions.

    gelu(x) · x + gelu(-x) · (-x) is about x²; pairs are the cosine and the sine of one band. The attention before it
    starts quiet. As many pairs as the MLP is wide enough for.
    """
    mlp, hidden = layer.mlp, layer.mlp.gate_proj.in_features
    filters = min(filters, hidden, mlp.gate_proj.out_features // 2)
    signs = torch.cat([torch.eye(filters, hidden), -torch.eye(filters, hidden)])
    for linear in (mlp.gate_proj, mlp.up_proj):
        linear.weight[: 2 * filters] += signs
    directions = torch.linalg.qr(torch.randn(hidden, hidden))[0][:, : filters // 2]
    mlp.down_proj.weight[:, : 2 * filters] += directions.repeat_interleave(2, dim=1).repeat(1, 2)
    layer.post_attention_layernorm.weight.fill_(0.1)


def prompt_parts(tokenizer: GemmaTokenizer, target_language: str) -> tuple[list[int], list[int]]:
    """Return the token ids of the prompt before the audio's positions and after them, the audio's marks included."""
    content = [{"type": "text", "text": INSTRUCTION.format(target_language=target_language)}, {"type": "audio"}]
    turns: list[Any] = [{"role": "user", "content": content}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, enable_thinking=False))
    before, _, after = text.partition(AUDIO)
    first, last = (
        tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before + AUDIO_START, AUDIO_END + after)
    )
    return first, last


def make_feature_extractor() -> Gemma4UnifiedAudioFeatureExtractor:
    """Return the family's extractor: raw frames of 640 samples."""
    return Gemma4UnifiedAudioFeatureExtractor(
        feature_size=FRAME_SAMPLES, audio_samples_per_token=FRAME_SAMPLES, sampling_rate=SAMPLE_RATE
    )


def save_gemma_checkpoint(
    model: Gemma4UnifiedForConditionalGeneration, tokenizer: GemmaTokenizer, shape: DecoderShape, folder: Path
) -> None:
    """Write model (in bf16), generation settings, tokenizer and processor as one Hugging Face folder.

    The processor's file is written here: its class cannot be made without torchvision, which nothing else needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model)
    half.bfloat16()
    for config in (half.config, half.config.text_config, half.config.audio_config, half.config.vision_config):
        assert isinstance(config, PreTrainedConfig)
        config.dtype = torch.bfloat16
    text = half.config.get_text_config()
    half.generation_config = GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=[text.eos_token_id, token_id(tokenizer, END)],
        pad_token_id=text.pad_token_id,
        do_sample=False,
        max_new_tokens=64,
    )
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    patches = {"patch_size": PATCH_SIZE, "pooling_kernel_size": 3}
    processor = {
        "audio_ms_per_token": 1000 * FRAME_SAMPLES // SAMPLE_RATE,
        "audio_seq_length": shape.window_seconds * SAMPLE_RATE // FRAME_SAMPLES,
        "feature_extractor": make_feature_extractor().to_dict(),
        "image_processor": {"image_processor_type": "Gemma4UnifiedImageProcessor", **patches},
        "processor_class": "Gemma4UnifiedProcessor",
        "video_processor": {"video_processor_type": "Gemma4UnifiedVideoProcessor", **patches},
    }
    write_text(folder / "processor_config.json", canonical_json(processor))


SMALL_DECODER = DecoderShape(
    name="small-gemma4", vocabulary=512, hidden=128, intermediate=128, layers=4, heads=2, letter_layer=2, word_layer=2
)
GEMMA4 = DecoderShape(name="gemma4", vocabulary=1536, hidden=128, intermediate=512, layers=8, heads=2)
