"""A wav2vec 2.0 and a SHAS checkpoint small enough for a test, the same on every machine, and audio for them.

Weights come from numpy's generator, by name, since torch's initialisation may change from version to version.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

RATE = 16_000
WIDTH = 32
HEAD_SHAPES = {
    "transformer.layers.0.self_attn.in_proj_weight": (3 * WIDTH, WIDTH),
    "transformer.layers.0.self_attn.in_proj_bias": (3 * WIDTH,),
    "transformer.layers.0.self_attn.out_proj.weight": (WIDTH, WIDTH),
    "transformer.layers.0.self_attn.out_proj.bias": (WIDTH,),
    "transformer.layers.0.linear1.weight": (2048, WIDTH),
    "transformer.layers.0.linear1.bias": (2048,),
    "transformer.layers.0.linear2.weight": (WIDTH, 2048),
    "transformer.layers.0.linear2.bias": (WIDTH,),
    "transformer.layers.0.norm1.weight": (WIDTH,),
    "transformer.layers.0.norm1.bias": (WIDTH,),
    "transformer.layers.0.norm2.weight": (WIDTH,),
    "transformer.layers.0.norm2.bias": (WIDTH,),
    "layer_norm.weight": (WIDTH,),
    "layer_norm.bias": (WIDTH,),
    "classification_layer.weight": (1, WIDTH),
    "classification_layer.bias": (1,),
}


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return tensors of these shapes that depend on their names alone."""
    state = {}
    for name, shape in shapes.items():
        values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
        values = values / np.sqrt(fan_in) + (1.0 if len(shape) == 1 and name.endswith("weight") else 0.0)
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def write_wav2vec2(folder: Path, layers: int = 3) -> Path:
    """Write a model folder as the hub has them."""
    model = Wav2Vec2Model(
        Wav2Vec2Config(
            conv_dim=[16] * 7,
            conv_bias=True,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            hidden_size=WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=64,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
        )
    )
    model.load_state_dict(weights({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}))
    model.save_pretrained(folder)
    return folder


def write_checkpoint(path: Path, wav2vec2: str, *, keep: int = 2, **content) -> Path:
    """Write a checkpoint as the published training code does: pickled, with its Namespace."""
    settings = argparse.Namespace(
        model_name=wav2vec2,
        wav2vec_keep_layers=keep,
        classifier_n_transformer_layers=1,
        learning_rate=2.5e-4,
        log_wandb=False,
    )
    torch.save({"state_dict": weights(HEAD_SHAPES), "args": settings} | content, path)
    return path


def speak(seconds: float, seed: int) -> np.ndarray:
    """Return bursts of sound with pauses between them, int16 [samples]."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * RATE)
    loudness = np.repeat(rng.random(samples // 4000 + 1) ** 3, 4000)[:samples]
    tone = np.sin(np.cumsum(np.repeat(rng.uniform(0.02, 0.4, samples // 1600 + 1), 1600)[:samples]))
    return (12000 * loudness * (0.7 * tone + 0.3 * rng.standard_normal(samples))).clip(-32768, 32767).astype(np.int16)
