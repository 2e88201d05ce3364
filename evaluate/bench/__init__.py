"""Speed and memory of packed models against plain ones, each pair in one run, so that ratios carry over."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submission.benchmarking import Benches
from submission.store.store import Store
from submission.system.data_folder import OPEN_FOLDER
from submission.system.system import System


def _step(work: Path) -> dict[str, Any]:
    from evaluate.bench.step import bench_step, step_text

    figures = bench_step()
    passed = all(part["passed"] for found in figures["kinds"].values() for part in found.values())
    return figures | {"passed": passed, "text": step_text(figures)}


def _decode(system: System, store: Store, work: Path) -> dict[str, Any]:
    from evaluate.bench.decoding import bench_decoding, decoding_text
    from evaluate.decoding.batching import form_batches
    from evaluate.scoring.references import gold_segments
    from submission.runtime.audio import read_slice
    from submission.runtime.prompt import render_prompt

    plain = store.need(system.stage("merge"))
    packed = store.need(system.model_stage()) / "model"
    segments, recordings = gold_segments(system.data_path(store) / OPEN_FOLDER)
    batch = [segments[index] for index in form_batches(segments, system.recipe.decode)[0]]
    waveforms = [
        read_slice(recordings[segment.recording], segment.start, segment.end, segment.channel) for segment in batch
    ]
    prompt = render_prompt(system.campaign.prompt, system.campaign.pairs[0].target_language)
    end_token = system.campaign.model.end_token
    figures = bench_decoding(plain, packed, waveforms, prompt, system.recipe.decode, end_token)
    return figures | {"passed": figures["bfloat16"]["ratio"] >= figures["bar"], "text": decoding_text(figures)}


def _memory(work: Path) -> dict[str, Any]:
    from evaluate.bench.full_size import write_random_model
    from evaluate.bench.memory import bench_memory, memory_text

    figures = bench_memory(write_random_model(work / "full-size"))
    return figures | {"passed": figures["resident_bytes"] < figures["bar"], "text": memory_text(figures)}


def _gpu(work: Path) -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {"passed": None, "text": "tokens/s and memory at full size need a CUDA device, and there is none here"}
    from evaluate.bench.full_size import write_random_model
    from evaluate.bench.generation import bench_generation, generation_text

    figures = bench_generation(write_random_model(work / "full-size"), "cuda")
    return figures | {"passed": all(figures["passed_bars"].values()), "text": generation_text(figures)}


def _kernels(work: Path) -> dict[str, Any]:
    from evaluate.bench.kernel_proofs import kernel_proofs, proofs_text

    figures = kernel_proofs()
    return figures | {"passed": all(figures["proved"].values()), "text": proofs_text(figures)}


def benches(system: System, store: Store, only: Sequence[str] = ()) -> Benches:
    """Return the benchmarks; `decode` runs the system's packed model and its checkpoint.

    only: those that will run. Raises UserError, before anything is measured, where it needs what is not built.
    """
    if not only or "decode" in only:
        store.need(system.stage("merge"))
        store.need(system.model_stage())
    decode = functools.partial(_decode, system, store)
    return {"step": _step, "decode": decode, "memory": _memory, "kernels": _kernels, "gpu": _gpu}
