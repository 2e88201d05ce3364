"""A codec with a budget and its solver, small enough to read: error feedback, its codes compressed by zlib."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch

from quantize.solvers.feedback import Moments, factorize
from quantize.solvers.fitting import solve_within
from submission.model.codecs import CODECS
from submission.model.codecs.codec import Codec, Parts
from submission.model.solvers import SOLVERS, Solver


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgeted(Codec):
    """Integer codes with a scale per row and per column."""

    interface: ClassVar[str] = "budgeted"

    kind: Literal["budgeted"] = "budgeted"
    budget_bytes: int | None = None

    @property
    def name(self) -> str:
        return "budgeted" + ("" if self.budget_bytes is None else f"b{self.budget_bytes}")

    @property
    def summary(self) -> str:
        return "compressed codes"

    def technique(self, solver: str | None) -> str:
        return f"{solver} with compressed codes"

    def parts(self, shape: tuple[int, ...]) -> Parts:
        stream = (self.budget_bytes or 0) - 2 * sum(shape)
        if stream < 16:
            raise ValueError(f"{self.budget_bytes} bytes do not hold the scales; allot more bytes")
        return {"row": ("F16", shape[:1]), "column": ("F16", shape[1:]), "stream": ("U8", (stream,))}

    def steps(self) -> dict[str, Codec]:
        return {}

    def encode(self, weight: torch.Tensor, solve: Any) -> dict[str, torch.Tensor]:
        (stream_bytes,) = self.parts(tuple(weight.shape))["stream"][1]
        solution = solve(weight, lambda codes, row, column: len(compressed(codes)), stream_bytes)
        padded = bytearray(compressed(solution.codes).ljust(stream_bytes, b"\0"))
        stream = torch.frombuffer(padded, dtype=torch.uint8)
        return {"row": solution.row_scale, "column": solution.column_scale, "stream": stream}

    def decode(
        self,
        parts: Mapping[str, torch.Tensor],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        rows: slice | torch.Tensor | None = None,
    ) -> torch.Tensor:
        data = zlib.decompressobj().decompress(parts["stream"].numpy().tobytes(), 2 * shape[0] * shape[1])
        planes = np.frombuffer(data, dtype=np.uint8).reshape(2, *shape).astype(np.uint16)
        codes = torch.from_numpy((planes[0] | planes[1] << 8).astype(np.int16).astype(np.float32))
        weight = codes * parts["row"].float()[:, None] * parts["column"].float()
        return weight[slice(None) if rows is None else rows].to(dtype)

    def check(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> None:
        return None


def compressed(codes: torch.Tensor) -> bytes:
    """Return codes, int16, as zlib compresses their low bytes and then their high bytes."""
    words = codes.contiguous().numpy().view(np.uint16)
    return zlib.compress(np.stack([words & 255, words >> 8]).astype(np.uint8).tobytes(), 9)


def solve_budgeted(weight: torch.Tensor, size_of: Any, budget_bytes: int, *, moments: Moments) -> Any:
    """Return the solution whose compressed codes fit, weighed by the moments of the weight."""
    factor = factorize(moments.read_second_moment(), weight.shape[1])
    found = solve_within(weight.float(), factor, moments.importance, size_of, budget_bytes, 0.01, tolerance=0.01)
    return found.solution


def register_budgeted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let recipes name the codec `budgeted` and the solver `feedback-zlib` until the test ends."""
    monkeypatch.setitem(CODECS, "budgeted", Budgeted)
    function = "tests.support.budgeted:solve_budgeted"
    solver = Solver(technique="Error feedback", functions={"budgeted": function}, side_data=("moments",))
    monkeypatch.setitem(SOLVERS, "feedback-zlib", solver)
