"""Multiply activations with 8-bit codes that have a scale per row and a scale per column.

With weight = (code + remainder) * row scale * column scale, the column scale is multiplied into the activations and the
row scale into the outputs, so the product itself is one of activations and integers. torch's kernel for it is used
where it runs and passes a proof, on a CPU in bfloat16; its own scales would be rounded to bfloat16, so they are ones.
Elsewhere, and for inputs of more rows, blocks of codes are converted to a dtype of products, which is exact, and
multiplied as any matrix is. Codes beyond ±127 are few: what is missing of them is added in float32. Where a processor
multiplies pairs, weights are kept otherwise (`byte_tiles.py`).

What is rounded to bfloat16: activations times column scale, sums, outputs. Weights are not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from submission.model.codecs.codec import ScaledCodes
from submission.runtime.products.block_products import (
    block_products,
    kernel_rows,
    rows_of_a_block,
    scratch,
)
from submission.runtime.products.processor import COLUMN_MULTIPLE, product_dtype

KERNEL_DTYPE = torch.bfloat16
"""Of activations. In float32, where a hypothesis must not depend on its batch, weights are dequantized."""
BITS = 8
BLOCK_ROWS = 128
"""Least rows of a converted block: with fewer a product takes longer."""
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
        """Return whether `multiply` takes these inputs [..., columns]."""
        return from_codes(inputs)

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


def from_codes(inputs: Tensor) -> bool:
    """Return whether a product of inputs may be computed from codes; in float32 weights are dequantized exactly."""
    return inputs.dtype == KERNEL_DTYPE and not (inputs.requires_grad and torch.is_grad_enabled())


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
            if not is_right(functools.partial(_kernel, codes), codes, generator):
                return False
        except RuntimeError:  # what torch raises for a kernel that it was built without
            return False
    return True


def is_right(multiply: Callable[[Tensor], Tensor], codes: Tensor, generator: torch.Generator) -> bool:
    """Return whether a function computes the products of random inputs and codes."""
    for count in (1, 5, 40):
        inputs = torch.randn(count, codes.shape[1], generator=generator).to(KERNEL_DTYPE)
        expected = inputs.double() @ codes.double().t()
        if not bool((multiply(inputs).double() - expected).norm() < 0.004 * expected.norm()):
            return False
    return True
