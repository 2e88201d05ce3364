"""Measurements of this room beside the libraries that it replaces: ratios of alternating runs in one process."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from quantize.solvers.hqq import Solution, solve


def bench_solver(
    rows: int = 4096,
    columns: int = 11008,
    *,
    solver: str = "hqq",
    bits: int = 4,
    group_size: int = 128,
    runs: int = 3,
    seed: int = 0,
) -> dict[str, Any]:
    """Return speed and results of the named solver ("ours") and of `hqq.core.quantize.Quantizer.quantize` ("hqq").

    Both get the same Gaussian weights, float32 on the CPU, and run in turn after a small call each, which compiles.
    Seconds and the ratio of neighbouring runs are medians. Relative squared errors are those of the solutions in
    float32, before scale and zero-point are stored.
    """
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02
    solvers = {
        "ours": lambda piece: solve(solver, piece, bits, group_size),
        "hqq": lambda piece: solve_with_library(piece, bits, group_size),
    }
    seconds: dict[str, list[float]] = {name: [] for name in solvers}
    solutions: dict[str, Solution] = {name: work(weight[:1]) for name, work in solvers.items()}
    for _ in range(runs):
        for name, work in solvers.items():
            started = time.perf_counter()
            solutions[name] = work(weight)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "solver": solver,
        "shape": [rows, columns],
        "bits": bits,
        "group_size": group_size,
        "runs": runs,
        "threads": torch.get_num_threads(),
        "seconds": medians,
        "parameters_per_second": {name: weight.numel() / median for name, median in medians.items()},
        "ratio": statistics.median(b / a for a, b in zip(seconds["ours"], seconds["hqq"], strict=True)),
        "differing_codes": float((solutions["ours"].codes != solutions["hqq"].codes).float().mean()),
        "relative_mse": {name: _relative_error(weight, solutions[name], group_size) for name in solvers},
    }


def solve_with_library(weight: torch.Tensor, bits: int, group_size: int, *, round_zero: bool = False) -> Solution:
    """Return the hqq library's solution for weight, float32 [rows, columns], whose rows group_size divides."""
    from hqq.core.quantize import Quantizer

    # Left to itself hqq goes to a GPU and computes in float16.
    codes, meta = Quantizer.quantize(
        weight, nbits=bits, group_size=group_size, axis=1, round_zero=round_zero, bitpack=False, device="cpu"
    )
    scale, zero = (meta[name].view(len(weight), -1) for name in ("scale", "zero"))
    return Solution(codes=codes.to(torch.uint8).view(weight.shape), scale=scale, zero=zero)


def _relative_error(weight: torch.Tensor, solution: Solution, group_size: int) -> float:
    codes = solution.codes.view(*solution.scale.shape, group_size)
    restored = (codes - solution.zero.unsqueeze(2)) * solution.scale.unsqueeze(2)
    error = (restored.view(weight.shape) - weight).square().sum(dtype=torch.float64)
    return float(error / weight.square().sum(dtype=torch.float64))
