"""Multiply activations with weights that stay codes: our kernel for processors that multiply pairs, and torch's own.

These take codes of at most 4 bits, so 2- and 3-bit ones too, in groups of 32 to 256, and bfloat16 activations.

Where a processor has the instructions, any number of rows is multiplied by dot products of bfloat16 pairs
(`dot_kernels.py`). Elsewhere torch's kernels serve. Their weight is `(code - 8) * scale + offset`; ours is `(code -
zero) * scale`, so the offset is `(8 - zero) * scale`. Scale and offset are rounded to bfloat16, as weights are where
they are dequantized, and sums are float32. More rows, for which such a kernel is slower than a plain product, are
multiplied with blocks that a compiled loop dequantizes (`block_products.py`); where that does not take the order of the
codes, with the weight that is dequantized in passes over it.

A kernel needs its codes in an order of its own, which torch does not document and which differs between processors. So
the order is determined here by prepacking known codes, and verified by a product with random ones; a kernel that fails
is not used on that machine. Prepacked codes can be read back: they are kept in that order alone.

Weights whose codec offers 8-bit codes with scales of rows and columns are kept as these (`int8_kernels.py`). Grouped
codes of 5 to 8 bits are kept as bytes where a processor multiplies pairs (`byte_tiles.py`), and else as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from submission.model.codecs.affine import Affine
from submission.runtime.products.block_products import (
    block_products,
    kernel_rows,
    rows_of_a_block,
    scratch,
)
from submission.runtime.products.byte_tiles import PrepackedBytes, prepack_codes, tiles_pass_proof
from submission.runtime.products.int8_kernels import KERNEL_DTYPE, PrepackedCodes, from_codes
from submission.runtime.products.processor import TILE_ROWS, multiplies_pairs, product_dtype

if TYPE_CHECKING:
    from submission.model.codecs import Codec
    from submission.model.codecs.codec import GroupedCodes
    from submission.runtime.products.dot_kernels import Tiles

GROUP_SIZES = (32, 64, 128, 256)
BITS = 4
MIDDLE = 8

CACHE_ELEMENTS = 1 << 19
"""Codes that are reordered at a time on a CPU, so that the passes stay in its cache."""


class Kernel(Protocol):
    """A product with 4-bit codes. All of them are stateless: what they need is in a `PrepackedGroups`."""

    name: str
    """For a person."""
    tiles: tuple[tuple[int, int], ...]
    """Rows and columns of the tiles that codes may be ordered in; the first that is verified is used."""
    most_rows: int | None
    """Rows of activations up to which it is faster than dequantizing in passes and multiplying; None for any number."""

    def __hash__(self) -> int: ...

    def prepack(self, codes: Tensor) -> Tensor:
        """Return codes, uint8 [rows, columns] below 16, in the kernel's order, in any dtype and shape.

        Raises RuntimeError, ImportError, OSError or AttributeError where the kernel does not run.
        """

    def prepare(self, weight: PrepackedGroups, scale: Tensor, zero: Tensor) -> Any:
        """Return what `multiply` reads beside the codes; scale, zero: float32 [rows, groups]."""

    def multiply(self, inputs: Tensor, weight: PrepackedGroups) -> Tensor:
        """Return bfloat16 [n, rows] of inputs, bfloat16 [n, columns]."""


class TorchKernel:
    """What torch's kernels have in common: scale and offset of a group are bfloat16."""

    def prepare(self, weight: PrepackedGroups, scale: Tensor, zero: Tensor) -> Tensor:
        """Return scale and offset, bfloat16 [groups, rows, 2]."""
        return torch.stack([scale.t(), ((weight.middle - zero) * scale).t()], dim=-1).to(KERNEL_DTYPE)


class CPUKernel(TorchKernel):
    """torch's kernel for x86 and ARM. Measured on two cores with AVX-512 (docs/inference.md)."""

    name = "torch's for processors"
    tiles: tuple[tuple[int, int], ...] = ((64, 1), (32, 1), (16, 1))
    most_rows: int | None = 192

    def prepack(self, codes: Tensor) -> Tensor:
        """Return uint8 [rows, columns / 2]; what the operator itself takes is int32."""
        packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 1)
        return packed

    def multiply(self, inputs: Tensor, weight: PrepackedGroups) -> Tensor:
        """Return bfloat16 [n, rows]."""
        size = weight.codec.group_size
        outputs: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(inputs, weight.codes, size, weight.prepared)
        return outputs


class CUDAKernel(TorchKernel):
    """tinygemm, which torch brings along. Where it stops being faster has not been measured."""

    name = "tinygemm"
    tiles: tuple[tuple[int, int], ...] = ((8, 128),)
    most_rows: int | None = 32

    def prepack(self, codes: Tensor) -> Tensor:
        """Return int32 [rows / 8, columns / 128, 32, 4]: tiles for the tensor cores of a warp."""
        packed: Tensor = torch.ops.aten._convert_weight_to_int4pack(codes[:, ::2] << BITS | codes[:, 1::2], 8)
        return packed

    def multiply(self, inputs: Tensor, weight: PrepackedGroups) -> Tensor:
        """Return bfloat16 [n, rows]; the weight's codes are the bytes of what `prepack` returns."""
        rows, half = weight.codes.shape
        tiles = weight.codes.view(torch.int32).view(rows // 8, half // 64, 32, 4)
        outputs: Tensor = torch.ops.aten._weight_int4pack_mm(inputs, tiles, weight.codec.group_size, weight.prepared)
        return outputs


class DotKernel:
    """Dot products of bfloat16 pairs, for any number of rows; the weight is never rounded."""

    name = "dot products of bfloat16 pairs"
    tiles: tuple[tuple[int, int], ...] = ((TILE_ROWS, 1),)
    most_rows: int | None = None

    def prepack(self, codes: Tensor) -> Tensor:
        """Return uint8 [rows, columns / 2]: in a tile's column a row's code and that of the row 32 further."""
        if not multiplies_pairs():
            raise RuntimeError("the processor has no dot products of bfloat16 pairs")
        return TileLayout(TILE_ROWS, 1, None).prepack(codes)

    def prepare(self, weight: PrepackedGroups, scale: Tensor, zero: Tensor) -> Tiles:
        """Return the weight with scale and zero-point as codecs store them, float16."""
        from submission.runtime.products.dot_kernels import Tiles

        codes = weight.codes.view(-1, weight.shape[1], TILE_ROWS // 2)
        scale, zero = (part.t().half().contiguous() for part in (scale, zero))
        return Tiles(codes=codes, scale=scale, zero=zero, group_size=weight.codec.group_size, middle=weight.middle)

    def multiply(self, inputs: Tensor, weight: PrepackedGroups) -> Tensor:
        """Return bfloat16 [n, rows]."""
        outputs: Tensor = weight.prepared.multiply(inputs)
        return outputs


KERNELS: dict[str, tuple[Kernel, ...]] = {"cpu": (DotKernel(), CPUKernel()), "cuda": (CUDAKernel(),)}
"""Type of device -> its kernels; the first that passes its proof is used."""


@dataclass(frozen=True, slots=True, eq=False)
class TileLayout:
    """The order of a kernel's codes: tile by tile along the rows, two per byte, those of a tile in a fixed order."""

    rows: int
    """Of a tile."""
    columns: int
    order: Tensor | None
    """int64 [rows * columns]: of the code in each place of a tile, column by column, its place among the nibbles, the
    low one of every byte before the high one of any. None where the two orders are the same."""

    def fits(self, shape: tuple[int, int]) -> bool:
        """Return whether a weight of this shape divides into whole tiles."""
        return shape[0] % self.rows == 0 and shape[1] % self.columns == 0

    def prepack(self, codes: Tensor) -> Tensor:
        """Return uint8 [rows, columns / 2] of codes, uint8 [rows, columns]."""
        rows, columns = codes.shape
        tiles = codes.view(-1, self.rows, columns // self.columns, self.columns)
        if self.order is None and self.columns == 1:  # the same, with half as many bytes to transpose
            low, high = tiles.chunk(2, dim=1)
            return (high << BITS).bitwise_or_(low).transpose(1, 2).reshape(rows, columns // 2)
        nibbles = tiles.permute(0, 2, 3, 1).reshape(-1, self.rows * self.columns)
        if self.order is not None:
            nibbles = nibbles[:, self.order.argsort()]
        low, high = nibbles.chunk(2, dim=1)
        return (high << BITS | low).view(rows, columns // 2)

    def codes(self, prepacked: Tensor) -> Tensor:
        """Return prepacked codes as uint8 [tiles along the rows, columns, rows of a tile]."""
        tiles = prepacked.view(-1, self.rows * self.columns // 2)
        nibbles = torch.cat([tiles & 0xF, tiles >> BITS], dim=1)
        if self.order is not None:
            nibbles = nibbles[:, self.order]
        return nibbles.view(-1, prepacked.shape[1] * 2, self.rows)


class Prepacked(Protocol):
    """A weight [rows, columns] as it is kept for inference."""

    replaced: tuple[str, ...]
    """Parts that are kept here alone."""
    looks_up_rows: bool
    """Whether `dequantize` takes row numbers."""

    @property
    def parts(self) -> Mapping[str, Tensor]:
        """What the codec stores, by suffix."""

    def supports(self, inputs: Tensor) -> bool:
        """Return whether `multiply` is to be used for these inputs [..., columns]."""

    def multiply(self, inputs: Tensor) -> Tensor:
        """Return [..., rows]."""

    def dequantize(self, dtype: torch.dtype, rows: slice | Tensor) -> Tensor:
        """Return some rows of the weight in dtype."""


class PrepackedGroups:
    """A weight [rows, columns] whose codes are in a kernel's order."""

    looks_up_rows = False

    def __init__(
        self, kernel: Kernel, layout: TileLayout, codec: GroupedCodes, parts: Mapping[str, Tensor], columns: int
    ) -> None:
        """Take the parts of a weight; 4-bit codes are prepacked in place."""
        codes = parts[codec.codes_part]
        self.kernel, self.layout, self.codec = kernel, layout, codec
        self.shape = torch.Size((len(codes), columns))
        self.replaced: tuple[str, ...] = (codec.codes_part,)
        self.others = {name: part for name, part in parts.items() if name != codec.codes_part}
        self.shift = MIDDLE - (1 << codec.bits - 1)
        """What is added to codes, so that the middle of theirs is the kernel's and offsets are small."""
        self.middle = MIDDLE - self.shift
        """What is added to the kernel's codes less 8, to be the stored ones."""
        whole = (len(codes), columns // 2)
        self.codes = codes if codes.shape == whole else codes.new_empty(whole)
        for rows in self._blocks(0, len(codes)):
            self.codes[rows] = layout.prepack(codec.unpack(codes[rows], columns) + self.shift)
        self.prepared = kernel.prepare(self, *codec.scale_and_zero(self.others))
        self.in_blocks = kernel.most_rows is not None and self.codes.is_cpu and _unpacks(layout)
        """Whether more rows than the kernel is fast for are multiplied with blocks that a compiled loop dequantizes."""

    def _blocks(self, begin: int, end: int) -> Iterator[slice]:
        """Yield slices of rows, whole tiles, that are worked on at a time."""
        tile = self.layout.rows
        step = tile * max(1, CACHE_ELEMENTS // (tile * self.shape[1])) if self.codes.is_cpu else end - begin
        return (slice(start, min(start + step, end)) for start in range(begin, end, step))

    def supports(self, inputs: Tensor) -> bool:
        """Return whether `multiply` takes these inputs [..., columns], being faster than what is left."""
        most_rows = self.kernel.most_rows
        is_faster = self.in_blocks or most_rows is None or inputs.numel() <= most_rows * self.shape[1]
        return is_faster and from_codes(inputs)

    def multiply(self, inputs: Tensor) -> Tensor:
        """Return [..., rows]."""
        flat = inputs.reshape(-1, self.shape[1]).contiguous()  # a slice of positions is not
        if self.in_blocks and len(flat) > kernel_rows(BITS):
            outputs = self._multiply_blocks(flat)
        else:
            outputs = self.kernel.multiply(flat, self)
        return outputs.view(*inputs.shape[:-1], self.shape[0])

    def _multiply_blocks(self, inputs: Tensor) -> Tensor:
        """Return bfloat16 [n, rows]: the product with the dequantized weight, block by block."""
        from submission.runtime.products.unpack_kernels import unpack_tiles

        (rows, columns), tile = self.shape, self.layout.rows
        tiles = self.codes.view(-1, columns, tile // 2).numpy()
        scale, zero = (part.numpy() for part in self.codec.scale_and_zero(self.others))

        def decode(block: slice) -> Tensor:
            weight = scratch((columns, block.stop - block.start), product_dtype())
            bits = weight.view(torch.int32 if weight.itemsize == 4 else torch.int16).numpy()
            codes = tiles[block.start // tile : block.stop // tile]
            unpack_tiles(codes, self.shift, scale[block], zero[block], self.codec.group_size, bits)
            return weight.t()

        step = rows_of_a_block(columns, tile)
        blocks = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
        return block_products(inputs, blocks, decode).to(KERNEL_DTYPE)

    def dequantize(self, dtype: torch.dtype, rows: slice | Tensor = slice(None)) -> Tensor:
        """Return the weight in dtype, or a slice of its rows: the very numbers that its codec decodes."""
        assert isinstance(rows, slice), "single rows are not looked up from here"
        begin, end, _ = rows.indices(self.shape[0])
        tile, size = self.layout.rows, self.codec.group_size
        first, last = begin // tile * tile, -(-end // tile) * tile
        weight = torch.empty((self.shape[1], last - first), dtype=dtype, device=self.codes.device)
        for block in self._blocks(first, last):
            codes = self.layout.codes(self.codes[block]) - self.shift
            scale, zero = (
                part.view(len(codes), tile, -1).transpose(1, 2).contiguous().unsqueeze(2)
                for part in self.codec.scale_and_zero({name: part[block] for name, part in self.others.items()})
            )
            values = codes.float().view(len(codes), -1, size, tile).sub_(zero).mul_(scale)
            columns = weight[:, block.start - first : block.stop - first].view(self.shape[1], len(codes), tile)
            columns.copy_(values.view(len(codes), -1, tile).transpose(0, 1))
        return weight.t()[begin - first : end - first]

    @property
    def parts(self) -> dict[str, Tensor]:
        """What the codec stores, by suffix, its codes in their own order again."""
        codes = torch.cat([self._packed(rows) for rows in self._blocks(0, self.shape[0])])
        return {self.codec.codes_part: codes, **self.others}

    def _packed(self, rows: slice) -> Tensor:
        codes = (self.layout.codes(self.codes[rows]) - self.shift).transpose(1, 2).contiguous()
        return self.codec.pack(codes.view(-1, self.shape[1]))


def prepack(codec: Codec, parts: Mapping[str, Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Prepacked | None:
    """Return a weight as it is kept for inference in dtype, or None where it stays as it is stored.

    4-bit codes are prepacked in place.
    """
    groups = _prepack_groups(codec, parts, shape[1]) if dtype == KERNEL_DTYPE else None
    if groups is not None:
        return groups
    scaled = codec.scaled_codes(parts, shape)
    if scaled is None:
        return None
    return prepack_codes(scaled, parts) if dtype == KERNEL_DTYPE else PrepackedCodes(scaled, dict(parts))


def prepack_scaled(codec: Codec, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> PrepackedCodes | None:
    """Return a weight decoded to 8-bit codes, for rows to be looked up; None for a codec that has no such codes."""
    scaled = codec.scaled_codes(parts, shape)
    return None if scaled is None else PrepackedCodes(scaled, dict(parts))


def _prepack_groups(codec: Codec, parts: Mapping[str, Tensor], columns: int) -> Prepacked | None:
    """Return a weight prepacked for a kernel of its device, or None where none supports it."""
    grouped = codec.grouped_codes()
    if grouped is None or grouped.group_size not in GROUP_SIZES or columns % grouped.group_size:
        return None
    codes = parts[grouped.codes_part]
    if grouped.bits > BITS:
        taken = codes.is_cpu and len(codes) % TILE_ROWS == 0 and tiles_pass_proof()
        return PrepackedBytes(codec, grouped, parts, columns) if taken else None
    for kernel in KERNELS.get(codes.device.type, ()):
        layout = proved_layout(kernel, codes.device)
        if layout is not None and layout.fits((len(codes), columns)):
            return PrepackedGroups(kernel, layout, grouped, parts, columns)
    return None


def _unpacks(layout: TileLayout) -> bool:
    """Return whether the compiled loop takes the order of a kernel's codes, and is there."""
    try:
        from submission.runtime.products.unpack_kernels import TILE_MULTIPLE
    except ImportError:  # of numba, which has no package for every processor
        return False
    return layout.columns == 1 and layout.order is None and layout.rows % TILE_MULTIPLE == 0


@functools.cache
def proved_layout(kernel: Kernel, device: torch.device) -> TileLayout | None:
    """Return the order of a kernel's codes on this machine; None where it does not run or computes wrong products."""
    for rows, columns in kernel.tiles:
        try:
            layout = _learn(kernel, rows, columns, device)
            if layout is not None and _is_right(kernel, layout, device):
                return layout
        except (RuntimeError, ImportError, OSError, AttributeError):  # torch was built without it, or something lacks
            continue
    return None


def _learn(kernel: Kernel, rows: int, columns: int, device: torch.device) -> TileLayout | None:
    """Return the order within a tile of this size; None where tiles have another."""
    size = rows * columns
    places = torch.arange(size, device=device).view(columns, rows).t()
    found = torch.zeros(size, dtype=torch.int64, device=device)
    for shift in range(0, (size - 1).bit_length(), BITS):
        digits = (places >> shift & 0xF).to(torch.uint8).repeat(1, 2)
        tile = kernel.prepack(digits).reshape(-1).view(torch.uint8)[: size // 2]
        found |= torch.cat([tile & 0xF, tile >> BITS]).long() << shift
    order, natural = found.argsort(), torch.arange(size, device=device)
    if not torch.equal(found[order], natural):
        return None
    return TileLayout(rows, columns, None if torch.equal(order, natural) else order)


def _is_right(kernel: Kernel, layout: TileLayout, device: torch.device) -> bool:
    """Return whether a product with random codes is that of the dequantized weight."""
    generator = torch.Generator().manual_seed(0)
    codec = Affine(bits=BITS, group_size=GROUP_SIZES[1])
    rows, columns = 3 * layout.rows, 2 * max(layout.columns, codec.group_size)
    parts = {name: torch.rand(shape, generator=generator) for name, (_, shape) in codec.parts((rows, columns)).items()}
    parts = {
        "codes": (parts["codes"] * 256).to(torch.uint8),
        "scale": (parts["scale"] * 0.1).half(),
        "zero": (parts["zero"] * 15).half(),
    }
    parts = {name: part.to(device) for name, part in parts.items()}
    inputs = torch.randn(5, columns, generator=generator).to(device, KERNEL_DTYPE)
    expected = F.linear(inputs.float(), codec.decode(parts, (rows, columns), torch.float32))
    outputs = PrepackedGroups(kernel, layout, codec, parts, columns).multiply(inputs).float()
    return bool((outputs - expected).norm() < 0.02 * expected.norm())
