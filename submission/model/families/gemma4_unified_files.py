"""What the files of a Gemma 4 Unified model's folder may hold: configuration, tokenizer, processor, generation.

As for every family, only the rules of the published tokenizer are allowed, with any vocabulary; numbers are bounded,
and what is said twice must agree. Of the processor's parts for images nothing is read: they may hold any scalars.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from submission.model.families.family import ModelFile
from submission.model.families.json_shape import (
    Shape,
    any_of,
    anything_small,
    flag,
    list_of,
    number,
    one_of,
    table,
    table_of,
    text,
    whole,
)
from submission.model.families.tokenizer_shape import (
    ADDED_FLAGS,
    MOST_TOKENS,
    SEQUENCES,
    SPECIAL,
    SPECIAL_OR_NONE,
    TOKEN,
    TOKEN_OR_NONE,
    VERSION,
    merges,
    tokenizer_faults,
    vocabulary,
)

DTYPE = one_of(None, "bfloat16", "float16", "float32")
WIDTH = whole(1, 1 << 20)
HEADS = whole(1, 1_024)
LAYERS = 1_000

# Keys that the library writes into every section and that change nothing in what a loaded model computes.
_INERT: dict[str, Shape] = {
    "_name_or_path": one_of("", None),
    "architectures": any_of(one_of(None), list_of(one_of("Gemma4UnifiedForConditionalGeneration"), 1)),
    "chunk_size_feed_forward": one_of(0),
    "dtype": DTYPE,
    "id2label": table_of(r"\d", text()),
    "initializer_range": number(0, 10),
    "is_encoder_decoder": one_of(False),
    "label2id": table_of(r"LABEL_\d", whole(0, 9)),
    "output_attentions": one_of(False),
    "output_hidden_states": one_of(False),
    "problem_type": one_of(None),
    "return_dict": one_of(True),
    "rms_norm_eps": number(1e-12, 1e-2),
    "transformers_version": VERSION,
}
_ROPE = table(
    {},
    {
        "full_attention": table(
            {"rope_type": one_of("proportional"), "rope_theta": number(1, 1e9)},
            {"partial_rotary_factor": number(0.01, 1)},
        ),
        "sliding_attention": table({"rope_type": one_of("default"), "rope_theta": number(1, 1e9)}),
    },
)
_TEXT: dict[str, Shape] = _INERT | {
    "attention_bias": one_of(False),
    "attention_dropout": one_of(0, 0.0),
    "attention_k_eq_v": flag,
    "bos_token_id": TOKEN_OR_NONE,
    "enable_moe_block": one_of(False, None),
    "eos_token_id": any_of(one_of(None), list_of(TOKEN, 8), TOKEN),
    "final_logit_softcapping": any_of(one_of(None), number(1, 1_000)),
    "global_head_dim": HEADS,
    "head_dim": HEADS,
    "hidden_activation": one_of("gelu_pytorch_tanh"),
    "hidden_size": WIDTH,
    "hidden_size_per_layer_input": one_of(0, None),
    "intermediate_size": WIDTH,
    "layer_types": list_of(one_of("full_attention", "sliding_attention"), LAYERS),
    "max_position_embeddings": whole(1, 1 << 20),
    "model_type": one_of("gemma4_unified_text"),
    "moe_intermediate_size": one_of(None),
    "num_attention_heads": HEADS,
    "num_experts": one_of(None),
    "num_global_key_value_heads": any_of(one_of(None), HEADS),
    "num_hidden_layers": whole(1, LAYERS),
    "num_key_value_heads": HEADS,
    "num_kv_shared_layers": one_of(0),
    "pad_token_id": TOKEN_OR_NONE,
    "per_layer_config": table_of(r"\d{1,4}", table({}, {"head_dim": HEADS, "num_key_value_heads": HEADS}), LAYERS),
    "rope_parameters": _ROPE,
    "sliding_window": whole(1, 1 << 20),
    "tie_word_embeddings": one_of(True),
    "top_k_experts": one_of(None),
    "use_bidirectional_attention": one_of("vision", None),
    "use_cache": flag,
    "use_double_wide_mlp": one_of(False),
    "vocab_size": whole(1, MOST_TOKENS),
    "vocab_size_per_layer_input": whole(1, MOST_TOKENS),
}
_AUDIO: dict[str, Shape] = _INERT | {
    **dict.fromkeys(
        ("audio_embed_dim", "audio_samples_per_token", "hidden_size", "output_proj_dims"), whole(1, 16_000)
    ),
    "model_type": one_of("gemma4_unified_audio"),
}
_VISION: dict[str, Shape] = _INERT | {
    **dict.fromkeys(("mm_embed_dim", "output_proj_dims"), WIDTH),
    **dict.fromkeys(("patch_size", "pooling_kernel_size", "model_patch_size"), whole(1, 1_024)),
    **dict.fromkeys(("mm_posemb_size", "num_soft_tokens"), whole(1, 1 << 16)),
    "model_type": one_of("gemma4_unified_vision"),
}
# Special tokens by the names that the configuration and the tokenizer give them.
_TOKENS = {
    "audio_token_id": ("audio_token", 258_881),
    "boa_token_id": ("boa_token", 256_000),
    "eoa_token_index": ("eoa_token", 258_883),
}
_IMAGE_TOKENS = ("boi_token_id", "eoi_token_id", "image_token_id", "video_token_id")

CONFIG = table(
    {"audio_config": table({}, _AUDIO), "model_type": one_of("gemma4_unified"), "text_config": table({}, _TEXT)},
    _INERT
    | {
        **dict.fromkeys((*_TOKENS, *_IMAGE_TOKENS), TOKEN),
        "eos_token_id": any_of(one_of(None), list_of(TOKEN, 8), TOKEN),
        "tie_word_embeddings": one_of(True),
        "vision_config": any_of(one_of(None), table({}, _VISION)),
    },
)

SETTINGS: dict[str, Any] = {
    **{key: default for key, (_, default) in _TOKENS.items()},
    "text_config.attention_k_eq_v": False,
    "text_config.final_logit_softcapping": None,
    "text_config.pad_token_id": 0,
    "text_config.rms_norm_eps": 1e-6,
    "text_config.rope_parameters.full_attention.partial_rotary_factor": 0.25,
    "text_config.rope_parameters.full_attention.rope_theta": 1_000_000.0,
    "text_config.rope_parameters.sliding_attention.rope_theta": 10_000.0,
    "text_config.sliding_window": 1024,
    "audio_config.rms_norm_eps": 1e-6,
}
"""Path in a configuration -> what transformers takes where it is silent; a derived model has the same values."""

# --- tokenizer ---

# Runs of blanks and line breaks are tokens too.
_CONTENT = text(r"[^\x00-\x08\x0e-\x1f\x7f]{1,100}")
_ADDED = table({"content": _CONTENT}, ADDED_FLAGS | {"__type": one_of("AddedToken")})
_BLANK, _BAR = table({"String": one_of(" ")}), table({"String": one_of("▁")})
_NAMED = table({"SpecialToken": table({"id": SPECIAL, "type_id": one_of(0, 1)})})
_PIECES = list_of(any_of(table({"Sequence": table({"id": one_of("A", "B"), "type_id": one_of(0, 1)})}), _NAMED), 6)
_POST = table(
    {"type": one_of("TemplateProcessing"), "single": any_of(SEQUENCES, _PIECES)},
    {
        "pair": any_of(SEQUENCES, _PIECES),
        "special_tokens": table_of(
            r"\S{1,100}", table({"id": SPECIAL, "ids": list_of(TOKEN, 1), "tokens": list_of(SPECIAL, 1)}), 10
        ),
    },
)
_DECODER_STEP = any_of(
    table({"type": one_of("ByteFallback")}),
    table({"type": one_of("Fuse")}),
    table({"type": one_of("Replace"), "pattern": _BAR, "content": one_of(" ")}),
)
TOKENIZER = table(
    {
        "added_tokens": list_of(table({"id": TOKEN, "content": _CONTENT}, ADDED_FLAGS)),
        "decoder": table({"type": one_of("Sequence"), "decoders": list_of(_DECODER_STEP, 3)}),
        "model": table(
            {"type": one_of("BPE"), "vocab": vocabulary, "merges": merges},
            {
                "byte_fallback": one_of(True),
                "continuing_subword_prefix": one_of("", None),
                "dropout": one_of(None),
                "end_of_word_suffix": one_of("", None),
                "fuse_unk": one_of(True),
                "ignore_merges": one_of(False),
                "unk_token": one_of("<unk>"),
            },
        ),
        "normalizer": table({"type": one_of("Replace"), "pattern": _BLANK, "content": one_of("▁")}),
    },
    {
        "padding": one_of(None),
        "post_processor": any_of(one_of(None), _POST),
        "pre_tokenizer": any_of(
            one_of(None),
            table(
                {"type": one_of("Split"), "pattern": _BLANK},
                {"behavior": one_of("MergedWithPrevious"), "invert": one_of(False)},
            ),
        ),
        "truncation": one_of(None),
        "version": one_of("1.0"),
    },
)

_SPECIAL_NAMES = (
    *("bos_token", "eos_token", "pad_token", "unk_token", "mask_token", "image_token", "boi_token", "eoi_token"),
    *("audio_token", "boa_token", "eoa_token", "video_token", "sot_token", "eot_token", "soc_token", "eoc_token"),
    *("think_token", "escape_token", "str_token", "etr_token", "stc_token", "etc_token", "std_token", "etd_token"),
)
_NAMES: dict[str, Shape] = dict.fromkeys(_SPECIAL_NAMES, any_of(SPECIAL_OR_NONE, _ADDED))
_MORE = any_of(list_of(any_of(_ADDED, SPECIAL)), table({}, dict.fromkeys(_SPECIAL_NAMES, SPECIAL)))
_PROCESSOR = one_of("Gemma4UnifiedProcessor")


def _unread(value: Any, where: str) -> Iterator[str]:
    """Yield nothing: the loaders of this family never read the value."""
    yield from ()


TOKENIZER_CONFIG = table(
    {},
    _NAMES
    | {
        **dict.fromkeys(("add_bos_token", "add_eos_token"), one_of(False)),
        **dict.fromkeys(("additional_special_tokens", "extra_special_tokens"), _MORE),
        "added_tokens_decoder": table_of(r"\d{1,7}", _ADDED),
        "backend": one_of("tokenizers"),
        "chat_template": text(r"[\s\S]*"),
        "clean_up_tokenization_spaces": one_of(False),
        "is_local": flag,
        "local_files_only": flag,
        "model_max_length": number(1, 1e31),
        "model_specific_special_tokens": table({}, dict.fromkeys(_SPECIAL_NAMES, SPECIAL)),
        "padding_side": one_of("left", "right"),
        "processor_class": _PROCESSOR,
        "response_schema": _unread,
        "response_template": _unread,
        "sp_model_kwargs": one_of(None),
        "spaces_between_special_tokens": one_of(False),
        "split_special_tokens": one_of(False),
        "tokenizer_class": one_of("GemmaTokenizer", "GemmaTokenizerFast"),
        "use_default_system_prompt": one_of(False),
    },
)

# --- features and generation ---

_EXTRACTOR = table(
    {"sampling_rate": one_of(16_000)},
    {
        **dict.fromkeys(("audio_samples_per_token", "feature_size"), whole(1, 16_000)),
        "dither": one_of(0, 0.0),
        "feature_extractor_type": one_of("Gemma4UnifiedAudioFeatureExtractor"),
        "padding_side": one_of("right"),
        "padding_value": one_of(0, 0.0),
        "processor_class": _PROCESSOR,
        "return_attention_mask": one_of(True),
    },
)
_IMAGES = table_of(r"\w{1,60}", any_of(table_of(r"\w{1,60}", anything_small, 20), anything_small), 60)
PROCESSOR_CONFIG = table(
    {"feature_extractor": _EXTRACTOR},
    {
        "audio_ms_per_token": whole(1, 1_000),
        "audio_seq_length": whole(1, 1 << 16),
        "image_processor": _IMAGES,
        "image_seq_length": whole(1, 1 << 16),
        "processor_class": _PROCESSOR,
        "video_processor": _IMAGES,
    },
)
GENERATION = table(
    {},
    {
        **dict.fromkeys(("bos_token_id", "pad_token_id"), TOKEN_OR_NONE),
        "_from_model_config": flag,
        "cache_implementation": one_of(None),
        "do_sample": flag,
        "eos_token_id": any_of(one_of(None), list_of(TOKEN, 8), TOKEN),
        "max_length": whole(1, 1 << 20),
        "max_new_tokens": whole(1, 1 << 12),
        "suppress_tokens": list_of(TOKEN, 1_000),
        "temperature": number(0.01, 10),
        "top_k": whole(0, MOST_TOKENS),
        "top_p": number(0, 1),
        "transformers_version": VERSION,
    },
)

FILES: Mapping[str, ModelFile] = {
    "chat_template.jinja": ModelFile(shape=None),
    "generation_config.json": ModelFile(shape=GENERATION, required=True),
    "processor_config.json": ModelFile(shape=PROCESSOR_CONFIG, required=True),
    "special_tokens_map.json": ModelFile(shape=table({}, _NAMES)),
    "tokenizer.json": ModelFile(shape=TOKENIZER, required=True, most_bytes=48 << 20),
    "tokenizer_config.json": ModelFile(shape=TOKENIZER_CONFIG, required=True, most_bytes=2 << 20),
}
"""The published tokenizer.json has 32 MB."""


def disagreements(config: dict[str, Any], files: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield where tokenizer and feature extractor do not fit the configuration, or each other's files."""
    names = files.get("tokenizer_config.json", {})
    expected = {}
    for key, (token, default) in _TOKENS.items():
        content = _content(names, token)
        if content is None:
            yield "tokenizer_config.json", f"{token}: is missing, and the processor needs it"
        else:
            expected[content] = config.get(key, default)
    yield from tokenizer_faults(files, config["text_config"].get("vocab_size", 262_144), expected)
    frame = config["audio_config"].get("audio_embed_dim", 640)
    extractor = files.get("processor_config.json", {}).get("feature_extractor", {})
    for key in ("feature_size", "audio_samples_per_token"):
        if extractor.get(key, 640) != frame:
            yield "processor_config.json", f"{key}: expected {frame:,} as in the configuration, got {extractor[key]:,}"


def _content(names: Mapping[str, Any], token: str) -> str | None:
    """Return the text of a special token by its name, wherever the tokenizer's configuration gives it."""
    for place in (names, names.get("extra_special_tokens"), names.get("model_specific_special_tokens")):
        found = place.get(token) if isinstance(place, Mapping) else None
        if found is not None:
            return str(found["content"] if isinstance(found, Mapping) else found)
    return None
