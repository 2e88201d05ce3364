"""Weights whose codes are bytes in tiles, multiplied by dot products of bfloat16 pairs where a processor has them.

Decoded entropy-coded weights, whose scales are of rows and columns (`int8_kernels.py` has them elsewhere), and grouped
codes of 5 to 8 bits, which torch has no kernel for: on other processors they are dequantized for each call.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from submission.model.codecs.codec import ScaledCodes
from submission.runtime.products.int8_kernels import KERNEL_DTYPE, PrepackedCodes, from_codes, in_steps, is_right
from submission.runtime.products.processor import COLUMN_MULTIPLE, TILE_ROWS, multiplies_pairs

if TYPE_CHECKING:
    from submission.model.codecs import Codec
    from submission.model.codecs.codec import GroupedCodes

MIDDLE = 128
"""What is taken from grouped codes, so that they are signed bytes."""
STEP_ROWS = 1024
"""Of a weight of grouped codes that are prepacked at a time."""


class PrepackedTiles:
    """A weight [rows, columns] that is decoded to 8-bit codes in tiles, for dot products of bfloat16 pairs."""

    replaced: tuple[str, ...] = ()
    looks_up_rows = False

    def __init__(self, weight: ScaledCodes, parts: dict[str, Tensor]) -> None:
        """Take a weight of whole tiles on a CPU; its stored parts stay beside it."""
        from submission.runtime.products.dot_kernels import AddedCodes, Tiles

        rows, columns = self.shape = weight.codes.shape
        self.parts = parts
        self.column_scale = weight.column_scale.float()
        self.others = (weight.row_scale, weight.column_scale, weight.positions, weight.remainders)
        of_row = weight.positions // columns
        added = AddedCodes(
            starts=torch.searchsorted(of_row, torch.arange(0, rows + 1, TILE_ROWS)),
            rows=of_row % TILE_ROWS,
            columns=weight.positions % columns,
            values=weight.remainders * weight.row_scale[of_row].float(),
        )
        scale = weight.row_scale.unsqueeze(0).contiguous()
        zero = torch.zeros_like(scale)
        self.tiles = Tiles(codes=in_tiles(weight.codes), scale=scale, zero=zero, group_size=columns, added=added)

    def supports(self, inputs: Tensor) -> bool:
        """Return whether `multiply` takes these inputs [..., columns]."""
        return from_codes(inputs)

    def multiply(self, inputs: Tensor) -> Tensor:
        """Return [..., rows]."""
        rows, columns = self.shape
        scaled = (inputs.reshape(-1, columns) * self.column_scale).to(KERNEL_DTYPE)
        return self.tiles.multiply(scaled).view(*inputs.shape[:-1], rows)

    def dequantize(self, dtype: torch.dtype, rows: slice | Tensor) -> Tensor:
        """Return a slice of rows of the weight in dtype, exactly as its codec decodes them."""
        assert isinstance(rows, slice), "single rows are not looked up from here"
        return in_steps(lambda part: self._rows(part).dequantize(dtype, slice(None)), rows, self.shape)

    def _rows(self, rows: slice) -> ScaledCodes:
        """Return some rows of the weight."""
        columns = self.shape[1]
        row_scale, column_scale, positions, remainders = self.others
        begin, end = torch.searchsorted(positions, torch.tensor([rows.start, rows.stop]) * columns).tolist()
        return ScaledCodes(
            codes=self.tiles.codes_of(rows),
            row_scale=row_scale[rows],
            column_scale=column_scale,
            positions=positions[begin:end] - rows.start * columns,
            remainders=remainders[begin:end],
        )


class PrepackedBytes:
    """A weight [rows, columns] whose codes lie in tiles of 64 rows, a byte each."""

    looks_up_rows = False

    def __init__(self, codec: Codec, grouped: GroupedCodes, parts: Mapping[str, Tensor], columns: int) -> None:
        """Take the parts of a weight of whole tiles and groups; grouped: the same codec."""
        from submission.runtime.products.dot_kernels import Tiles

        self._codec, self._grouped = codec, grouped
        self.replaced: tuple[str, ...] = (grouped.codes_part,)
        codes = parts[grouped.codes_part]
        self._others = {name: part for name, part in parts.items() if name != grouped.codes_part}
        tiles = torch.empty((len(codes) // TILE_ROWS, columns, TILE_ROWS), dtype=torch.int8)
        for begin in range(0, len(codes), STEP_ROWS):
            found = grouped.unpack(codes[begin : begin + STEP_ROWS], columns).bitwise_xor(MIDDLE).view(torch.int8)
            tiles[begin // TILE_ROWS : (begin + STEP_ROWS) // TILE_ROWS] = in_tiles(found)
        scale, zero = (part.t().half().contiguous() for part in grouped.scale_and_zero(self._others))
        self._tiles = Tiles(codes=tiles, scale=scale, zero=zero, group_size=grouped.group_size, middle=MIDDLE)

    def supports(self, inputs: Tensor) -> bool:
        """Return whether `multiply` takes these inputs [..., columns]."""
        return from_codes(inputs)

    def multiply(self, inputs: Tensor) -> Tensor:
        """Return [..., rows]."""
        tiles, columns, _ = self._tiles.codes.shape
        outputs = self._tiles.multiply(inputs.reshape(-1, columns))
        return outputs.view(*inputs.shape[:-1], tiles * TILE_ROWS)

    def dequantize(self, dtype: torch.dtype, rows: slice | Tensor) -> Tensor:
        """Return a slice of rows of the weight in dtype, exactly as its codec decodes them."""
        assert isinstance(rows, slice), "single rows are not looked up from here"
        tiles, columns, _ = self._tiles.codes.shape

        def decode(step: slice) -> Tensor:
            others = {name: part[step] for name, part in self._others.items()}
            parts = {self._grouped.codes_part: self._packed(step), **others}
            return self._codec.decode(parts, (step.stop - step.start, columns), dtype)

        return in_steps(decode, rows, (tiles * TILE_ROWS, columns))

    @property
    def parts(self) -> dict[str, Tensor]:
        """What the codec stores, by suffix, its codes in their own order again."""
        codes = self._packed(slice(0, len(self._tiles.codes) * TILE_ROWS))
        return {self._grouped.codes_part: codes, **self._others}

    def _packed(self, rows: slice) -> Tensor:
        codes = self._tiles.codes_of(rows).view(torch.uint8)
        codes = codes.clone(memory_format=torch.contiguous_format)  # of a single row, too
        return self._grouped.pack(codes.bitwise_xor_(MIDDLE))


def in_tiles(codes: Tensor) -> Tensor:
    """Return int8 [tiles, columns, 64] of codes, int8 [rows, columns]."""
    return codes.view(-1, TILE_ROWS, codes.shape[1]).transpose(1, 2).contiguous()


def prepack_codes(weight: ScaledCodes, parts: Mapping[str, Tensor]) -> PrepackedCodes | PrepackedTiles:
    """Return a decoded weight as products in bfloat16 take it; parts: what is stored of it."""
    rows, columns = weight.codes.shape
    if weight.codes.is_cpu and rows % TILE_ROWS == 0 and columns % COLUMN_MULTIPLE == 0 and tiles_pass_proof():
        return PrepackedTiles(weight, dict(parts))
    return PrepackedCodes(weight, dict(parts))


@functools.cache
def tiles_pass_proof() -> bool:
    """Return whether dot products of bfloat16 pairs run on this processor and compute that of random codes."""
    if not multiplies_pairs():
        return False
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (3 * TILE_ROWS, 224), generator=generator).to(torch.int8)
    ones, none = torch.ones(224).half(), torch.zeros(0, dtype=torch.int64)
    row_scale = torch.ones(len(codes)).half()
    weight = ScaledCodes(codes=codes, row_scale=row_scale, column_scale=ones, positions=none, remainders=none)
    try:
        return is_right(PrepackedTiles(weight, {}).multiply, codes, generator)
    except (OSError, AttributeError):  # torch computes with threads of another kind
        return False
