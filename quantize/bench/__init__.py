"""Benchmarks of quantization: speed, memory and quality, beside other software in the same run where there is any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LOADED_LAYERS = 4
"""Layers of the model whose loading is measured: every kind of tensor occurs, and it fits on any disk."""
SWEPT_LAYERS = 2
"""Layers of full width on which the steps that run a model are measured on a GPU."""
CAMPAIGN, RECIPE = "iwslt26", "contrastive"


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
    from quantize.rehearsal.packing import rehearse

    rehearse(work, layers=LOADED_LAYERS, keep=True)
    figures = bench_loading(work / "checkpoint", work / "packed")
    passed = all(all(figures[state]["passed"].values()) for state in ("warm", "cold"))
    return figures | {"passed": passed, "text": loading_text(figures)}


def _entropy(work: Path) -> dict[str, Any]:
    from quantize.bench.entropy import bench_entropy, entropy_text

    figures = {name: bench_entropy(trellis=name == "trellis") for name in ("free", "trellis")}
    passed = all(passed for each in figures.values() for passed in each["passed_bars"].values())
    return figures | {"passed": passed, "text": entropy_text(figures)}


def _layers(work: Path) -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {"passed": None, "text": "layers of full width need a CUDA device, and there is none here"}
    from quantize.bench.gpu_layers import bench_layers, layers_text
    from submission.model.families import shipped_config
    from submission.system.campaign import read_campaign
    from submission.system.recipe.recipe_files import read_recipe

    config = shipped_config(read_campaign(CAMPAIGN).model.name)
    assert config is not None, "the campaign's configuration ships"
    options = read_recipe(RECIPE, CAMPAIGN).quantize
    figures = bench_layers(config, options, torch.device("cuda"), layers=SWEPT_LAYERS, utterances=8)
    return figures | {"passed": True, "text": layers_text(figures)}


BENCHES = {
    "solver": _solver,
    "sweep": _sweep,
    "loading": _loading,
    "entropy": _entropy,
    "layers": _layers,
}
