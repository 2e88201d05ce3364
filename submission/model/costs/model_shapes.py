"""Widths, layers and bytes of a model, from its configuration alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from submission.model.costs.operations import parameter_count, utterance_positions
from submission.model.families import family_of, tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShapes:
    """What the forecast counts of a model."""

    config: dict[str, Any]
    """Of the checkpoint."""

    @property
    def plain_bytes(self) -> int:
        """Of the checkpoint in bfloat16."""
        return 2 * parameter_count(self.config)

    @property
    def layers(self) -> int:
        """Of the decoder."""
        return len({s.layer for s in tensors(self.config) if s.role == "attn.q"})

    @property
    def width(self) -> int:
        """Of the decoder."""
        return next(s.shape[1] for s in tensors(self.config) if s.role == "attn.q" and len(s.shape) > 1)

    @property
    def layer_bytes(self) -> int:
        """Of the decoder's largest layer in float32."""
        sizes: dict[int, int] = {}
        for spec in tensors(self.config):
            if spec.layer is not None and "audio" not in spec.role:
                sizes[spec.layer] = sizes.get(spec.layer, 0) + 4 * math.prod(spec.shape)
        return max(sizes.values())

    @property
    def cached_numbers(self) -> int:
        """Of keys and values of one position, in all layers."""
        return 2 * sum(s.shape[0] for s in tensors(self.config) if s.role == "attn.k" and len(s.shape) > 1)

    @property
    def largest(self) -> int:
        """Weights of the largest tensor: the embedding or the head."""
        return max(math.prod(s.shape) for s in tensors(self.config))

    def activation_bytes(self, utterances: int, seconds: float) -> int:
        """Of a batch in bfloat16: what the linears of the widest layer put out, all at once."""
        frames, tokens, _ = utterance_positions(self.config, seconds)
        widest = 0
        for stack in family_of(self.config).stacks:
            outputs: dict[int | None, int] = {}
            for spec in tensors(self.config):
                if stack.layers is not None and spec.name.startswith(f"{stack.layers}.") and spec.packable:
                    outputs[spec.layer] = outputs.get(spec.layer, 0) + spec.shape[0]
            widest = max(widest, stack.positions(frames, tokens) * max(outputs.values(), default=0))
        return 2 * utterances * widest

    @property
    def solvable(self) -> int:
        """Weights that can be packed."""
        return sum(math.prod(s.shape) for s in tensors(self.config) if s.packable)
