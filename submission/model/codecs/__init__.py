"""Codecs: how one weight is stored. One file for each kind; a new one is that file and its line in `CODECS`.

Codecs are data: a recipe names one per role, the packed model's `config.json` repeats those that it uses. Nothing
outside a codec's file knows what its parts hold.
"""

from __future__ import annotations

from typing import Any

from submission.errors import UserError
from submission.model.codecs.affine import Affine
from submission.model.codecs.codec import Codec
from submission.system.schema import nearest, parse

CODECS: dict[str, type[Codec]] = {
    "affine": Affine,
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
