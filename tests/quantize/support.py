"""Options of quantization for a small model: codecs by role, prompts, and an override that ranks its layers."""

from __future__ import annotations

from pathlib import Path

from submission.miniature.model import PROMPT
from submission.model.codecs import Affine, Codec
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.runtime.prompt import render_prompt
from submission.system.recipe.quantize_options import Override, QuantizeOptions

PROMPTS = {f"en-{code}": render_prompt(PROMPT, name) for code, name in (("de", "German"), ("zh", "Chinese"))}
END = "<|im_end|>"
RANKED_RULES = {"linears": Affine(bits=4, group_size=128), "embedding": Affine(bits=2, group_size=128)}
"""Codecs of `ranked_options`."""


def affine(bits: int, group_size: int) -> Codec:
    return Affine(bits=bits, group_size=group_size)


RULES = {"*": affine(4, 64), "embedding": affine(2, 128), "audio.mlp": affine(8, 96)}
OVERRIDES = (Override(role="mlp", layers="last", count=1, codec=affine(3, 64)),)


def codecs_of(folder: Path) -> dict[str, Codec]:
    """Return the codec of each weight by `RULES` and `OVERRIDES`."""
    return resolve_codecs(read_config(folder), RULES, OVERRIDES)


def ranked_options(role: str = "mlp", bits: int = 2, **changes) -> QuantizeOptions:
    """Return options with one override whose layer is chosen by sensitivity."""
    override = Override(role=role, layers="sensitivity", count=1, codec=Affine(bits=bits, group_size=128))
    return QuantizeOptions(**{"solver": "hqq", "codecs": RANKED_RULES, "overrides": (override,), **changes})
