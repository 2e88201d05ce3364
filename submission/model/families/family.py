"""The interface of a model family's shapes, all of them computed from a configuration alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from submission.model.families.json_shape import Shape, anything_small
from submission.model.families.smoothing import SmoothingGroup, Stack
from submission.model.families.tensors import TensorSpec


def nothing_to_leave_out(config: dict[str, Any], part: str) -> dict[str, Any]:
    """Return a configuration as it is: the family needs all of its parts."""
    return config


def no_tied_weights(config: dict[str, Any]) -> dict[str, str]:
    """Return no tied weights: every weight of the loaded model is stored by its own name."""
    return {}


def no_logit_cap(config: dict[str, Any]) -> None:
    """Return no cap: logits are what the head puts out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A file that a model's folder may hold beside its configuration and weights."""

    shape: Shape | None = anything_small
    """What its JSON may hold; None for a text."""
    required: bool = False
    """Whether a model of the family cannot be run without it."""
    most_bytes: int = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of model as its configuration describes it; needs the standard library only.

    A configuration is the parsed `config.json` of a checkpoint. Functions raise UserError for one that does not add up.
    The model class, audio features and prompt are in the family's second file (`submission.runtime.families`).
    """

    name: str
    """The `model_type` of its configurations."""
    roles: tuple[str, ...]
    """Every role that occurs, in the order in which tables show them."""
    tensors: Callable[[dict[str, Any]], list[TensorSpec]]
    """Configuration -> every tensor that a checkpoint stores, in the model's order. Each layer has its own shapes; of
    weights that share their numbers (`tied_weights`) the stored one alone is listed."""
    sizes: Callable[[dict[str, Any]], dict[str, int]]
    """Configuration -> "section.key" -> size, of everything that shapes a tensor, also where it is silent."""
    settings: Callable[[dict[str, Any]], dict[str, Any]]
    """Configuration -> "section.key" -> value, of everything else that decides what the model computes, also where it
    is silent. A model that derives from another has the same."""
    config_shape: Shape
    """What `config.json` may hold, without its `quantization_config`. Untrusted: each key is known, with its kind and
    range, and no value makes a library fetch or choose code."""
    files: Mapping[str, ModelFile]
    """Name -> every file that loading a model of the family reads beside configuration and weights, and no other."""
    disagreements: Callable[[dict[str, Any], Mapping[str, Any]], Iterator[tuple[str, str]]]
    """(configuration, name -> JSON value of those of `files` that are there, all of their shapes) -> (name, what is
    wrong) where one of them does not fit the configuration or another file."""
    role_of: Callable[[str], str]
    """Name of a tensor on the hub -> its role; KeyError for a name that is none."""
    hub_name: Callable[[str], str]
    """Name of a tensor in a file or in a loaded model -> its name on the hub."""
    module_name: Callable[[str], str]
    """Name of a tensor or module on the hub -> its path in the loaded transformers model."""
    stacks: tuple[Stack, ...]
    """Parts of the model in the order in which activations reach them."""
    frames_per_second: int
    """Of its audio features."""
    window_frames: Callable[[dict[str, Any]], int]
    """Configuration -> frames of the longest audio that the model takes."""
    prompt_tokens: int
    """Of a rendered prompt besides the positions of the audio, with the prompt of the published model's campaign. For
    forecasts, which have no tokenizer."""
    smoothing_groups: Callable[[dict[str, Any]], list[SmoothingGroup]]
    """Configuration -> tensors between which a factor per channel can move, in the same order."""
    with_layers: Callable[[dict[str, Any], int], dict[str, Any]]
    """(configuration, n) -> the configuration whose stacks have at most n layers each, all else unchanged."""
    ordinary_tokens: Callable[[dict[str, Any]], int]
    """Configuration -> n: token ids below n are plain text, none of them stands for audio."""
    tied_weights: Callable[[dict[str, Any]], dict[str, str]] = no_tied_weights
    """Configuration -> weight of the loaded model that no checkpoint stores -> the stored weight whose numbers it
    shares, both by their names on the hub: a head tied to the embedding."""
    droppable_roles: tuple[str, ...] = ()
    """Roles whose tensors a system for speech may leave out of its model. Those with one first word, `vision`, are a
    part, which is left out as a whole."""
    pads_to_window: bool = False
    """Whether features of any audio have the frames of the longest; training and decoding cut them to the batch's."""
    logit_cap: Callable[[dict[str, Any]], float | None] = no_logit_cap
    """Configuration -> the cap c of its logits, c tanh(z / c) of what its head puts out, z; None: they are z."""
    without: Callable[[dict[str, Any], str], dict[str, Any]] = nothing_to_leave_out
    """(configuration, such a part) -> the configuration of the model without it, which may be without it already."""
