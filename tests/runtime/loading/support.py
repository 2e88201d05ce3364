"""A small packed model: its codecs, its inputs, and ways to load and to change it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from submission.miniature.model import PROMPT
from submission.model.codecs import Affine, Codec
from submission.runtime.prompt import build_inputs

UP = "language_model.model.layers.0.mlp.up_proj.weight"


def affine(bits: int, group_size: int) -> Codec:
    return Affine(bits=bits, group_size=group_size)


RULES = {"*": affine(4, 64), "embedding": affine(2, 64), "mlp": affine(3, 48), "audio.mlp": affine(8, 128)}


def inputs(processor, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Two utterances of noise."""
    generator = np.random.default_rng(0)
    waves = [generator.standard_normal(n).astype(np.float32) * 0.1 for n in (16_000, 40_000)]
    batch = build_inputs(processor, waves, [PROMPT.format(target_language="German")] * 2)
    return batch | {"input_features": batch["input_features"].to(dtype)}


def logits(model, batch) -> torch.Tensor:
    with torch.inference_mode():
        return model(**batch).logits


def change(folder: Path, edit) -> None:
    path = folder / "model.safetensors"
    weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


def stock_model(folder: Path, **kwargs):
    from transformers import Qwen2AudioForConditionalGeneration

    import submission.runtime  # noqa: F401  what makes the line below work

    kwargs.setdefault("dtype", torch.float32)
    return Qwen2AudioForConditionalGeneration.from_pretrained(folder, local_files_only=True, **kwargs)


def split(folder: Path, pieces: int = 3) -> list[Path]:
    """Cut a model folder's one file into shards with an index; a weight's parts come to lie in different ones."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = [folder / f"model-{n + 1:05d}-of-{pieces:05d}.safetensors" for n in range(pieces)]
    for n, path in enumerate(shards):
        save_file({name: weights[name] for name in names[n::pieces]}, path, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shards[i % pieces].name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return shards
