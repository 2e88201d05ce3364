"""The interface of a model family at run time: its classes, its audio features, its prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

Inputs = dict[str, torch.Tensor]
"""What a model's forward takes, by the names of its parameters."""

Window = Callable[[Mapping[str, torch.Tensor]], AbstractContextManager[None]]
"""Inputs -> the context in which the model takes them, however far their audio was shortened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFeatures:
    """The audio of one utterance as the model reads it; the same for every language that it is translated to."""

    family: str
    """Name of the family that extracted it, which also pads it to batches."""
    tensors: Inputs
    """Name of a parameter of the model's forward -> tensor without a batch dimension."""
    frames: int
    """Frames of the features that hold audio; padding follows them. The unit is the family's own."""
    positions: int
    """Positions of the text stream that stand for the audio."""


def plain_lookup(layer: nn.Embedding) -> float:
    """Return 1, what a plain embedding multiplies its rows by; TypeError for a class that may do more."""
    if type(layer) is not nn.Embedding:
        raise TypeError(f"no packed counterpart of {type(layer).__name__}")
    return 1.0


def generate(model: PreTrainedModel, **settings: Any) -> torch.Tensor:
    """Return the token ids that a family's model generates, int64 [batch, tokens], the prompt's included.

    Model classes inherit it from a mixin of the library whose declared `self` type is none of theirs.
    """
    method: Any = model.generate
    with _last_logits(model):
        ids: torch.Tensor = method(**settings)
    return ids


@contextmanager
def _last_logits(model: PreTrainedModel) -> Iterator[None]:
    """Let the head read the last position alone, the only one whose logits a token is chosen from.

    Some classes of the library compute those of the whole prompt first: 4 GB in bfloat16 for 16 prompts of 800
    positions at a vocabulary of 156,032.
    """
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, args: (args[0][:, -1:], *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRuntime:
    """What training, calibration and decoding need of a family; one instance a family, in its own file.

    Waveforms are float32 [samples] at 16 kHz, full scale ±1, and have been checked against the window below before a
    family's function gets them. All functions are pure: results do not depend on earlier calls or other utterances.
    """

    name: str
    """The `model_type`, as in `submission.model.families.FAMILIES`."""
    model_class: type[PreTrainedModel]
    """The class whose `from_pretrained` reads checkpoints and packed models of the family. Its `base_model` takes the
    inputs and returns `last_hidden_state`; `get_output_embeddings()` is the head."""
    processor_class: type[ProcessorMixin]
    """The class of the family's processors (no other family's), with a `tokenizer`."""
    read_processor: Callable[[Path], ProcessorMixin]
    """Model folder -> its processor. The family names the classes of processor, tokenizer and feature extractor; those
    that the folder names are never read, since its files may be anybody's."""
    window_samples: Callable[[Any], int]
    """Processor -> the longest audio that the model takes whole."""
    shortest_samples: Callable[[Any], int]
    """Processor -> the shortest audio that the model takes."""
    extract_features: Callable[[Any, np.ndarray], AudioFeatures]
    """(processor, waveform) -> its features."""
    feature_bytes: Callable[[Any, int], int]
    """(processor, samples) -> bytes of the features of a waveform of this length."""
    prompt_ids: Callable[[Any, str, int], list[int]]
    """(processor, prompt, positions) -> the token ids of a rendered prompt with so many positions for the audio in
    place: where a marker in the prompt stands, or where the family's chat template puts them. UserError for a prompt in
    which the audio has no place."""
    collate_audio: Callable[[Sequence[AudioFeatures], torch.Tensor], Inputs]
    """(features of a batch, its padded input ids int64 [batch, tokens]) -> all that the model takes besides ids and
    attention mask: audio tensors with a batch dimension, padded, their masks, and token types where it has them."""
    shorten: Callable[[Inputs], Inputs]
    """Collated inputs -> the same with audio features that end soon after the batch's longest audio; unchanged where
    they do already."""
    shortened_window: Callable[[Any], Window]
    """Loaded model, not sharded yet -> the window in which it takes what `shorten` returns, with the same results."""
    frozen_roles: tuple[str, ...]
    """Roles of packable weights that LoRA leaves alone because they are no linears of their own: the embedding, and
    with it a head that is tied to it."""
    noise: Callable[[dict[str, Any], float, torch.Generator], AudioFeatures]
    """(configuration, seconds, generator) -> features of noise without a processor, for benchmarks at full size."""
    audio_token: Callable[[dict[str, Any]], int]
    """Configuration -> the id of the token that stands for one position of audio."""
    logit_cap: Callable[[PreTrainedModel], float | None] = lambda model: None
    """Model -> the cap c of its logits, c tanh(z / c) of what its head puts out, z; None: they are z."""
    lookup_scale: Callable[[nn.Embedding], float] = plain_lookup
    """An embedding of the loaded model -> what it multiplies the rows of its weight by, in the weight's dtype.
    TypeError for one that does anything else, which no packed layer can stand for."""

    def logits(self, model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of last hidden states [..., width], as the forward pass of the model returns them.

        model: loaded, plain or packed.
        """
        outputs: torch.Tensor = model.get_output_embeddings()(states)
        cap = self.logit_cap(model)
        return outputs if cap is None else torch.tanh(outputs / cap) * cap
