"""Multiply activations with grouped codes of 5 to 8 bits, kept as bytes in tiles for dot products of bfloat16 pairs.

torch has no kernel for them: on other processors such weights are dequantized for each call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from submission.runtime.products.int8_kernels import KERNEL_DTYPE, TILE_ROWS, in_steps

if TYPE_CHECKING:
    from submission.model.codecs import Codec
    from submission.model.codecs.codec import GroupedCodes

MIDDLE = 128
"""What is taken from codes, so that they are signed bytes."""
STEP_ROWS = 1024
"""Of a weight that are prepacked at a time."""


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
            step = tiles[begin // TILE_ROWS : (begin + STEP_ROWS) // TILE_ROWS]
            step.copy_(found.view(-1, TILE_ROWS, columns).transpose(1, 2))
        scale, zero = (part.t().half().contiguous() for part in grouped.scale_and_zero(self._others))
        self._tiles = Tiles(codes=tiles, scale=scale, zero=zero, group_size=grouped.group_size, middle=MIDDLE)

    def supports(self, inputs: Tensor) -> bool:
        """Return whether `multiply` takes these inputs [..., columns]."""
        return inputs.dtype == KERNEL_DTYPE and not (inputs.requires_grad and torch.is_grad_enabled())

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
        first, last = rows.start // TILE_ROWS, -(-rows.stop // TILE_ROWS)
        codes = self._tiles.codes[first:last].transpose(1, 2).reshape(-1, self._tiles.codes.shape[1])
        found = codes[rows.start - first * TILE_ROWS : rows.stop - first * TILE_ROWS]
        rows_of_bytes = found.view(torch.uint8).clone(memory_format=torch.contiguous_format)  # a single row, too
        return self._grouped.pack(rows_of_bytes.bitwise_xor_(MIDDLE))
