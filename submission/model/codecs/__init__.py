"""Codecs: how one weight is stored. One file for each kind; a new one is that file and its line in `CODECS`.

Codecs are data: a recipe names one per role, the packed model's `config.json` repeats those that it uses. Nothing
outside a codec's file knows what its parts hold.
"""

from __future__ import annotations

from typing import Any

from submission.errors import UserError
from submission.model.codecs.affine import Affine
from submission.model.codecs.codec import Codec, Parts
from submission.model.codecs.entropy.codec import Entropy
from submission.system.schema import nearest, parse

CODECS: dict[str, type[Codec]] = {
    "affine": Affine,
    "entropy": Entropy,
}
"""Codecs by the `kind` that recipes and configurations give."""


def parse_codec(value: Any, where: str) -> Codec:
    """Return the codec that a TOML table or JSON object spells; UserError beginning with `where` for anything else."""
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        what = f"expected a codec, got {value!r}"[:200]
        raise UserError(where, what, 'write e.g. { kind = "affine", bits = 4, group_size = 128 }')
    if kind not in CODECS:
        raise UserError(f"{where}.kind", f"unknown codec {kind!r}", nearest(kind, CODECS))
    return parse(CODECS[kind], value, where)


def codec_parts(name: str, codec: Codec, shape: tuple[int, ...]) -> Parts:
    """Return suffix -> (dtype, shape) of what a codec stores of the weight with this name.

    Raises UserError, naming the weight, where the codec's budget is not decided yet or holds no such weight.
    """
    if codec.takes_budget and codec.budget_bytes is None:
        what = f"{codec.name} has no budget of bytes for this weight, so its size is not known"
        raise UserError(name, what, "allot the budgets first, or choose a codec of fixed size")
    try:
        return codec.parts(shape)
    except ValueError as error:
        what, _, fix = str(error).partition("; ")
        raise UserError(name, what, fix or "choose another codec") from error
