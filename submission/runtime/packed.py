"""Packed layers: weights that stay codes in memory and are unpacked while they are used.

A linear is dequantized whole (the head in row blocks) for each call and forgotten again; an embedding unpacks the
rows that are looked up. The arithmetic is float32 whatever the model computes in, `(code - zero) * scale`, rounded
once to the compute dtype, so every dtype sees the same weights. Nothing is cached: memory is what packing is for.

Unpacking is bit arithmetic on whole machine words: the codes of one byte or a few are spread over the 2, 4 or 8
bytes of one integer by halving steps (shift the upper half up), and that integer is read again as bytes. This
takes the machine to be little-endian, as all that torch runs on are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from submission.codec import Codec

CACHE_ELEMENTS = 1 << 18
"""Weights that are unpacked at a time on a CPU, so that the elementwise passes stay in its cache."""

LINEAR_ELEMENTS = 1 << 26
"""Weights that a linear holds dequantized at a time: 128 MiB in bfloat16. Only an LM head has more."""


def unpack_codes(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Return uint8 [rows, columns], the codes that `packed`, uint8 [rows, ceil(columns * bits / 8)], holds.

    Row i is a little-endian bit stream; code j occupies its bits [j * bits, (j + 1) * bits).
    """
    if bits == 8:
        return packed
    if bits == 4:
        return _spread(packed.to(torch.int16), ((4, 0x0F0F),))[:, :columns]
    if bits == 2:
        return _spread(packed.to(torch.int32), ((12, 0x000F000F), (6, 0x03030303)))[:, :columns]
    # Eight codes lie in `bits` bytes; make each such piece the low bytes of one 64-bit integer.
    rows, pieces = packed.shape[0], -(-columns // 8)
    padded = F.pad(packed, (0, pieces * bits - packed.shape[1])).view(rows, pieces, bits)
    words = F.pad(padded, (0, 8 - bits)).view(torch.int64).view(rows, pieces)
    for cut in (4, 2, 1):  # fields of 2 * cut codes, side by side -> of `cut` codes, each in `cut` bytes
        lower = words & _mask(bits * cut, 16 * cut)
        words = (words ^ lower).bitwise_left_shift_((8 - bits) * cut).bitwise_or_(lower)
    return words.view(torch.uint8)[:, :columns]


def _mask(width: int, period: int) -> int:
    """Return a 64-bit integer with the low `width` bits set in each `period` bits."""
    return sum(((1 << width) - 1) << shift for shift in range(0, 64, period))


def _spread(words: torch.Tensor, steps: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """Return the words' bytes, uint8 [rows, bytes], after moving their upper halves up, step by step.

    For fields at most half as wide as their new places: what else moves with them falls under the mask.
    """
    for shift, mask in steps:
        moved = words << shift
        words = moved.bitwise_or_(words).bitwise_and_(mask)
    return words.view(torch.uint8)


def dequantize(
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    *,
    codec: Codec,
    columns: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Return the weights [rows, columns] in dtype, (code - zero) * scale computed in float32.

    codes: packed, uint8 [rows, ceil(columns * bits / 8)]; scale, zero: float16 [rows, ceil(columns / group_size)].
    """
    rows = codes.shape[0]
    step = max(1, CACHE_ELEMENTS // columns) if codes.device.type == "cpu" else max(1, rows)
    if rows <= step:
        return _dequantized_block(codes, scale, zero, codec, columns).to(dtype)
    weights = torch.empty((rows, columns), dtype=dtype, device=codes.device)
    for start in range(0, rows, step):
        block = slice(start, start + step)
        weights[block] = _dequantized_block(codes[block], scale[block], zero[block], codec, columns)
    return weights


def _dequantized_block(
    packed: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, codec: Codec, columns: int
) -> torch.Tensor:
    """Return float32 [rows, columns]."""
    rows = packed.shape[0]
    codes = unpack_codes(packed, codec.bits, columns)
    scale, zero = scale.float(), zero.float()
    if columns % codec.group_size:
        scale, zero = (x.repeat_interleave(codec.group_size, dim=1)[:, :columns] for x in (scale, zero))
        return codes.to(torch.float32).sub_(zero).mul_(scale)
    groups = columns // codec.group_size
    grouped = codes.to(torch.float32).view(rows, groups, codec.group_size)
    return grouped.sub_(zero.unsqueeze(2)).mul_(scale.unsqueeze(2)).view(rows, columns)


class PackedTensor(nn.Module):
    """A weight [rows, columns] as a codec stores it; takes the place of the `weight` parameter of a layer.

    Its state is `codes`, `scale` and `zero` with the dtypes of the file. Casting the model changes `dtype`, in
    which the weight is handed out, and never the stored parts.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self, codec: Codec, shape: tuple[int, int], *, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__()
        self.codec = codec
        self.shape = torch.Size(shape)
        self.dtype = dtype
        for name, (kind, part_shape) in codec.parts(tuple(shape)).items():
            stored = {"U8": torch.uint8, "F16": torch.float16}[kind]
            self.register_buffer(name, torch.zeros(part_shape, dtype=stored, device=device))

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def dequantize(self, dtype: torch.dtype, rows: slice | torch.Tensor | None = None) -> torch.Tensor:
        """Return the weight in dtype, or some of its rows: a slice, or int64 [n] of row numbers."""
        parts = (self.codes, self.scale, self.zero)
        if rows is not None:
            parts = tuple(part[rows] for part in parts)
        return dequantize(*parts, codec=self.codec, columns=self.shape[1], dtype=dtype)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> PackedTensor:
        stored = dict(self._buffers)
        super()._apply(fn, recurse)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=stored["codes"].device)).dtype
        for name, before in stored.items():
            if self._buffers[name].dtype != before.dtype:
                self._buffers[name] = before.to(self._buffers[name].device)
        return self

    def extra_repr(self) -> str:
        return f"{self.codec.name}, shape={tuple(self.shape)}"


class PackedLinear(nn.Module):
    """`nn.Linear` with a packed weight [out_features, in_features]."""

    def __init__(self, weight: PackedTensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = weight
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return inputs [..., in_features] times the weight's transpose, plus bias; in the dtype of inputs."""
        step = max(1, LINEAR_ELEMENTS // self.in_features)
        if self.out_features <= step:
            return F.linear(inputs, self.weight.dequantize(inputs.dtype), self.bias)
        outputs = []
        for start in range(0, self.out_features, step):
            rows = slice(start, start + step)
            bias = None if self.bias is None else self.bias[rows]
            outputs.append(F.linear(inputs, self.weight.dequantize(inputs.dtype, rows), bias))
        return torch.cat(outputs, dim=-1)


class PackedEmbedding(nn.Module):
    """`nn.Embedding` with a packed weight [num_embeddings, embedding_dim]."""

    def __init__(self, weight: PackedTensor) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.weight = weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows of ids, int [...], as [..., embedding_dim] in the model's dtype."""
        rows = self.weight.dequantize(self.weight.dtype, ids.reshape(-1))
        return rows.view(*ids.shape, self.embedding_dim)
