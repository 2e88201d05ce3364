"""Derive from an untrusted configuration of a segmentation classifier which tensors it holds, by bounded arithmetic."""

from __future__ import annotations

import math
from typing import Any

from submission.model.families.json_shape import Shape, anything_small, flag, list_of, number, one_of, table, whole

# wav2vec 2.0 of the largest published size is 1,280 wide and has 48 layers; a classifier keeps some of them.
MOST_LAYERS = 48
FRAME_SAMPLES = 320
"""20 ms: what the segmentation methods take a frame for."""
WIDTH = whole(1, 2_048)
SHARE = number(0, 0.999)
CONVOLUTION = list_of(whole(1, 1_024), 16)

# Keys of Wav2Vec2Config that a loaded classifier does not read: training, other heads, and what it is written with.
_UNREAD = (
    *("adapter_kernel_size", "adapter_stride", "apply_spec_augment", "bos_token_id", "classifier_proj_size"),
    *("codevector_dim", "contrastive_logits_temperature", "ctc_loss_reduction", "ctc_zero_infinity"),
    *("diversity_loss_weight", "eos_token_id", "feat_quantizer_dropout", "gradient_checkpointing"),
    *("initializer_range", "mask_channel_length", "mask_channel_min_space", "mask_channel_other"),
    *("mask_channel_prob", "mask_channel_selection", "mask_feature_length", "mask_feature_min_masks"),
    *("mask_time_length", "mask_time_min_masks", "mask_time_min_space", "mask_time_other", "mask_time_selection"),
    *(
        "num_adapter_layers",
        "num_codevector_groups",
        "num_codevectors_per_group",
        "num_negatives",
        "output_hidden_size",
    ),
    *("pad_token_id", "proj_codevector_dim", "tdnn_dilation", "tdnn_dim", "tdnn_kernel", "torch_dtype", "dtype"),
    *("transformers_version", "use_weighted_layer_sum", "vocab_size", "xvector_output_dim", "architectures"),
)
_ENCODER: dict[str, Shape] = {
    **dict.fromkeys(_UNREAD, anything_small),
    **dict.fromkeys(
        (
            *("activation_dropout", "attention_dropout", "feat_extract_dropout", "feat_proj_dropout", "final_dropout"),
            *("hidden_dropout", "layerdrop", "mask_feature_prob", "mask_time_prob", "feat_quantizer_dropout"),
        ),
        SHARE,
    ),
    "adapter_attn_dim": one_of(None),
    "add_adapter": one_of(False),
    "conv_bias": flag,
    "conv_dim": CONVOLUTION,
    "conv_kernel": list_of(whole(1, 64), 16),
    "conv_stride": list_of(whole(1, 64), 16),
    "do_stable_layer_norm": flag,
    "feat_extract_activation": one_of("gelu"),
    "feat_extract_norm": one_of("layer", "group"),
    "hidden_act": one_of("gelu"),
    "hidden_size": WIDTH,
    "intermediate_size": whole(1, 8_192),
    "layer_norm_eps": number(1e-12, 1e-2),
    "model_type": one_of("wav2vec2"),
    "num_attention_heads": whole(1, 64),
    "num_conv_pos_embedding_groups": whole(1, 2_048),
    "num_conv_pos_embeddings": whole(1, 1_024),
    "num_feat_extract_layers": whole(1, 16),
    "num_hidden_layers": whole(0, MOST_LAYERS),
}
CLASSIFIER = table(
    {
        "format": one_of("segmentation-classifier"),
        "version": one_of(1),
        "wav2vec2": table({}, _ENCODER),
        "head": table(
            {"layers": whole(0, 8), "heads": whole(1, 64), "feed_forward": whole(1, 8_192), "dropout": SHARE}
        ),
    }
)
"""What the `config.json` of a classifier may hold, as `segment.classifier.model` writes and reads it."""

DEFAULTS: dict[str, Any] = {
    "conv_bias": False,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "feat_extract_norm": "group",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "mask_feature_prob": 0.0,
    "mask_time_prob": 0.05,
    "num_attention_heads": 12,
    "num_conv_pos_embedding_groups": 16,
    "num_conv_pos_embeddings": 128,
    "num_hidden_layers": 12,
}
"""What transformers' Wav2Vec2Config fills in where a configuration is silent."""

Shapes = dict[str, tuple[int, ...]]


def classifier_tensors(config: dict[str, Any]) -> Shapes:
    """Return name -> shape of every tensor of a classifier whose configuration has the shape `CLASSIFIER`.

    Raises ValueError, which says why, where its sizes do not add up.
    """
    encoder = DEFAULTS | config["wav2vec2"]
    head, width = config["head"], encoder["hidden_size"]
    convolutions = len(encoder["conv_dim"])
    if not convolutions or {len(encoder[key]) for key in ("conv_kernel", "conv_stride")} != {convolutions}:
        raise ValueError("wav2vec2: conv_dim, conv_kernel and conv_stride differ in length, or are empty")
    if math.prod(encoder["conv_stride"]) != FRAME_SAMPLES:
        raise ValueError(f"wav2vec2.conv_stride: a frame is of other than {FRAME_SAMPLES} samples")
    if encoder.get("num_feat_extract_layers", convolutions) != convolutions:
        raise ValueError("wav2vec2.num_feat_extract_layers: is not the number of convolutions")
    for key, parts in (
        ("wav2vec2.num_attention_heads", encoder["num_attention_heads"]),
        ("wav2vec2.num_conv_pos_embedding_groups", encoder["num_conv_pos_embedding_groups"]),
        ("head.heads", head["heads"]),
    ):
        if width % parts:
            raise ValueError(f"{key}: {parts} does not divide the width {width}")
    shapes = _features(encoder) | _encoder(encoder, width)
    for layer in range(head["layers"]):
        shapes |= _head_layer(f"head.transformer.layers.{layer}", width, head["feed_forward"])
    return shapes | _norm("head.layer_norm", width) | _linear("head.classification_layer", 1, width)


def _linear(name: str, out: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (out, inputs), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _features(encoder: dict[str, Any]) -> Shapes:
    """Return the convolutions and the projection of what they make."""
    shapes: Shapes = {}
    inputs = 1
    for layer, (out, kernel) in enumerate(zip(encoder["conv_dim"], encoder["conv_kernel"], strict=True)):
        name = f"wav2vec2.feature_extractor.conv_layers.{layer}"
        shapes[f"{name}.conv.weight"] = (out, inputs, kernel)
        if encoder["conv_bias"]:
            shapes[f"{name}.conv.bias"] = (out,)
        if encoder["feat_extract_norm"] == "layer" or layer == 0:
            shapes |= _norm(f"{name}.layer_norm", out)
        inputs = out
    name = "wav2vec2.feature_projection"
    return shapes | _norm(f"{name}.layer_norm", inputs) | _linear(f"{name}.projection", encoder["hidden_size"], inputs)


def _encoder(encoder: dict[str, Any], width: int) -> Shapes:
    kernel, groups = encoder["num_conv_pos_embeddings"], encoder["num_conv_pos_embedding_groups"]
    position = "wav2vec2.encoder.pos_conv_embed.conv"
    shapes: Shapes = {
        f"{position}.bias": (width,),
        f"{position}.parametrizations.weight.original0": (1, 1, kernel),
        f"{position}.parametrizations.weight.original1": (width, width // groups, kernel),
    }
    if encoder["mask_time_prob"] > 0 or encoder["mask_feature_prob"] > 0:
        shapes["wav2vec2.masked_spec_embed"] = (width,)
    for layer in range(encoder["num_hidden_layers"]):
        name = f"wav2vec2.encoder.layers.{layer}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= _linear(f"{name}.attention.{part}", width, width)
        shapes |= _norm(f"{name}.layer_norm", width) | _norm(f"{name}.final_layer_norm", width)
        shapes |= _linear(f"{name}.feed_forward.intermediate_dense", encoder["intermediate_size"], width)
        shapes |= _linear(f"{name}.feed_forward.output_dense", width, encoder["intermediate_size"])
    return shapes


def _head_layer(name: str, width: int, inner: int) -> Shapes:
    """Return one layer of torch's TransformerEncoder."""
    return {
        f"{name}.self_attn.in_proj_weight": (3 * width, width),
        f"{name}.self_attn.in_proj_bias": (3 * width,),
        **_linear(f"{name}.self_attn.out_proj", width, width),
        **_linear(f"{name}.linear1", inner, width),
        **_linear(f"{name}.linear2", width, inner),
        **_norm(f"{name}.norm1", width),
        **_norm(f"{name}.norm2", width),
    }
