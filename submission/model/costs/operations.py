"""Count the operations of one utterance through a model, two for a multiplication and an addition, from its shapes.

Counted are matrix products and attention.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from submission.model.families import audio_positions, family_of, tensors, tied_heads
from submission.model.families.tensors import TensorSpec

TEXT_TOKENS_PER_SECOND = 5.0
"""Of speech, in a translation to German."""


def forward_flops(
    config: dict[str, Any],
    seconds: float,
    *,
    predicted: int | None = None,
    trimmed: bool = False,
    layer_runs: float = 1.0,
) -> float:
    """Return the operations of one utterance through the model, its translation included.

    predicted: positions of which the head computes logits; None for those of the translation. trimmed: whether features
    end with the audio, as in fine-tuning and decoding. layer_runs: how often a layer of the decoder runs, on average.
    """
    frames, tokens, text = utterance_positions(config, seconds, trimmed=trimmed)
    total = 0.0
    for spec in speech_tensors(config):
        positions = _positions(config, spec, frames, tokens)
        if spec.role == "lm_head":
            positions = text if predicted is None else predicted
        runs = layer_runs if spec.role.startswith(("attn.", "mlp.")) else 1.0
        if len(spec.shape) > 1 and spec.role not in ("embedding", "audio.position"):
            total += runs * 2.0 * math.prod(spec.shape) * positions
        if spec.name.endswith(".weight") and spec.role in ("attn.q", "audio.attn.q"):
            seen = positions / 2 if spec.role == "attn.q" else positions  # the decoder sees what lies behind it
            total += runs * 4.0 * spec.shape[0] * positions * seen
    return total


def speech_tensors(config: dict[str, Any]) -> list[TensorSpec]:
    """Return the tensors that speech passes through: none of parts that it does without, and a head that is tied."""
    droppable = family_of(config).droppable_roles
    return [*(spec for spec in tensors(config) if spec.role not in droppable), *tied_heads(config)]


def utterance_positions(config: dict[str, Any], seconds: float, *, trimmed: bool = False) -> tuple[int, int, int]:
    """Return frames of an utterance's features, its positions in the decoder, and those of its translation in them.

    trimmed: as for `forward_flops`.
    """
    family = family_of(config)
    heard, text = round(seconds * family.frames_per_second), round(seconds * TEXT_TOKENS_PER_SECOND)
    frames = heard if trimmed or not family.pads_to_window else family.window_frames(config)
    return frames, audio_positions(config, heard) + family.prompt_tokens + text, text


def _positions(config: dict[str, Any], spec: TensorSpec, frames: int, tokens: int) -> int:
    """Return how many positions a tensor is multiplied with."""
    for stack in family_of(config).stacks:
        if stack.layers is not None and spec.name.startswith(f"{stack.layers}."):
            return stack.positions(frames, tokens)
        if stack.layers is None and spec.role == "projector":
            return stack.positions(frames, tokens)
    return frames if spec.role == "audio.conv" else tokens


def parameter_count(config: dict[str, Any]) -> int:
    """Return how many parameters the model has."""
    return sum(math.prod(spec.shape) for spec in tensors(config))


def adapter_parameters(config: dict[str, Any], roles: Iterable[str], rank: int) -> int:
    """Return how many parameters LoRA adapters have on the weights of some roles or prefixes of roles."""
    named = tuple(roles)
    adapted = [
        s for s in tensors(config) if s.packable and any(s.role == r or s.role.startswith(f"{r}.") for r in named)
    ]
    return sum(rank * sum(spec.shape) for spec in adapted)
