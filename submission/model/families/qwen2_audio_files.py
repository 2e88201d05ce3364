"""What the files of a Qwen2-Audio model's folder may hold: configuration, tokenizer, feature extractor, generation.

A `tokenizer.json` is a program (rules that replace text before and after the model), and so are a processor and a
generation configuration. Only the rules of Qwen2's byte-level BPE are allowed, with any vocabulary, and the numbers
are bounded, so that no value makes loading take without end.
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
    whole,
)
from submission.model.families.tokenizer_shape import (
    ADDED,
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
SHARE = number(0, 0.999)
WIDTH = whole(1, 1 << 20)
LAYERS = whole(1, 1_000)

# Keys that a configuration of the library may repeat and that change nothing in what a loaded model computes.
_INERT: dict[str, Shape] = {
    "dtype": DTYPE,
    "torch_dtype": DTYPE,
    "initializer_range": number(0, 10),
    "transformers_version": VERSION,
    "use_cache": flag,
    "_name_or_path": one_of("", None),
    "attention_dropout": SHARE,
}

_AUDIO: dict[str, Shape] = _INERT | {
    "activation_dropout": SHARE,
    "activation_function": one_of("gelu"),
    "d_model": WIDTH,
    "dropout": SHARE,
    "encoder_attention_heads": whole(1, 1_024),
    "encoder_ffn_dim": WIDTH,
    "encoder_layerdrop": SHARE,
    "encoder_layers": LAYERS,
    "max_source_positions": whole(1, 1 << 16),
    "model_type": one_of("qwen2_audio_encoder"),
    "num_mel_bins": whole(1, 1_024),
    "scale_embedding": one_of(False),
}
_TEXT: dict[str, Shape] = _INERT | {
    "bos_token_id": TOKEN_OR_NONE,
    "eos_token_id": TOKEN_OR_NONE,
    "pad_token_id": TOKEN_OR_NONE,
    "head_dim": any_of(one_of(None), whole(1, 1_024)),
    "hidden_act": one_of("silu"),
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "layer_types": list_of(one_of("full_attention"), 1_000),
    "max_position_embeddings": whole(1, 1 << 20),
    "max_window_layers": whole(0, 1_000),
    "model_type": one_of("qwen2"),
    "num_attention_heads": whole(1, 1_024),
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": any_of(one_of(None), whole(1, 1_024)),
    "rms_norm_eps": number(1e-12, 1e-2),
    "rope_parameters": table({}, {"rope_theta": number(1, 1e9), "rope_type": one_of("default")}),
    "rope_scaling": one_of(None),
    "rope_theta": number(1, 1e9),
    "sliding_window": any_of(one_of(None), whole(1, 1 << 20)),
    "tie_word_embeddings": one_of(False),
    "use_sliding_window": one_of(False),
    "vocab_size": whole(1, MOST_TOKENS),
}

CONFIG = table(
    {"audio_config": table({}, _AUDIO), "model_type": one_of("qwen2_audio"), "text_config": table({}, _TEXT)},
    _INERT
    | {
        "architectures": list_of(one_of("Qwen2AudioForConditionalGeneration"), 1),
        "audio_token_index": TOKEN,
        "ignore_index": one_of(-100),
        "tie_word_embeddings": one_of(False),
        "vocab_size": whole(1, MOST_TOKENS),
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), TOKEN_OR_NONE),
    },
)

# --- tokenizer ---

PRETOKENIZE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = table(
    {"type": one_of("ByteLevel")}, dict.fromkeys(("add_prefix_space", "trim_offsets", "use_regex"), flag)
)

TOKENIZER = table(
    {
        "added_tokens": list_of(table({"id": TOKEN, "content": SPECIAL}, ADDED_FLAGS)),
        "decoder": BYTE_LEVEL,
        "model": table(
            {"type": one_of("BPE"), "vocab": vocabulary, "merges": merges},
            {
                "byte_fallback": one_of(False),
                "continuing_subword_prefix": one_of("", None),
                "dropout": one_of(None),
                "end_of_word_suffix": one_of("", None),
                "fuse_unk": one_of(False),
                "ignore_merges": one_of(False),
                "unk_token": one_of(None),
            },
        ),
        "normalizer": table({"type": one_of("NFC")}),
        "pre_tokenizer": table(
            {
                "type": one_of("Sequence"),
                "pretokenizers": list_of(
                    any_of(
                        table(
                            {"type": one_of("Split"), "pattern": table({"Regex": one_of(PRETOKENIZE)})},
                            {"behavior": one_of("Isolated"), "invert": one_of(False)},
                        ),
                        BYTE_LEVEL,
                    ),
                    2,
                ),
            }
        ),
    },
    {
        "padding": one_of(None),
        "post_processor": any_of(
            one_of(None),
            table(
                {"type": one_of("TemplateProcessing"), "single": SEQUENCES},
                {"pair": SEQUENCES, "special_tokens": table({})},
            ),
            BYTE_LEVEL,
        ),
        "truncation": one_of(None),
        "version": one_of("1.0"),
    },
)

_TOKEN_NAMES: dict[str, Shape] = dict.fromkeys(
    ("bos_token", "eos_token", "pad_token", "unk_token"), SPECIAL_OR_NONE
) | dict.fromkeys(("additional_special_tokens", "extra_special_tokens"), list_of(any_of(ADDED, SPECIAL)))
_AUDIO_TOKENS: dict[str, Shape] = {
    "audio_bos_token": one_of("<|audio_bos|>"),
    "audio_eos_token": one_of("<|audio_eos|>"),
    "audio_token": one_of("<|AUDIO|>"),
}
_PROCESSOR = one_of("Qwen2AudioProcessor")
TOKENIZER_CONFIG = table(
    {},
    _TOKEN_NAMES
    | _AUDIO_TOKENS
    | {
        "add_prefix_space": one_of(None, False),
        "added_tokens_decoder": table_of(r"\d{1,7}", ADDED),
        "backend": one_of("tokenizers"),
        "chat_template": lambda value, where: iter(()) if isinstance(value, str) else anything_small(value, where),
        "clean_up_tokenization_spaces": one_of(False),
        "errors": one_of("replace"),
        "is_local": flag,
        "model_max_length": number(1, 1e31),
        "padding_side": one_of("left", "right"),
        "processor_class": _PROCESSOR,
        "split_special_tokens": one_of(False),
        "tokenizer_class": one_of("Qwen2Tokenizer", "Qwen2TokenizerFast"),
    },
)

# --- features and generation ---

_EXTRACTOR: dict[str, Shape] = {
    "chunk_length": whole(1, 3_600),
    "feature_size": whole(1, 1_024),
    "hop_length": whole(1, 16_000),
    "n_fft": whole(16, 16_000),
    "sampling_rate": one_of(16_000),
}
_EXTRACTOR_MORE: dict[str, Shape] = {
    "dither": one_of(0, 0.0),
    "feature_extractor_type": one_of("WhisperFeatureExtractor"),
    "n_samples": whole(1, 3_600 * 16_000),
    "nb_max_frames": whole(1, 1 << 20),
    "padding_side": one_of("right"),
    "padding_value": one_of(0, 0.0),
    "processor_class": _PROCESSOR,
    "return_attention_mask": one_of(True),
}
GENERATION = table(
    {},
    {
        **dict.fromkeys(("bos_token_id", "pad_token_id"), TOKEN_OR_NONE),
        "_from_model_config": flag,
        "chat_format": one_of("chatml", "raw"),
        "do_sample": flag,
        "eos_token_id": any_of(one_of(None), list_of(TOKEN, 8), TOKEN),
        "max_length": whole(1, 1 << 16),
        "max_new_tokens": whole(1, 1 << 12),
        "max_window_size": whole(1, 1 << 16),
        "repetition_penalty": number(0.5, 4),
        "temperature": number(0.01, 10),
        "top_k": whole(0, MOST_TOKENS),
        "top_p": number(0, 1),
        "transformers_version": VERSION,
    },
)

FILES: Mapping[str, ModelFile] = {
    "added_tokens.json": ModelFile(shape=table_of(r"\S{1,100}", TOKEN), most_bytes=1 << 20),
    "chat_template.jinja": ModelFile(shape=None),
    "chat_template.json": ModelFile(shape=table({"chat_template": lambda value, where: iter(())})),
    "generation_config.json": ModelFile(shape=GENERATION, required=True),
    "merges.txt": ModelFile(shape=None, most_bytes=8 << 20),
    "preprocessor_config.json": ModelFile(shape=table(_EXTRACTOR, _EXTRACTOR_MORE)),
    "processor_config.json": ModelFile(
        shape=table(
            {}, _AUDIO_TOKENS | {"feature_extractor": table(_EXTRACTOR, _EXTRACTOR_MORE), "processor_class": _PROCESSOR}
        )
    ),
    "special_tokens_map.json": ModelFile(shape=table({}, _TOKEN_NAMES)),
    "tokenizer.json": ModelFile(shape=TOKENIZER, required=True, most_bytes=16 << 20),
    "tokenizer_config.json": ModelFile(shape=TOKENIZER_CONFIG, required=True, most_bytes=2 << 20),
    "vocab.json": ModelFile(shape=vocabulary, most_bytes=8 << 20),
}


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return what besides its sizes decides what a model of a configuration of this shape computes."""
    words = config["text_config"]
    rope = words.get("rope_parameters") or {}
    return {
        "audio_token_index": config.get("audio_token_index", 151646),
        "text_config.max_position_embeddings": words.get("max_position_embeddings", 32768),
        "text_config.rms_norm_eps": words.get("rms_norm_eps", 1e-06),
        "text_config.rope_theta": rope.get("rope_theta", words.get("rope_theta", 10_000)),
    }


def disagreements(config: dict[str, Any], files: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield where tokenizer and feature extractor do not fit the configuration, or each other's files."""
    size = config["text_config"].get("vocab_size", 151936)
    yield from tokenizer_faults(files, size, {"<|AUDIO|>": config.get("audio_token_index", 151646)})
    processor = files.get("processor_config.json", {}).get("feature_extractor")
    separate = files.get("preprocessor_config.json")
    if processor is None and separate is None:
        yield "processor_config.json", "no feature extractor: neither here nor in preprocessor_config.json"
    for name, extractor in (("processor_config.json", processor), ("preprocessor_config.json", separate)):
        if extractor is not None:
            for what in _misfits(config["audio_config"], extractor):
                yield name, what
    if processor is not None and separate is not None:
        shared = {key: value for key, value in separate.items() if key in _EXTRACTOR}
        if shared != {key: processor[key] for key in _EXTRACTOR}:
            yield "preprocessor_config.json", "describes another feature extractor than processor_config.json"


def _misfits(audio: dict[str, Any], extractor: dict[str, Any]) -> Iterator[str]:
    samples = extractor["chunk_length"] * extractor["sampling_rate"]
    frames = samples // extractor["hop_length"]
    for key, expected in (
        ("feature_size", audio.get("num_mel_bins", 128)),
        ("n_samples", samples),
        ("nb_max_frames", frames),
    ):
        if extractor.get(key, expected) != expected:
            yield f"{key}: expected {expected:,}, got {extractor[key]:,}"
    if frames != 2 * audio.get("max_source_positions", 1500):
        yield f"its {frames:,} frames are not twice the encoder's positions"
