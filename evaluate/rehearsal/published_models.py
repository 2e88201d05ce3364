"""Write models of random weights as theirs are published: the base model, and a SHAS classifier with its encoder.

The base model has Qwen2-Audio-7B's configuration file, names, vocabulary and window, in shards with an index. `full`
keeps every width and takes fewer layers; `narrow` also narrows the widths (about 80 million parameters, nearly all of
them embedding and head). The classifier is the published pickle of the head alone, beside a wav2vec 2.0 folder of
xls-r-300m's layout, which `narrow` narrows too.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from evaluate.rehearsal.prompted_script import write_in_prompted_script
from evaluate.rehearsal.qwen_vocabulary import read_ranks, write_tokenizer
from submission.errors import UserError
from submission.model.families import family_of, shipped_config
from submission.store.digests import canonical_json, write_text

Width = Literal["narrow", "full"]
NARROW = {
    "audio_config": {"d_model": 128, "encoder_attention_heads": 2, "encoder_ffn_dim": 512},
    "text_config": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
}
"""Widths that groups of 128 divide, as those of the published model."""
SEED = 0
SHARD_BYTES = {"narrow": "64MB", "full": "4GB"}

XLS_R_300M: dict[str, Any] = {
    "activation_dropout": 0.0,
    "apply_spec_augment": True,
    "attention_dropout": 0.1,
    "conv_bias": True,
    "conv_dim": [512] * 7,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "feat_proj_dropout": 0.1,
    "hidden_dropout": 0.1,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "layerdrop": 0.1,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
}
"""Where facebook/wav2vec2-xls-r-300m departs from transformers' defaults."""
NARROW_ENCODER = {
    "conv_dim": [32] * 7,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
}
KEPT_LAYERS = {"narrow": 2, "full": 15}
HEAD_FEED_FORWARD = 2048


def base_config(model: str, width: Width, layers: int) -> dict[str, Any]:
    """Return the published configuration with so many layers, narrowed or not; UserError for too many or none."""
    published = shipped_config(model)
    assert published is not None, f"no configuration of {model} ships"
    most = family_of(published).sizes(published)["text_config.num_hidden_layers"]
    if not 1 <= layers <= most:
        raise UserError("--layers", f"expected 1 to {most}, got {layers}", "leave it out for the default")
    config = family_of(published).with_layers(published, layers)
    if width == "narrow":
        config |= {section: config[section] | narrowed for section, narrowed in NARROW.items()}
    return config


def write_base_model(
    folder: Path, config: dict[str, Any], width: Width, vocabulary: Path, languages: Mapping[str, str]
) -> None:
    """Write a checkpoint of random bfloat16 weights with tokenizer and feature extractor, as it lies on the hub.

    languages: name in a prompt -> language; what the prompt names decides the script of the answer.
    """
    import torch
    from transformers import WhisperFeatureExtractor

    from submission.runtime.families import runtime_of

    model_class = runtime_of(config).model_class
    assert model_class.config_class is not None  # as every family's class has one
    torch.manual_seed(SEED)
    model = model_class._from_config(model_class.config_class.from_dict(config), dtype=torch.bfloat16)
    state = {family_of(config).hub_name(name): weight.detach() for name, weight in model.named_parameters()}
    write_in_prompted_script(state, config, read_ranks(vocabulary), languages)
    model.save_pretrained(folder, max_shard_size=SHARD_BYTES[width])
    del model, state
    write_text(folder / "config.json", canonical_json(config))  # the published file, which leaves out much
    end = config["text_config"]["eos_token_id"]
    settings = {"bos_token_id": end, "do_sample": False, "eos_token_id": end, "pad_token_id": end - 2}
    write_text(folder / "generation_config.json", canonical_json(settings))
    extractor = WhisperFeatureExtractor(feature_size=config["audio_config"]["num_mel_bins"], return_attention_mask=True)
    extractor.save_pretrained(folder)
    write_tokenizer(vocabulary, folder)


def write_classifier(folder: Path, width: Width) -> tuple[Path, Path]:
    """Write a SHAS checkpoint and its encoder; return the two paths, as `python -m segment convert` takes them."""
    import torch
    from torch import nn
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(SEED)
    fields = XLS_R_300M | (NARROW_ENCODER if width == "narrow" else {})
    encoder, checkpoint = folder / "wav2vec2-xls-r-300m", folder / "mult_sfc_model_epoch-4.pt"
    Wav2Vec2Model(Wav2Vec2Config(**fields)).save_pretrained(encoder)
    size = fields["hidden_size"]
    layer = nn.TransformerEncoderLayer(size, 8, HEAD_FEED_FORWARD, 0.1, "gelu", batch_first=True, norm_first=True)
    parts = {
        "transformer": nn.TransformerEncoder(layer, 1, enable_nested_tensor=False),
        "layer_norm": nn.LayerNorm(size),
        "classification_layer": nn.Linear(size, 1),
    }
    state = {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}
    settings = argparse.Namespace(
        model_name="facebook/wav2vec2-xls-r-300m",
        wav2vec_keep_layers=KEPT_LAYERS[width],
        classifier_n_transformer_layers=1,
        finetune_wav2vec=False,
    )
    torch.save({"state_dict": state, "args": settings}, checkpoint)
    return checkpoint, encoder
