"""Conversion of a published SHAS checkpoint into a classifier folder.

A checkpoint is a pickle: `state_dict` of the head alone, and `args` (an argparse.Namespace) that name the wav2vec 2.0
model and how many of its layers are kept. Unpickling can run anything, so only tensors, the plain containers and
argparse.Namespace are allowed; a file that names anything else is refused before any of it is loaded. The encoder
comes from a wav2vec 2.0 folder or hub name. The result holds the head and the
encoder's first layers, as safetensors.
"""

from __future__ import annotations

import argparse
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import Wav2Vec2Config, Wav2Vec2Model

from segment.classifier.model import Classifier, Head, save_classifier
from submission.errors import UserError

HEADS = 8
"""Attention heads of the published head: not in the checkpoint, fixed in its code."""
UNUSED = "masked_spec_embed"
"""The one parameter that a wav2vec 2.0 model may lack: it replaces what training masks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCheckpoint:
    """What a published checkpoint holds."""

    state: dict[str, torch.Tensor]
    """Parameters of the head."""
    model_name: str
    """Folder or hub name of the wav2vec 2.0 model that it was trained on."""
    kept_layers: int
    head_layers: int


def convert(checkpoint: Path, wav2vec2: str | None, out: Path, dtype: torch.dtype = torch.float32) -> Classifier:
    """Write a published checkpoint as a classifier folder, and return the classifier.

    wav2vec2: folder or hub name of the encoder; None for the one that the checkpoint names.
    """
    published = read_checkpoint(checkpoint)
    encoder = read_wav2vec2(wav2vec2 or published.model_name)
    classifier = assemble(published, encoder, str(checkpoint))
    save_classifier(classifier, out, dtype)
    return classifier


def read_checkpoint(path: Path) -> PublishedCheckpoint:
    """Return what a published checkpoint holds; UserError where it names anything but tensors and settings."""
    get = "download the checkpoint again from where SHAS is published"
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error})", "check the path") from error
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"names {named[1]}, which is none of tensors, containers and argparse.Namespace" if named else str(error)
        raise UserError(
            str(path), f"is refused: it {what}" if named else f"is not a checkpoint ({what})", get
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError) as error:
        raise UserError(str(path), f"is not a checkpoint ({error})", get) from error
    try:
        state, settings = content["state_dict"], vars(content["args"])
        return PublishedCheckpoint(
            state={str(name): tensor.float() for name, tensor in state.items()},
            model_name=str(settings["model_name"]),
            kept_layers=int(settings["wav2vec_keep_layers"]),
            head_layers=int(settings["classifier_n_transformer_layers"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(str(path), f"lacks what a SHAS checkpoint holds ({error!r})", get) from error


def read_wav2vec2(name: str) -> Wav2Vec2Model:
    """Return a wav2vec 2.0 model of a folder or, where a network or the hub's cache allows, of a hub name.

    Raises UserError where it cannot be read or lacks parameters, which would be random ones.
    """
    where = f"wav2vec 2.0 model {name}"
    fix = f"download it (`hf download {name} --local-dir WAV2VEC2`) and write --wav2vec2 WAV2VEC2"
    if _is_place(name):
        fix = "name the folder of a wav2vec 2.0 model (config.json and its weights), or its hub name"
    try:
        pair: Any = Wav2Vec2Model.from_pretrained(  # the library's types know of a model alone
            name, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
        model, loaded = pair
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        short = " ".join(str(error).split())[:200]
        raise UserError(where, f"cannot be loaded ({short})", fix) from error
    mismatched = {key if isinstance(key, str) else key[0] for key in loaded["mismatched_keys"]}
    if wrong := sorted((set(loaded["missing_keys"]) | mismatched) - {UNUSED}):
        kind = "has another shape of" if wrong[0] in mismatched else "lacks"
        raise UserError(where, f"{kind} {wrong[0]} ({len(wrong)} parameters missing or misshapen)", fix)
    return model


def _is_place(name: str) -> bool:
    """Return whether a name means a folder here: `owner/model` is a hub name unless such a folder is here."""
    return Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1


def assemble(published: PublishedCheckpoint, encoder: Wav2Vec2Model, where: str) -> Classifier:
    """Return the classifier of a head and the encoder's first layers; UserError where they do not fit."""
    config, state = encoder.config, published.state
    layers, width = config.num_hidden_layers, config.hidden_size
    choose = "give the wav2vec 2.0 model that the head was trained on with --wav2vec2"
    if not 0 < published.kept_layers <= layers:
        raise UserError(where, f"keeps {published.kept_layers} layers, the encoder has {layers}", choose)
    got = tuple(state["layer_norm.weight"].shape) if "layer_norm.weight" in state else None
    if got != (width,):
        raise UserError(where, f"layer_norm.weight: expected shape {(width,)}, the encoder's width, got {got}", choose)
    linear = state.get("transformer.layers.0.linear1.weight")
    head = Head(
        layers=published.head_layers,
        heads=HEADS,
        feed_forward=Head().feed_forward if linear is None else linear.shape[0],
    )
    fields = _fields(config) | {"num_hidden_layers": published.kept_layers}
    classifier = Classifier(fields, head)
    wanted = {name: tuple(tensor.shape) for name, tensor in classifier.state_dict().items()}
    parts = {f"wav2vec2.{name}": tensor for name, tensor in encoder.state_dict().items()}
    parts = {name: tensor for name, tensor in parts.items() if name in wanted}  # less the layers that are not kept
    parts |= {f"head.{name}": tensor for name, tensor in state.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in parts.items()}
    if wanted != shapes:
        name = min(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name))
        what = f"{name}: expected shape {wanted.get(name, 'none')}, got {shapes.get(name, 'none')}"
        raise UserError(where, what, choose)
    classifier.load_state_dict(parts)
    return classifier.eval()


def _fields(config: Wav2Vec2Config) -> dict[str, Any]:
    """Return the fields of a configuration that are not transformers' defaults, and none about where it came from."""
    fields = config.to_diff_dict()
    return {
        k: v for k, v in fields.items() if k not in ("architectures", "dtype", "model_type", "transformers_version")
    }
