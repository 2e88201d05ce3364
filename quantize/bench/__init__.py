"""Speed and memory of this room beside the named peers, each pair in one run: ratios hold anywhere, seconds here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LOADED_LAYERS = 4
"""Layers of the model whose loading is measured: enough for every kind of tensor, on any disk."""


def _solver(work: Path) -> dict[str, Any]:
    from quantize.bench.solver import bench_solver

    figures = bench_solver()
    text = (
        f"{figures['shape'][0]} x {figures['shape'][1]}, {figures['bits']} bits in groups of {figures['group_size']}: "
        f"{figures['seconds']['ours']:.3f} s, the hqq library {figures['seconds']['hqq']:.1f} s: "
        f"{figures['ratio']:.0f} times as fast (bar: 20); {figures['differing_codes']:.1e} of the codes differ"
    )
    return figures | {"passed": figures["ratio"] >= 20, "text": text}


def _sweep(work: Path) -> dict[str, Any]:
    from quantize.bench.sweep import bench_sweep

    figures = bench_sweep()
    text = (
        f"{figures['layers']} layers, {figures['utterances']} utterances: {figures['seconds']['ours']:.1f} s, layer by "
        f"layer {figures['seconds']['naive']:.1f} s: {figures['ratio']:.2f} of the time (bar: 0.6)"
    )
    return figures | {"passed": figures["ratio"] <= 0.6, "text": text}


def _loading(work: Path) -> dict[str, Any]:
    from quantize.bench.loading import bench_loading, loading_text
    from quantize.rehearsal import rehearse

    rehearse(work, layers=LOADED_LAYERS, keep=True)
    figures = bench_loading(work / "checkpoint", work / "packed")
    met = all(figures[state]["met"][name] for state in ("warm", "cold") for name in figures["bars"])
    return figures | {"passed": met, "text": loading_text(figures)}


BENCHES = {"solver": _solver, "sweep": _sweep, "loading": _loading}
