"""The frame classifier of SHAS: the probability that a frame of 20 ms lies inside an utterance.

A wav2vec 2.0 encoder, truncated after its first layers and without its final layer norm (the head normalises
again), then a pre-norm Transformer, a layer norm and one logit per frame (Tsiamas et al., Interspeech 2022).
Parameter names below `head.` are those of the published checkpoints, those below `wav2vec2.` transformers'.

On disk a classifier is a folder, without any pickle:

    config.json          {"format": "segmentation-classifier", "version": 1, "wav2vec2": {…}, "head": {…}}
    model.safetensors    every parameter; float32, or float16 to halve it (computation is float32 either way)
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from submission.errors import UserError
from submission.store.digests import canonical_json, write_bytes, write_text

FORMAT = "segmentation-classifier"
VERSION = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What follows the encoder; the defaults are those of the published checkpoints."""

    layers: int = 1
    """Pre-norm Transformer layers; the multilingual checkpoint has two."""
    heads: int = 8
    feed_forward: int = 2048
    dropout: float = 0.1


TINY_HEAD = Head(layers=1, heads=2, feed_forward=192, dropout=0.0)
TINY_WAV2VEC2: dict[str, Any] = {
    # The convolutions are nearly all of the cost, and the first ones see 64000 frames in a 20 s window:
    # narrow there, wider where the rate is low. Strides and kernels are the standard ones: 320 samples a frame.
    "conv_dim": [16, 24, 32, 48, 64, 64, 64],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 192,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 8,
    "hidden_dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "apply_spec_augment": False,
}
"""Fields of Wav2Vec2Config for a classifier of about 0.2 M parameters with the xls-r layout."""

CONFIGURATIONS: dict[str, tuple[dict[str, Any], Head]] = {"tiny": (TINY_WAV2VEC2, TINY_HEAD)}


class _HeadModules(nn.Module):
    """The modules of a head, by the names of published checkpoints."""

    transformer: nn.TransformerEncoder
    """Only where the head has layers."""
    dropout: nn.Dropout
    layer_norm: nn.LayerNorm
    classification_layer: nn.Linear


class Classifier(nn.Module):
    """wav2vec 2.0 and head; forward gives one logit per frame."""

    def __init__(self, wav2vec2: dict[str, Any], head: Head) -> None:
        """wav2vec2: fields of transformers' Wav2Vec2Config; num_hidden_layers is what is kept."""
        super().__init__()
        self.wav2vec2_fields, self.head_options = dict(wav2vec2), head
        self.wav2vec2 = Wav2Vec2Model(Wav2Vec2Config(**wav2vec2))
        self.wav2vec2.set_submodule("encoder.layer_norm", nn.Identity())
        width = self.wav2vec2.config.hidden_size
        self.head = _HeadModules()
        layer = nn.TransformerEncoderLayer(
            width, head.heads, head.feed_forward, head.dropout, "gelu", batch_first=True, norm_first=True
        )
        if head.layers:
            self.head.transformer = nn.TransformerEncoder(layer, head.layers, enable_nested_tensor=False)
        self.head.dropout = nn.Dropout(head.dropout)
        self.head.layer_norm = nn.LayerNorm(width)
        self.head.classification_layer = nn.Linear(width, 1)

    def forward(
        self, waveforms: torch.Tensor, lengths: torch.Tensor | None = None, frames: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits [batch, frames] of normalised waveforms [batch, samples].

        lengths: true samples of each padded row, int [batch]; None where no row is padded. frames: how many frames
        of each row the head attends to, int [batch]; None for as many as its samples make.
        """
        if lengths is None:
            hidden, padding = self.wav2vec2(waveforms).last_hidden_state, None
        else:
            mask = torch.arange(waveforms.shape[1], device=waveforms.device)[None] < lengths[:, None]
            hidden = self.wav2vec2(waveforms, attention_mask=mask.long()).last_hidden_state
            frames = self.frames(lengths).clamp(min=1) if frames is None else frames
            padding = torch.arange(hidden.shape[1], device=waveforms.device)[None] >= frames[:, None]
        hidden = self.head.dropout(hidden)
        if self.head_options.layers:
            hidden = self.head.transformer(hidden, src_key_padding_mask=padding)
        return self.head.classification_layer(self.head.layer_norm(hidden)).squeeze(-1)

    def frames(self, samples: torch.Tensor | int) -> Any:
        """Return how many frames the convolutions make of so many samples."""
        for kernel, stride in zip(self.wav2vec2.config.conv_kernel, self.wav2vec2.config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    @property
    def shortest_samples(self) -> int:
        """Return the fewest samples that make a frame (400 in wav2vec 2.0)."""
        samples = 1
        for kernel, stride in zip(
            reversed(self.wav2vec2.config.conv_kernel), reversed(self.wav2vec2.config.conv_stride), strict=True
        ):
            samples = (samples - 1) * stride + kernel
        return samples

    @torch.inference_mode()
    def probabilities(self, waveforms: np.ndarray) -> np.ndarray:
        """Return speech probabilities, float32 [batch, frames], of equally long windows, float32 [batch, samples].

        Every window is normalised on its own and none is padded, so a window's result does not depend on its
        neighbours (the original normalises over the padded row of a mixed batch). On a CPU, where batching gains
        no time, each window is a pass of its own: its probabilities are the same bits in any batch. A window
        whose samples are all alike is silence: 0.
        """
        device = next(self.parameters()).device
        batch = torch.from_numpy(np.ascontiguousarray(waveforms, dtype=np.float32)).to(device)
        if batch.shape[1] < self.shortest_samples:
            batch = nn.functional.pad(batch, (0, self.shortest_samples - batch.shape[1]))
        passes = batch.split(1 if device.type == "cpu" else len(batch))
        probabilities = torch.cat([torch.sigmoid(self(normalise(rows))) for rows in passes])
        probabilities[batch.amin(dim=1) == batch.amax(dim=1)] = 0.0
        return probabilities.float().cpu().numpy()


def normalise(waveforms: torch.Tensor) -> torch.Tensor:
    """Return rows of zero mean and unit (unbiased) standard deviation, as the original; constant rows become 0."""
    centred = waveforms - waveforms.mean(dim=1, keepdim=True)
    deviation = centred.std(dim=1, keepdim=True)
    return torch.where(deviation > 0, centred / deviation.clamp(min=torch.finfo(centred.dtype).tiny), 0.0)


def build(name: str, seed: int) -> Classifier:
    """Return a classifier of a named configuration with random weights; UserError for an unknown name."""
    if name not in CONFIGURATIONS:
        raise UserError("--config", f"unknown configuration {name!r}", f"choose from {', '.join(CONFIGURATIONS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(*CONFIGURATIONS[name])


def save_classifier(classifier: Classifier, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write config.json and model.safetensors, parameters in the given dtype."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "format": FORMAT,
        "version": VERSION,
        "wav2vec2": classifier.wav2vec2_fields,
        "head": asdict(classifier.head_options),
    }
    state = {name: t.detach().to("cpu", dtype).contiguous() for name, t in classifier.state_dict().items()}
    write_bytes(folder / WEIGHTS, save(state))
    write_text(folder / CONFIG, canonical_json(config))


def load_classifier(folder: Path, device: torch.device | str = "cpu") -> Classifier:
    """Return a saved classifier in float32, ready for inference.

    Raises UserError where a file is missing, is of another format, holds other tensors than its config says, or values
    that are not finite.
    """
    retrain = "create it again with `python -m segment train`"
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config["format"] != FORMAT or config["version"] != VERSION:
            raise ValueError(f"expected {FORMAT} {VERSION}, got {config['format']} {config['version']}")
        classifier = Classifier(config["wav2vec2"], Head(**config["head"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(str(folder / CONFIG), f"is not a segmentation classifier ({error!r})", retrain) from error
    try:
        state = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(str(folder / WEIGHTS), f"cannot be read ({error})", retrain) from error
    wanted = {name: tuple(t.shape) for name, t in classifier.state_dict().items()}
    got = {name: tuple(t.shape) for name, t in state.items()}
    if wanted != got:
        name = min(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
        raise UserError(
            str(folder / WEIGHTS),
            f"{name}: expected shape {wanted.get(name, 'none')}, got {got.get(name, 'none')}",
            retrain,
        )
    if bad := [name for name, tensor in sorted(state.items()) if not torch.isfinite(tensor).all()]:
        raise UserError(str(folder / WEIGHTS), f"{bad[0]}: has values that are not finite numbers", retrain)
    classifier.load_state_dict(state)
    return classifier.to(device).eval()
