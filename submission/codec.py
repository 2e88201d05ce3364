"""Codecs: how one weight is stored. This file says which parts a codec stores, and how large they are.

Codecs are data: a recipe names one per role, the packed model's `config.json` repeats those that it uses.
Only this file, `quantize/packing.py` (which encodes) and `submission/runtime/packed.py` (which decodes) know
what is inside a part; everything else asks `parts()` and never multiplies bits by elements itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from submission.errors import UserError

CODE_BITS = (2, 3, 4, 5, 6, 8)
"""Widths of a code: what the solvers can fit and the packed layers can unpack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """Affine codes: `weight = (code - zero) * scale`, one scale and zero-point per group along the input.

    A weight [out, in] is stored in three parts:
    `codes`, uint8 [out, ceil(in * bits / 8)]: row i is a little-endian bit stream, in which code j occupies
    the bits [j * bits, (j + 1) * bits); a row is filled up with zero bits to a whole byte;
    `scale` and `zero`, float16 [out, ceil(in / group_size)]: the last group of a row may be shorter.
    """

    kind: Literal["affine"]
    bits: int
    """Width of a code in bits."""
    group_size: int
    """Neighbouring weights of a row that share a scale and a zero-point."""

    def __post_init__(self) -> None:
        if self.bits not in CODE_BITS:
            raise ValueError(f"bits: {self.bits} is no width of a code; use one of {', '.join(map(str, CODE_BITS))}")
        if self.group_size < 1:
            raise ValueError(f"group_size: {self.group_size} is not positive; use e.g. 64 or 128")

    @property
    def name(self) -> str:
        """The codec in one word, `affine4g128`."""
        return f"{self.kind}{self.bits}g{self.group_size}"

    @classmethod
    def parse(cls, value: Any, where: str) -> Codec:
        """Return the codec that a JSON object spells; UserError beginning with `where` for anything else."""
        expected = {field.name: str if field.name == "kind" else int for field in fields(cls)}
        if not isinstance(value, dict) or set(value) != set(expected):
            got = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise UserError(
                where, f"expected the keys {sorted(expected)}, got {got}", "write all of them and no others"
            )
        for key, kind in expected.items():
            if type(value[key]) is not kind:
                raise UserError(f"{where}: {key}", f"expected {kind.__name__}, got {value[key]!r}", "mend the value")
        if value["kind"] != "affine":
            raise UserError(f"{where}: kind", f"unknown codec {value['kind']!r}", "known: affine")
        try:
            return cls(**value)
        except ValueError as error:
            what, _, fix = str(error).partition("; ")
            raise UserError(where, what, fix) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that `parse` reads."""
        return asdict(self)

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[str, tuple[int, int]]]:
        """Return suffix -> (safetensors dtype, shape) of what a weight [out, in] is stored as."""
        rows, columns = shape
        groups = -(-columns // self.group_size)
        return {
            "codes": ("U8", (rows, -(-columns * self.bits // 8))),
            "scale": ("F16", (rows, groups)),
            "zero": ("F16", (rows, groups)),
        }
