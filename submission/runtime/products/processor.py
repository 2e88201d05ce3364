"""What this processor multiplies in bfloat16 with, and the tiles of codes that dot products of pairs take."""

from __future__ import annotations

import functools
from typing import Any

import torch

INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
"""Of x86 processors, either of which multiplies in bfloat16."""

TILE_ROWS = 64
"""Rows of a weight whose codes lie beside each other for dot products of pairs: four vectors of 16."""
COLUMN_MULTIPLE = 32
"""What columns have to be a multiple of for kernels of 8-bit codes: of others torch's reads beyond the end."""


@functools.cache
def product_dtype() -> torch.dtype:
    """Return the dtype of the weights that a product of activations in bfloat16 is fastest with on this processor."""
    features = torch.cpu.get_capabilities()
    slow = features.get("architecture") == "x86_64" and not any(features.get(name) for name in INSTRUCTIONS)
    return torch.float32 if slow else torch.bfloat16


@functools.cache
def multiplies_pairs() -> bool:
    """Return whether this processor has the instructions of `dot_kernels.py`, and compiled functions may use them.

    Where it multiplies whole matrices in bfloat16 they are not used: for many rows the library is faster there.
    """
    features = torch.cpu.get_capabilities()
    if not features.get("avx512_bf16") or features.get("amx_bf16"):
        return False
    try:
        import llvmlite.binding
        import numba
    except ImportError:  # it has no package for every processor
        return False
    config: Any = numba.config
    chosen = config.CPU_NAME or config.CPU_FEATURES  # by a person, for other processors than this one
    return not chosen and bool(llvmlite.binding.get_host_cpu_features().get("avx512bf16"))
