"""Affine codes: `weight = (code - zero) * scale`, one scale and zero-point per group along the input.

A weight [out, in] is stored in three parts:
`codes`, uint8 [out, ceil(in * bits / 8)]: every row a little-endian bit stream (`bitstream.py`);
`scale` and `zero`, float16 [out, ceil(in / group_size)]: the last group of a row may be shorter.

With `meta_bits = 8` (hqq's meta-quantization) scale and zero-point are 8-bit codes themselves, uint8, and two parts
more hold for each row what these stand for: `scale_range` and `zero_range`, float16 [out, 2], the lowest value and the
step. Arithmetic is float32 whatever the model computes in and is rounded once at the end, so that every dtype sees the
same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from submission.model.codecs.bitstream import pack_codes, padding_is_zero, unpack_codes
from submission.model.codecs.codec import Codec, Parts, TunableWeight

if TYPE_CHECKING:
    import torch

CODE_BITS = (2, 3, 4, 5, 6, 8)
"""Widths of a code: what the solvers can fit and the packed layers can unpack."""

SOLVE_ELEMENTS = 1 << 26
"""Weights that the solver sees at a time, in whole rows: more than any linear of a 7 B model has, and a bound on
what the embedding and the head of one cost (a solver holds float32 copies)."""

CACHE_ELEMENTS = 1 << 18
"""Weights that are decoded at a time on a CPU, so that the elementwise passes stay in its cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AffineSolution:
    """A weight [rows, columns] as (codes - zero) * scale, group by group along its rows."""

    codes: torch.Tensor
    """uint8 [rows, columns], each below 2 ** bits."""
    scale: torch.Tensor
    """float32 [rows, ceil(columns / group_size)]."""
    zero: torch.Tensor
    """float32 [rows, ceil(columns / group_size)]."""


class AffineSolve(Protocol):
    """The interface `affine` of a solver."""

    def __call__(self, weight: torch.Tensor, bits: int, group_size: int) -> AffineSolution:
        """Return a solution for weight, float [rows, columns], on its device, deterministically.

        Where the group size does not divide the rows, their last, shorter groups are solved apart from the others,
        so that no group runs over the end of a row. Raises ValueError for a number that is not finite.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine(Codec):
    """Codes of a fixed width, with a scale and a zero-point per group."""

    interface: ClassVar[str] = "affine"
    codes_part: ClassVar[str] = "codes"

    kind: Literal["affine"] = "affine"
    bits: int
    """Width of a code in bits."""
    group_size: int
    """Neighbouring weights of a row that share a scale and a zero-point."""
    meta_bits: Literal[8] | None = None
    """Width of the codes that scales and zero-points become; None keeps them in float16."""

    def __post_init__(self) -> None:
        if self.bits not in CODE_BITS:
            raise ValueError(f"bits: {self.bits} is no width of a code; use one of {', '.join(map(str, CODE_BITS))}")
        if self.group_size < 1:
            raise ValueError(f"group_size: {self.group_size} is not positive; use e.g. 64 or 128")

    @property
    def name(self) -> str:
        """`affine4g128`; `m8` follows where scales are codes too."""
        meta = f"m{self.meta_bits}" if self.meta_bits else ""
        return f"{self.kind}{self.bits}g{self.group_size}{meta}"

    @property
    def summary(self) -> str:
        """Width of the codes and of what a group shares."""
        stored = f"{self.meta_bits}-bit" if self.meta_bits else "float16"
        return f"{self.bits} bits, {stored} scale and zero-point per {self.group_size} weights of a row"

    def technique(self, solver: str | None) -> str:
        """Return `HQQ quantization to …`, or without a solver the width alone."""
        return f"{solver} quantization to {self.summary}" if solver else f"Quantization to {self.summary}"

    def parts(self, shape: tuple[int, ...]) -> Parts:
        """Return codes, [rows, bytes of a row], and scale and zero, [rows, groups], coded ones with their range."""
        rows, columns = shape
        groups = -(-columns // self.group_size)
        parts: Parts = {"codes": ("U8", (rows, -(-columns * self.bits // 8)))}
        for name in ("scale", "zero"):
            parts[name] = ("U8" if self.meta_bits else "F16", (rows, groups))
            if self.meta_bits:
                parts[f"{name}_range"] = ("F16", (rows, 2))
        return parts

    def steps(self) -> dict[str, Codec]:
        """Return groups of twice the size, the next narrower codes, and scales at 8 bits."""
        steps: dict[str, Codec] = {f"groups of {self.group_size * 2}": replace(self, group_size=self.group_size * 2)}
        narrower = [bits for bits in CODE_BITS if bits < self.bits]
        if narrower:
            steps[f"{narrower[-1]} bits"] = replace(self, bits=narrower[-1])
        if not self.meta_bits:
            steps["scales at 8 bits"] = replace(self, meta_bits=8)
        return steps

    def encode(self, weight: torch.Tensor, solve: AffineSolve) -> dict[str, torch.Tensor]:
        """Return the parts of a weight, solved in blocks of whole rows; ValueError for a scale beyond float16."""
        import torch

        step = max(1, SOLVE_ELEMENTS // weight.shape[1])
        blocks = [self._encode_block(weight[i : i + step], solve) for i in range(0, weight.shape[0], step)]
        parts = {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
        for name, part in parts.items():
            if not torch.isfinite(part).all():
                raise ValueError(
                    f"a {name} of {self.name} is beyond float16; leave the role of this weight out of "
                    "quantize.codecs, or use smaller groups"
                )
        return parts

    def _encode_block(self, weight: torch.Tensor, solve: AffineSolve) -> dict[str, torch.Tensor]:
        import torch

        solution = solve(weight, self.bits, self.group_size)
        codes, stored = solution.codes, {"scale": solution.scale.half(), "zero": solution.zero.half()}
        if self.meta_bits:
            stored = _meta_encoded("scale", solution.scale) | _meta_encoded("zero", solution.zero)
            # The codes were chosen for other scales than those that are stored: choose them again.
            scale, zero = (self._per_weight(part, weight.shape[1]) for part in self.scale_and_zero(stored))
            steps = torch.where(scale == 0, 0.0, weight.float() / scale) + zero
            codes = steps.round_().clamp_(0, (1 << self.bits) - 1).to(torch.uint8)
        return {"codes": pack_codes(codes, self.bits), **stored}

    def decode(
        self,
        parts: Mapping[str, torch.Tensor],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        rows: slice | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the weight or some of its rows; on a CPU in blocks that stay in its cache."""
        import torch

        if rows is not None:
            parts = {name: part[rows] for name, part in parts.items()}
        codes, columns = parts["codes"], shape[1]
        count = codes.shape[0]
        step = max(1, CACHE_ELEMENTS // columns) if codes.device.type == "cpu" else max(1, count)
        if count <= step:
            return self._decode_block(parts, columns).to(dtype)
        weights = torch.empty((count, columns), dtype=dtype, device=codes.device)
        for start in range(0, count, step):
            block = {name: part[start : start + step] for name, part in parts.items()}
            weights[start : start + step] = self._decode_block(block, columns)
        return weights

    def _decode_block(self, parts: Mapping[str, torch.Tensor], columns: int) -> torch.Tensor:
        """Return float32 [rows, columns]."""
        codes = unpack_codes(parts["codes"], self.bits, columns)
        scale, zero = self.scale_and_zero(parts)
        if columns % self.group_size:
            return codes.float().sub_(self._per_weight(zero, columns)).mul_(self._per_weight(scale, columns))
        grouped = codes.float().view(len(codes), -1, self.group_size)
        return grouped.sub_(zero.unsqueeze(2)).mul_(scale.unsqueeze(2)).view(len(codes), columns)

    def scale_and_zero(self, parts: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Return both as float32 [rows, groups]."""
        return [_meta_decoded(name, parts) if self.meta_bits else parts[name].float() for name in ("scale", "zero")]

    def _per_weight(self, part: torch.Tensor, columns: int) -> torch.Tensor:
        """Return a scale or zero-point, [rows, groups], for every weight, [rows, columns]."""
        return part.repeat_interleave(self.group_size, dim=1)[:, :columns]

    def grouped_codes(self) -> Affine:
        """Return the codec itself: its parts are what kernels compute with."""
        return self

    def pack(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the part `codes` of codes, uint8 [rows, columns]."""
        return pack_codes(codes, self.bits)

    def unpack(self, part: torch.Tensor, columns: int) -> torch.Tensor:
        """Return the codes, uint8 [rows, columns], of the part `codes`."""
        return unpack_codes(part, self.bits, columns)

    def tunable(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> TunableWeight:
        """Return the weight as a function of scale and zero-point, or of the ranges of those that are codes."""
        codes, columns = self.unpack(parts["codes"], shape[1]), shape[1]
        coded = {name: parts[name] for name in ("scale", "zero")} if self.meta_bits else {}

        def dequantize(tuned: Mapping[str, torch.Tensor], rows: slice | torch.Tensor) -> torch.Tensor:
            sliced = {name: part[rows] for name, part in (coded | dict(tuned)).items()}
            scale, zero = (self._per_weight(part, columns) for part in self.scale_and_zero(sliced))
            weight: torch.Tensor = (codes[rows].float() - zero) * scale
            return weight

        suffix = "_range" if self.meta_bits else ""
        return TunableWeight(scales=(f"scale{suffix}",), offsets=(f"zero{suffix}",), dequantize=dequantize)

    def check(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> None:
        """Raise ValueError for numbers that are not finite, and for bits beyond the last column."""
        import torch

        for name, part in parts.items():
            # The extremes of a part with a NaN are NaN, and take no memory to find.
            if part.dtype == torch.float16 and not all(map(torch.isfinite, torch.aminmax(part))):
                raise ValueError(f"{name}: holds a number that is not finite")
        if not padding_is_zero(parts["codes"], self.bits, shape[1]):
            raise ValueError("codes: hold more than the weight's columns, the rest of the last byte is not zero")


def _meta_encoded(name: str, values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the parts of scales or zero-points, float32 [rows, groups], in 8 bits: codes, lowest value and step."""
    import torch

    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    limits = torch.cat([low, (high - low) / 255], dim=1).half()
    low, step = limits.float().split(1, dim=1)
    codes = torch.where(step == 0, 0.0, (values - low) / step)
    return {name: codes.round_().clamp_(0, 255).to(torch.uint8), f"{name}_range": limits}


def _meta_decoded(name: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return float32 [rows, groups]."""
    low, step = parts[f"{name}_range"].float().split(1, dim=1)
    decoded: torch.Tensor = parts[name].float() * step + low  # in place would spoil the gradient of the step
    return decoded
