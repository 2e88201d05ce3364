"""Linears and embeddings whose weight is dequantized from fixed codes and tuned numbers, with gradients to these.

A product dequantizes its weight in blocks of rows and keeps none of it: the backward pass dequantizes them again, so
that of the whole model no more than one block is in memory as floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from quantize.recovery.tuned_numbers import TunedNumbers
from submission.model.codecs.codec import TunableWeight
from submission.runtime.packed import LINEAR_ELEMENTS, PackedTensor, scaled

Dequantize = Callable[[Mapping[str, torch.Tensor], "slice | torch.Tensor"], torch.Tensor]


class TunedWeight(nn.Module):
    """A packed weight [rows, columns] of which the codes are fixed and the other numbers tuned."""

    def __init__(self, packed: PackedTensor) -> None:
        super().__init__()
        shape, parts = tuple(packed.shape), packed.parts
        tunable = packed.codec.tunable(parts, shape)
        if tunable is None:  # it stays as it is

            def decode(_: Mapping[str, torch.Tensor], rows: slice | torch.Tensor) -> torch.Tensor:
                return packed.codec.decode(parts, shape, torch.float32, rows)

            tunable = TunableWeight(scales=(), offsets=(), dequantize=decode)
        self.shape = packed.shape
        self.dequantize = tunable.dequantize
        self.numbers = nn.ModuleDict(
            {name: TunedNumbers(parts[name], "scale") for name in tunable.scales}
            | {name: TunedNumbers(parts[name], "offset") for name in tunable.offsets}
        )

    def values(self) -> dict[str, torch.Tensor]:
        """Return suffix -> numbers as they would be stored, float32, with gradients."""
        return {name: numbers() for name, numbers in self.numbers.items()}


class TunedLinear(nn.Module):
    """`nn.Linear` with a tuned weight."""

    def __init__(self, weight: TunedWeight, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = weight
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return inputs [..., in_features], float32, times the weight's transpose, plus bias."""
        values = self.weight.values()
        flat = inputs.reshape(-1, self.in_features)
        arguments = (flat, self.weight.dequantize, self.out_features, tuple(values), *values.values())
        outputs: torch.Tensor = _Product.apply(*arguments)  # type: ignore[no-untyped-call]
        outputs = outputs.view(*inputs.shape[:-1], self.out_features)
        return outputs if self.bias is None else outputs + self.bias


class TunedEmbedding(nn.Module):
    """`nn.Embedding` with a tuned weight, whose rows are multiplied by a number."""

    def __init__(self, weight: TunedWeight, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.num_embeddings, self.embedding_dim = weight.shape
        self.weight = weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows of ids, int [...], as float32 [..., embedding_dim]."""
        rows = self.weight.dequantize(self.weight.values(), ids.reshape(-1))
        return scaled(rows, self.scale).view(*ids.shape, self.embedding_dim)


class _Product(torch.autograd.Function):
    """inputs [n, columns] times the transpose of a weight that is dequantized where it is needed."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        dequantize: Dequantize,
        rows: int,
        names: tuple[str, ...],
        *numbers: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs, *numbers)
        ctx.dequantize, ctx.rows, ctx.names = dequantize, rows, names
        values = dict(zip(names, numbers, strict=True))
        return torch.cat([F.linear(inputs, dequantize(values, block)) for block in _blocks(rows, inputs)], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        inputs, *numbers = ctx.saved_tensors
        to_inputs = torch.zeros_like(inputs) if ctx.needs_input_grad[0] else None
        to_numbers = [torch.zeros_like(number) for number in numbers]
        for block in _blocks(ctx.rows, inputs):
            leaves = [number.detach().requires_grad_() for number in numbers]
            with torch.enable_grad():
                weight = ctx.dequantize(dict(zip(ctx.names, leaves, strict=True)), block)
            part = gradient[:, block]
            if to_inputs is not None:
                to_inputs.addmm_(part, weight.detach())
            if leaves:
                found = torch.autograd.grad(weight, leaves, part.T @ inputs)
                for total, added in zip(to_numbers, found, strict=True):
                    total += added
        return to_inputs, None, None, None, *to_numbers


def _blocks(rows: int, inputs: torch.Tensor) -> Iterator[slice]:
    """Yield the rows of a weight in blocks of about LINEAR_ELEMENTS weights."""
    step = max(1, LINEAR_ELEMENTS // inputs.shape[1])
    for begin in range(0, rows, step):
        yield slice(begin, min(begin + step, rows))
