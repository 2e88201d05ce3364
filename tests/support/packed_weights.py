"""Packed weights of random codes, and what tests compare of them."""

from __future__ import annotations

import torch
from torch import nn

from submission.model.codecs.affine import Affine
from submission.runtime.packed import PackedTensor


def filled(codec: Affine, shape: tuple[int, int], seed: int = 0) -> PackedTensor:
    """A packed weight with random codes, and scales and zero-points as a solver finds them."""
    generator = torch.Generator().manual_seed(seed)
    weight = PackedTensor(codec, shape, dtype=torch.bfloat16, device="cpu")
    middle = 1 << codec.bits - 1
    for name, part in weight.parts.items():
        values = torch.rand(part.shape, generator=generator)
        if part.dtype == torch.uint8:
            part.copy_(values * 256)
        elif name.endswith("_range"):
            part.copy_(torch.tensor([0.01, 1e-4]) if name == "scale_range" else torch.tensor([middle - 1.0, 0.01]))
        else:
            part.copy_(values * 0.02 + 0.01 if name == "scale" else values * 2 + middle - 1)
    return weight


def state(layer: nn.Module) -> dict[str, torch.Tensor]:
    return {name: part.clone() for name, part in layer.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def relative_error(outputs: torch.Tensor, expected: torch.Tensor) -> float:
    return float((outputs.double() - expected).norm() / expected.norm())
