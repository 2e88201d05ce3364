"""Weights of a language model before and after quantization, and the bytes that they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quantize.bench.language_model.smollm2 import EMBEDDING, HEAD
from quantize.calibration.moment_files import read_importance, read_second_moment
from submission.model.codecs import Codec
from submission.runtime.packed import PackedTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is quantized, and what is known of it."""

    weights: dict[str, torch.Tensor]
    input_keys: dict[str, str]
    moments: Path

    def second_moment(self, name: str) -> torch.Tensor:
        """Return the second moment of a weight's inputs, float [columns, columns]."""
        return read_second_moment(self.moments, self.input_keys[name])

    def importance(self, name: str) -> torch.Tensor:
        """Return the second moment of the gradient at a weight's outputs, float [rows]."""
        return read_importance(self.moments, name)

    def count(self) -> int:
        """Return the number of quantized weights."""
        return sum(weight.numel() for weight in self.weights.values())

    def linears(self) -> Problem:
        """Return the problem without embedding and head."""
        chosen = {name: weight for name, weight in self.weights.items() if name not in (EMBEDDING, HEAD)}
        return Problem(weights=chosen, input_keys=self.input_keys, moments=self.moments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A model's weights after quantization, and what they take."""

    weights: Mapping[str, torch.Tensor | PackedTensor]
    """As a tensor, or as a codec stores it."""
    size_bytes: int
    notes: dict[str, Any]

    def decoded(self) -> dict[str, torch.Tensor]:
        """Return what the weights stand for, float32."""
        return {
            name: weight if isinstance(weight, torch.Tensor) else weight.dequantize(torch.float32)
            for name, weight in self.weights.items()
        }


def packed_tensor(codec: Codec, parts: Mapping[str, torch.Tensor], weight: torch.Tensor) -> PackedTensor:
    """Return a weight as the parts that a codec stores of it."""
    found = PackedTensor(codec, tuple(weight.shape), dtype=torch.float32, device="cpu")
    found.load_state_dict(parts)
    return found


def packed_bytes(weight: PackedTensor) -> int:
    """Return the bytes of the parts that a codec stores."""
    return sum(part.numel() * part.element_size() for part in weight.parts.values())
