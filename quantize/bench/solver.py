"""Compare a solver's speed and results with the hqq library's: ratios of alternating runs in one process."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from quantize.solvers.hqq_library import solve_hqq_library
from submission.model.codecs.affine import AffineSolution
from submission.model.solvers import SOLVERS


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
    solvers = {"ours": SOLVERS[solver].function("affine"), "hqq": solve_hqq_library}
    seconds: dict[str, list[float]] = {name: [] for name in solvers}
    solutions: dict[str, AffineSolution] = {name: work(weight[:1], bits, group_size) for name, work in solvers.items()}
    for _ in range(runs):
        for name, work in solvers.items():
            started = time.perf_counter()
            solutions[name] = work(weight, bits, group_size)
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


def _relative_error(weight: torch.Tensor, solution: AffineSolution, group_size: int) -> float:
    codes = solution.codes.view(*solution.scale.shape, group_size)
    restored = (codes - solution.zero.unsqueeze(2)) * solution.scale.unsqueeze(2)
    error = (restored.view(weight.shape) - weight).square().sum(dtype=torch.float64)
    return float(error / weight.square().sum(dtype=torch.float64))
