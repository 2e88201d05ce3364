"""Layers whose weights stay codes in memory and are decoded while they are used.

A linear is dequantized whole (the head in row blocks) for each call; an embedding decodes the rows that are looked up.
Only the codec knows what the parts of a weight hold. Nothing is cached: packing is there to save memory. But a stream
that has to be decoded in whole blocks is kept as 8-bit codes once the model is prepared for inference.
`prepack_linears` prepares the linears of a model for the device's own kernel, where there is one
(`products/kernels.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from submission.errors import UserError
from submission.model.codecs import Codec
from submission.model.codecs.dtypes import torch_dtype
from submission.runtime.products.int8_kernels import KERNEL_DTYPE
from submission.runtime.products.kernels import Prepacked, prepack, prepack_scaled

LINEAR_ELEMENTS = 1 << 26
"""Weights that a linear holds dequantized at a time: 128 MiB in bfloat16. Only an LM head has more."""


class PackedTensor(nn.Module):
    """A weight [rows, columns] as a codec stores it; takes the place of the `weight` parameter of a layer.

    Its state is the codec's parts with the dtypes of the file. Casting the model changes `dtype`, in which the weight
    is returned, and never the stored parts.
    """

    def __init__(self, codec: Codec, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__()
        self.codec = codec
        self.shape = torch.Size(shape)
        self.dtype = dtype
        self.prepacked: Prepacked | None = None
        for name, (kind, part_shape) in codec.parts(tuple(shape)).items():
            self.register_buffer(name, torch.empty(part_shape, dtype=torch_dtype(kind), device=device))

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """What is stored, by suffix."""
        if self.prepacked is not None:
            return dict(self.prepacked.parts)
        return {name: part for name, part in self._buffers.items() if part is not None}

    @property
    def device(self) -> torch.device:
        """The device of the stored parts."""
        return next(self.buffers()).device

    def dequantize(self, dtype: torch.dtype, rows: slice | torch.Tensor | None = None) -> torch.Tensor:
        """Return the weight in dtype, or some of its rows: a slice, or int64 [n] of row numbers."""
        if self.prepacked is not None and (self.prepacked.looks_up_rows or not isinstance(rows, torch.Tensor)):
            return self.prepacked.dequantize(dtype, slice(None) if rows is None else rows)
        return self.codec.decode(self.parts, self.shape, dtype, rows)

    def blocks(self, dtype: torch.dtype, elements: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the weight in blocks of whole rows, about `elements` weights each: which rows, and these in dtype."""
        if self.prepacked is None:
            yield from self.codec.blocks(self.parts, self.shape, dtype, elements)
            return
        step = max(1, elements // self.shape[1])
        for start in range(0, self.shape[0], step):
            rows = slice(start, min(start + step, self.shape[0]))
            yield rows, self.prepacked.dequantize(dtype, rows)

    def prepack(self) -> bool:
        """Keep the codes as products and lookups take them; return whether products do. Casts and moves undo it.

        In float32 codes of a stream are decoded once, and products are of dequantized weights.
        """
        if self.prepacked is None:
            self._keep(prepack(self.codec, self.parts, self.shape, self.dtype))
        return self.prepacked is not None and self.dtype == KERNEL_DTYPE

    def prepack_rows(self) -> None:
        """Decode a stream once, for rows to be looked up; what else a codec stores stays as it is."""
        if self.prepacked is None:
            self._keep(prepack_scaled(self.codec, self.parts, self.shape))

    def _keep(self, prepacked: Prepacked | None) -> None:
        self.prepacked = prepacked
        for name in prepacked.replaced if prepacked is not None else ():
            self._buffers[name] = None

    def _restore(self) -> None:
        """Undo `prepack`."""
        if self.prepacked is not None:
            self._buffers |= self.prepacked.parts
            self.prepacked = None

    def _save_to_state_dict(self, destination: dict[str, torch.Tensor], prefix: str, keep_vars: bool) -> None:
        destination |= {prefix + name: part for name, part in self.parts.items()}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._restore()
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> PackedTensor:
        self._restore()
        stored, device = self.parts, self.device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own, of which types are left out
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=device)).dtype
        for name, before in stored.items():
            after = self._buffers[name]
            if after is not None and after.dtype != before.dtype:
                self._buffers[name] = before.to(after.device)
        return self

    def extra_repr(self) -> str:
        """Return what a printed model says of the weight: its codec and shape."""
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
        prepacked = self.weight.prepacked
        if prepacked is not None and prepacked.supports(inputs):
            outputs = prepacked.multiply(inputs)
            return outputs if self.bias is None else outputs + self.bias
        if self.weight.shape.numel() <= LINEAR_ELEMENTS:
            return F.linear(inputs, self.weight.dequantize(inputs.dtype), self.bias)
        blocks = []
        for rows, weight in self.weight.blocks(inputs.dtype, LINEAR_ELEMENTS):
            blocks.append(F.linear(inputs, weight, None if self.bias is None else self.bias[rows]))
            del weight  # before the next block is decoded
        return torch.cat(blocks, dim=-1)


class ScaledEmbedding(nn.Embedding):
    """`nn.Embedding` whose rows are multiplied by a number, rounded to their dtype; its weight is not filled."""

    def __init__(self, rows: int, columns: int, scale: float) -> None:
        super().__init__(rows, columns, device="meta")
        self.scale = scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows of ids, int [...], times the scale."""
        return scaled(super().forward(ids), self.scale)


def scaled(rows: torch.Tensor, scale: float) -> torch.Tensor:
    """Return rows times a number that is rounded to their dtype, as models that scale embeddings do it."""
    return rows if scale == 1 else rows * torch.tensor(scale, dtype=rows.dtype, device=rows.device)


class PackedEmbedding(nn.Module):
    """`nn.Embedding` with a packed weight [num_embeddings, embedding_dim], whose rows are multiplied by a number."""

    def __init__(self, weight: PackedTensor, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.num_embeddings, self.embedding_dim = weight.shape
        self.weight = weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows of ids, int [...], as [..., embedding_dim] in the model's dtype."""
        rows = self.weight.dequantize(self.weight.dtype, ids.reshape(-1))
        return scaled(rows, self.scale).view(*ids.shape, self.embedding_dim)


def prepack_linears(model: nn.Module) -> int:
    """Prepack every linear that a kernel of its device supports, once; return how many these are.

    Afterwards short inputs in bfloat16 are multiplied with the codes themselves. Call it right before inference, on the
    device of inference. 4-bit codes are prepacked in place; narrower ones are replaced by a 4-bit copy. Streams of
    linears and embeddings are decoded to 8-bit codes, which are kept beside them. Raises UserError, naming the weight,
    for a stream that cannot be decoded.
    """
    count = 0
    for name, module in model.named_modules():
        try:
            if isinstance(module, PackedLinear):
                count += module.weight.prepack()
            elif isinstance(module, PackedEmbedding):
                module.weight.prepack_rows()
        except ValueError as error:
            part, _, what = str(error).partition(": ")
            raise UserError(f"packed model: {name}.weight.{part}", what, "fetch or pack the model again") from error
    return count


def plain_bytes(model: nn.Module) -> int:
    """Return the bytes that a model's packed weights would take as plain ones in their dtypes."""
    weights = [module for module in model.modules() if isinstance(module, PackedTensor)]
    return sum(weight.shape.numel() * weight.dtype.itemsize for weight in weights)
