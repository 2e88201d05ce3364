"""A tiny random Gemma 4 Unified model of the library's own classes: two kinds of layers, tied head, chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    GemmaTokenizer,
    GenerationConfig,
)

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
NAMED = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "sot_token": "<|turn>",
    "eot_token": "<turn|>",
    "soc_token": "<|channel>",
    "eoc_token": "<channel|>",
}
VIDEO = "<|video|>"
TEXTS = ["Translate the speech into German", "der Hund schläft die Katze ein Haus", "猫在睡觉 狗"] * 4
# A user's turn as the published template writes it, thinking switched off by an empty channel.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|turn>{{ message['role'] }}\n"
    "{% for item in message['content'] %}{% if item['type'] == 'text' %}{{ item['text'] | trim }}"
    "{% elif item['type'] == 'audio' %}<|audio|>{% endif %}{% endfor %}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model\n"
    "{% if not enable_thinking | default(false) %}<|channel>thought\n<channel|>{% endif %}{% endif %}"
)


def tiny_tokenizer(folder: Path) -> GemmaTokenizer:
    """Return a tokenizer of Gemma's rules with the bytes, a few words and the special tokens; files go to a folder."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    octets = [f"<0x{octet:02X}>" for octet in range(256)]
    special = [*SPECIAL, *octets, *NAMED.values(), VIDEO]
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    state = json.loads(tokenizer.to_str())
    named = {*SPECIAL, *NAMED.values(), VIDEO}
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in named]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
    names = dict(zip(("pad_token", "eos_token", "bos_token", "unk_token", "mask_token"), SPECIAL, strict=True))
    config = names | NAMED | {"extra_special_tokens": [VIDEO], "padding_side": "left", "backend": "tokenizers"}
    config |= {"tokenizer_class": "GemmaTokenizer", "processor_class": "Gemma4UnifiedProcessor"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    loaded: GemmaTokenizer = GemmaTokenizer.from_pretrained(folder)
    return loaded


def tiny_config(tokenizer: GemmaTokenizer, **text: Any) -> dict[str, Any]:
    """Return a configuration as the hub's, with small sizes; text: changed values of its text section."""
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in NAMED.items()}
    return {
        "architectures": ["Gemma4UnifiedForConditionalGeneration"],
        "model_type": "gemma4_unified",
        "dtype": "bfloat16",
        "tie_word_embeddings": True,
        "audio_token_id": ids["audio_token"],
        "boa_token_id": ids["boa_token"],
        "eoa_token_index": ids["eoa_token"],
        "boi_token_id": ids["boi_token"],
        "eoi_token_id": ids["eoi_token"],
        "image_token_id": ids["image_token"],
        "video_token_id": tokenizer.convert_tokens_to_ids(VIDEO),
        "audio_config": {"model_type": "gemma4_unified_audio", "audio_embed_dim": 640},
        "vision_config": {
            "model_type": "gemma4_unified_vision",
            "patch_size": 4,
            "pooling_kernel_size": 2,
            "mm_embed_dim": 64,
            "mm_posemb_size": 16,
            "output_proj_dims": 64,
        },
        "text_config": {
            "model_type": "gemma4_unified_text",
            "vocab_size": len(tokenizer) + -len(tokenizer) % 64,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "num_global_key_value_heads": 1,
            "head_dim": 32,
            "global_head_dim": 64,
            "attention_k_eq_v": True,
            "final_logit_softcapping": 30.0,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "sliding_window": 16,
            "max_position_embeddings": 512,
        }
        | text,
    }


def write_gemma(folder: Path, seed: int = 0, **text: Any) -> Path:
    """Write a checkpoint of random weights in bfloat16 with its processor's files, and return the folder."""
    tokenizer = tiny_tokenizer(folder)
    torch.manual_seed(seed)
    model = Gemma4UnifiedForConditionalGeneration(Gemma4UnifiedConfig.from_dict(tiny_config(tokenizer, **text)))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("norm.weight", "layer_scalar")):
                tensor.copy_(1 + torch.rand(tensor.shape) / 2)  # so that none is forgotten unnoticed
            elif name != "lm_head.weight":
                tensor.normal_(std=0.1)
    end = tokenizer.convert_tokens_to_ids("<turn|>")
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=tokenizer.pad_token_id)
    model.bfloat16().save_pretrained(folder)
    processor = {
        "processor_class": "Gemma4UnifiedProcessor",
        "audio_seq_length": 750,
        "audio_ms_per_token": 40,
        "feature_extractor": {
            "feature_extractor_type": "Gemma4UnifiedAudioFeatureExtractor",
            "audio_samples_per_token": 640,
            "feature_size": 640,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
            "sampling_rate": 16_000,
        },
    }
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder
