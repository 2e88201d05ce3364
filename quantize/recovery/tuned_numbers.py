"""Stored numbers while they are tuned: the forward pass sees them as they would be stored, rounded to their dtype.

Rounding passes gradients as if it were none (straight-through estimator, Bengio et al. 2013). What is optimized is a
relative change, so that one learning rate fits numbers of any magnitude: a factor is its start times the exponential of
the change, and keeps its sign; a summand is its start plus the change times the root mean square of its tensor.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn


class TunedNumbers(nn.Module):
    """A tensor of numbers that are tuned; without a change they are exactly those that it starts from."""

    def __init__(self, start: torch.Tensor, kind: Literal["scale", "offset"]) -> None:
        """start: as it is stored, float16 or bfloat16 or float32; kind: whether the numbers are factors or summands."""
        super().__init__()
        self.kind = kind
        self.start: torch.Tensor
        self.register_buffer("start", start)
        self.unit = float(start.float().square().mean().sqrt())
        self.change = nn.Parameter(torch.zeros(start.shape, dtype=torch.float32, device=start.device))

    def stored(self) -> torch.Tensor:
        """Return the numbers in the dtype of the start; where one would be zero or infinite there, the start's."""
        rounded = self._exact().detach().to(self.start.dtype)
        lost = ~torch.isfinite(rounded) | (rounded == 0) if self.kind == "scale" else ~torch.isfinite(rounded)
        return torch.where(lost, self.start, rounded)

    def forward(self) -> torch.Tensor:
        """Return `stored()` in float32, with the gradient of what was not rounded."""
        exact = self._exact()
        return exact + (self.stored().float() - exact).detach()

    def _exact(self) -> torch.Tensor:
        start = self.start.float()
        return start * self.change.exp() if self.kind == "scale" else start + self.unit * self.change
