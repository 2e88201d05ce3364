"""A small packed model with entropy-coded weights, for the tests of the codec and of its layers."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from quantize.packing.pack import pack_checkpoint
from quantize.solvers.feedback import Moments
from quantize.solvers.fitting import solve_entropy
from submission.miniature.model import SMALL
from submission.model.codecs import Affine, Codec
from submission.model.codecs.entropy.codec import Entropy
from submission.model.families import read_config, tensors
from submission.model.forecast import resolve_codecs
from tests.support.tiny_qwen import build_checkpoint

UP = "language_model.model.layers.0.mlp.up_proj.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"
BITS = 5.0


def base_checkpoint(folder: Path) -> Path:
    return build_checkpoint(folder, ["the cat sleeps", "die Katze schläft"], SMALL, 1)


def entropy_codecs(base: Path, bits: float = BITS) -> dict[str, Codec]:
    """Codecs of all weights: those of the decoder and the embedding entropy-coded, with a budget each.

    The embedding follows a trellis.
    """
    config = read_config(base)
    rules = {"*": Affine(bits=4, group_size=64), "linears": Entropy(), "embedding": Entropy(trellis=True)}
    sizes = {spec.name: spec.shape for spec in tensors(config)}
    resolved = resolve_codecs(config, rules)
    return {
        name: codec.allotted(int(sizes[name][0] * sizes[name][1] * bits / 8) + 1000) for name, codec in resolved.items()
    }


def pack(base: Path, out: Path, codecs: dict[str, Codec]) -> Path:
    """Pack a checkpoint without calibration."""
    out.mkdir(parents=True)
    pack_checkpoint(base, out, codecs, solver="feedback", side_data=lambda name: {"moments": Moments()})
    return out


def random_weight(rows: int, columns: int, *, outliers: int = 5, seed: int = 0) -> torch.Tensor:
    """A weight with rows of different size and some outliers far beyond 127 steps."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 0.02
    weight *= torch.randn(rows, 1, generator=generator).mul(0.5).exp()
    for place in torch.randint(0, rows * columns, (outliers,), generator=generator).tolist():
        weight.view(-1)[place] = 4.0 if place % 2 else -6.0
    return weight


def encoded(
    weight: torch.Tensor, bits: float = BITS, moments: Moments | None = None, *, trellis: bool = False
) -> tuple[Entropy, dict]:
    """The codec with a budget of so many bits a weight, and the parts of a weight."""
    codec = Entropy(trellis=trellis, budget_bytes=int(weight.numel() * bits / 8) + 1000)
    return codec, codec.encode(weight, functools.partial(solve_entropy, moments=moments or Moments()))
