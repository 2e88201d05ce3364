"""Multiply activations with 8-bit codes that have a scale per row and a scale per column.

With weight = (code + remainder) * row scale * column scale, the column scale is multiplied into the activations and the
row scale into the outputs, so the product itself is one of activations and integers. Where a processor has dot products
of bfloat16 pairs they compute it (`dot_kernels.py`). On other CPUs torch's kernel for it is used where it runs and
passes a proof; its own scales would be rounded to bfloat16, so they are ones. Elsewhere, and for inputs of more rows,
blocks of codes are converted to a dtype of products, which is exact, and multiplied as any matrix is. Codes beyond ±127
are few: what is missing of them is added in float32.

What is rounded to bfloat16: activations times column scale, sums, outputs. Weights are not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from submission.model.codecs.codec import ScaledCodes
from submission.runtime.products.block_products import (
    block_products,
    kernel_rows,
    multiplies_pairs,
    product_dtype,
    rows_of_a_block,
    scratch,
)

KERNEL_DTYPE = torch.bfloat16
BITS = 8
BLOCK_ROWS = 128
"""Least rows of a converted block: with fewer a product takes longer."""
COLUMN_MULTIPLE = 32
"""What columns have to be a multiple of for the kernel: of others it reads beyond the end, without a check."""
TILE_ROWS = 64
"""What rows have to be a multiple of for dot products of pairs."""
CONVERTED_ELEMENTS = 1 << 22
"""Codes that are converted at a time: 8 MiB in bfloat16."""


class PrepackedCodes:
    """A weight [rows, columns] that is decoded to 8-bit codes; its stored parts stay beside it."""

    replaced: tuple[str, ...] = ()
    """Parts that are not kept as they are stored."""
    looks_up_rows = True
    """Whether single rows are dequantized from here."""

    def __init__(self, weight: ScaledCodes, parts: dict[str, Tensor]) -> None:
        self.weight = weight
        self.parts = parts
        self.row_scale, self.column_scale = weight.row_scale.float(), weight.column_scale.float()
        columns = weight.codes.shape[1]
        self.remainder_rows = weight.positions // columns
        self.remainder_columns = weight.positions % columns
        self.remainders = weight.remainders.float().unsqueeze(1)

    def supports(self, inputs: Tensor) -> bool:
        """Return whether `multiply` takes these inputs [..., columns]; in float32 weights are dequantized exactly."""
        return inputs.dtype == KERNEL_DTYPE and not (inputs.requires_grad and torch.is_grad_enabled())

    def multiply(self, inputs: Tensor) -> Tensor:
        """Return [..., rows]."""
        rows, columns = self.weight.codes.shape
        scaled = inputs.reshape(-1, columns).float() * self.column_scale
        narrow = scaled.to(KERNEL_DTYPE)
        if len(narrow) <= kernel_rows(BITS) and columns % COLUMN_MULTIPLE == 0 and passes_proof(narrow.device):
            outputs = _kernel(self.weight.codes, narrow).float()
        else:
            outputs = _converted(narrow, self.weight.codes)
        if self.remainders.numel():
            added = scaled.t()[self.remainder_columns] * self.remainders  # [remainders, n]
            outputs = outputs.t().contiguous().index_add_(0, self.remainder_rows, added).t()
        return (outputs * self.row_scale).to(KERNEL_DTYPE).view(*inputs.shape[:-1], rows)

    def dequantize(self, dtype: torch.dtype, rows: slice | Tensor) -> Tensor:
        """Return some rows of the weight in dtype, exactly as its codec decodes them."""
        if not isinstance(rows, slice) or dtype.itemsize > 4:
            return self.weight.dequantize(dtype, rows)
        return in_steps(lambda part: self.weight.dequantize(dtype, part), rows, self.weight.codes.shape)


class PrepackedTiles:
    """A weight [rows, columns] that is decoded to 8-bit codes in tiles, for dot products of bfloat16 pairs."""

    replaced: tuple[str, ...] = ()
    looks_up_rows = False

    def __init__(self, weight: ScaledCodes, parts: dict[str, Tensor]) -> None:
        """Take a weight that `fits_tiles`; its stored parts stay beside it."""
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
        codes = weight.codes.view(-1, TILE_ROWS, columns).transpose(1, 2).contiguous()
        scale = weight.row_scale.unsqueeze(0).contiguous()
        self.tiles = Tiles(codes=codes, scale=scale, zero=torch.zeros_like(scale), group_size=columns, added=added)

    def supports(self, inputs: Tensor) -> bool:
        """Return whether `multiply` takes these inputs [..., columns]."""
        return inputs.dtype == KERNEL_DTYPE and not (inputs.requires_grad and torch.is_grad_enabled())

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
        tile, columns = TILE_ROWS, self.shape[1]
        first, last = rows.start // tile, -(-rows.stop // tile)
        codes = self.tiles.codes[first:last].transpose(1, 2).reshape(-1, columns)
        row_scale, column_scale, positions, remainders = self.others
        begin, end = torch.searchsorted(positions, torch.tensor([rows.start, rows.stop]) * columns).tolist()
        return ScaledCodes(
            codes=codes[rows.start - first * tile : rows.stop - first * tile],
            row_scale=row_scale[rows],
            column_scale=column_scale,
            positions=positions[begin:end] - rows.start * columns,
            remainders=remainders[begin:end],
        )


def in_steps(decode: Callable[[slice], Tensor], rows: slice, shape: tuple[int, ...]) -> Tensor:
    """Return some rows of a weight [rows, columns] from a function that decodes a slice of them, so many at a time."""
    begin, end, _ = rows.indices(shape[0])
    step = max(1, CONVERTED_ELEMENTS // shape[1])
    if end - begin <= step:
        return decode(slice(begin, max(begin, end)))
    first = decode(slice(begin, begin + step))
    out = first.new_empty((end - begin, shape[1]))
    out[:step] = first
    for start in range(begin + step, end, step):
        stop = min(start + step, end)
        out[start - begin : stop - begin] = decode(slice(start, stop))
    return out


def prepack_codes(weight: ScaledCodes, parts: Mapping[str, Tensor]) -> PrepackedCodes | PrepackedTiles:
    """Return a decoded weight as products in bfloat16 take it; parts: what is stored of it."""
    rows, columns = weight.codes.shape
    if weight.codes.is_cpu and rows % TILE_ROWS == 0 and columns % COLUMN_MULTIPLE == 0 and tiles_pass_proof():
        return PrepackedTiles(weight, dict(parts))
    return PrepackedCodes(weight, dict(parts))


def _kernel(codes: Tensor, inputs: Tensor) -> Tensor:
    """Return bfloat16 [n, rows]: the product of inputs, bfloat16 [n, columns], and codes, int8 [rows, columns]."""
    ones = torch.ones(len(codes), dtype=inputs.dtype, device=inputs.device)
    product: Tensor = torch.ops.aten._weight_int8pack_mm(inputs, codes, ones)
    return product


def _converted(inputs: Tensor, codes: Tensor) -> Tensor:
    """Return the same as float32, by plain products with blocks of codes."""
    if codes.is_cpu:
        rows, columns = codes.shape

        def decode(block: slice) -> Tensor:
            return scratch((block.stop - block.start, columns), product_dtype()).copy_(codes[block])

        step = rows_of_a_block(columns, BLOCK_ROWS)
        blocks = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
        return block_products(inputs, blocks, decode).float()
    step = max(1, CONVERTED_ELEMENTS // codes.shape[1])
    return torch.cat([F.linear(inputs, part.to(inputs.dtype)).float() for part in codes.split(step)], dim=1)


@functools.cache
def passes_proof(device: torch.device) -> bool:
    """Return whether torch's 8-bit kernel runs on a device and computes the product of random codes.

    Only on a CPU: other devices' kernels take scales or layouts of their own.
    """
    if device.type != "cpu":
        return False
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((96, 256), (33, 96)):  # rows that fill tiles, and not
        codes = torch.randint(-127, 128, (rows, columns), generator=generator).to(torch.int8)
        try:
            if not _is_right(functools.partial(_kernel, codes), codes, generator):
                return False
        except RuntimeError:  # what torch raises for a kernel that it was built without
            return False
    return True


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
        return _is_right(PrepackedTiles(weight, {}).multiply, codes, generator)
    except (OSError, AttributeError):  # torch computes with threads of another kind
        return False


def _is_right(multiply: Callable[[Tensor], Tensor], codes: Tensor, generator: torch.Generator) -> bool:
    """Return whether a function computes the products of random inputs and codes."""
    for count in (1, 5, 40):
        inputs = torch.randn(count, codes.shape[1], generator=generator).to(KERNEL_DTYPE)
        expected = inputs.double() @ codes.double().t()
        if not bool((multiply(inputs).double() - expected).norm() < 0.004 * expected.norm()):
            return False
    return True
