"""Time decoding with a packed model against decoding with the checkpoint that it was packed from."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from evaluate.decoding.audio_batches import make_segment_audio
from evaluate.decoding.generation import translator
from submission.runtime.loading import load_for_inference, load_model
from submission.system.recipe.decoding_options import DecodeOptions

BAR = 1.0
"""How many times as fast as the checkpoint in bfloat16 the packed model must be."""

NEW_TOKENS = 32


def bench_decoding(
    plain: Path,
    packed: Path,
    waveforms: list[Any],
    prompt: str,
    options: DecodeOptions,
    end_token: str,
    *,
    runs: int = 15,
) -> dict[str, Any]:
    """Return the seconds that a batch takes, by dtype, and how many times as fast the packed model is.

    waveforms: float32 [samples] each, decoded as one batch by both, into NEW_TOKENS tokens a row, so that both take the
    same steps; only their weights differ. Both run in turn; seconds are medians, the ratio that of neighbouring runs.
    """
    record: dict[str, Any] = {
        "batch_size": len(waveforms),
        "new_tokens": NEW_TOKENS,
        "runs": runs,
        "threads": torch.get_num_threads(),
        "bar": BAR,
    }
    for dtype in ("bfloat16", "float32"):
        works = {
            "plain": _decoding(load_model(plain, dtype), waveforms, prompt, options, end_token),
            "packed": _decoding(load_for_inference(packed, dtype), waveforms, prompt, options, end_token),
        }
        taken: dict[str, list[float]] = {name: [] for name in works}
        for run in range(1 + runs):
            for name, work in works.items():
                started = time.perf_counter()
                work()
                if run:
                    taken[name].append(time.perf_counter() - started)
        ratio = statistics.median(a / b for a, b in zip(taken["plain"], taken["packed"], strict=True))
        medians = {f"{name}_seconds": round(statistics.median(times), 4) for name, times in taken.items()}
        record[dtype] = medians | {"ratio": round(ratio, 3)}
    return record


def _decoding(
    loaded: Any, waveforms: list[Any], prompt: str, options: DecodeOptions, end_token: str
) -> Callable[[], None]:
    """Return what decodes the waveforms as one batch with a loaded (model, processor)."""
    model, processor = loaded
    named = [(str(number), waveform) for number, waveform in enumerate(waveforms)]

    def work() -> None:
        with translator(model, processor, prompt, options, end_token) as prompted:
            audios = [make_segment_audio(processor, name, waveform) for name, waveform in named]
            prompted.generate(audios, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)

    return work


def decoding_text(record: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = [
        f"{record['batch_size']} segments a batch, {record['new_tokens']} tokens each, {record['threads']} threads, "
        f"medians of {record['runs']}"
    ]
    for dtype in ("bfloat16", "float32"):
        found = record[dtype]
        bar = f" (bar: {record['bar']:g})" if dtype == "bfloat16" else ""
        lines.append(
            f"{dtype}: checkpoint {found['plain_seconds']:.3f} s, packed {found['packed_seconds']:.3f} s: "
            f"{found['ratio']:.2f} times as fast{bar}"
        )
    return "\n".join(lines)
