"""Measure tokens a second and memory at full size on a GPU: a packed model and a plain one of the same shape.

Weights are random; those of the plain model are never written to disk. A rate is that of steps alone: the time of a
long generation less that of a single token, which is the prompt's.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from evaluate.bench.full_size import random_prompt
from submission.model.checkpoint import read_checkpoint
from submission.model.sizes import GIB
from submission.runtime.families import runtime_of
from submission.runtime.families.family import generate
from submission.runtime.loading import load_weights
from submission.runtime.packed import prepack_linears

RATE_BARS = {1: 1.5, 32: 0.9}
"""Tokens a second of the packed model beside the plain one's, by batch."""
MEMORY_BAR = 0.4
"""Most memory of the packed model, as a share of the plain one's."""
DTYPE = torch.bfloat16


class Measured(TypedDict):
    """What was measured of one model."""

    bytes: int | None
    tokens_per_second: dict[str, float]
    """By batch."""


def bench_generation(
    folder: Path,
    device: str,
    *,
    batches: Sequence[int] = tuple(RATE_BARS),
    prompt_tokens: int = 128,
    new_tokens: int = 64,
    runs: int = 3,
) -> dict[str, Any]:
    """Return tokens a second by batch, and bytes, of a packed model and of a plain one of its shape on a device.

    folder: the packed model; no tokenizer is needed. Bytes are None where the device does not count them: a GPU's
    `allocated` once the model is loaded. First all of the one, then all of the other, for both may not fit together.
    """
    measured: dict[str, Measured] = {}
    for name, make in {"plain": _plain, "packed": _packed}.items():
        model = make(folder, device)
        measured[name] = {
            "bytes": torch.cuda.memory_allocated(device) if torch.device(device).type == "cuda" else None,
            "tokens_per_second": {
                str(batch): round(_rate(model, batch, prompt_tokens, new_tokens, runs), 2) for batch in batches
            },
        }
        del model
        gc.collect()
        torch.cuda.empty_cache()
    plain, packed = measured["plain"], measured["packed"]
    ratios = {
        batch: round(packed["tokens_per_second"][batch] / rate, 3) for batch, rate in plain["tokens_per_second"].items()
    }
    share = round(packed["bytes"] / plain["bytes"], 3) if packed["bytes"] and plain["bytes"] else None
    passed = {f"batch {batch}": ratios[str(batch)] >= bar for batch, bar in RATE_BARS.items() if batch in batches}
    if share is not None:
        passed["memory"] = share <= MEMORY_BAR
    named = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    return {"device": named, **measured, "ratios": ratios, "memory_share": share, "passed_bars": passed}


def _plain(folder: Path, device: str) -> PreTrainedModel:
    """Return the plain model of a packed one's shape, of random weights."""
    checkpoint = read_checkpoint(folder)
    model_class = runtime_of(checkpoint.config).model_class
    assert model_class.config_class is not None  # as every family's class has one
    config = model_class.config_class.from_dict(
        {k: v for k, v in checkpoint.config.items() if k != "quantization_config"}
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(DTYPE)
    try:
        with torch.device(device), no_init_weights():
            model = model_class(config)
    finally:
        torch.set_default_dtype(default)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
    return model.eval()


def _packed(folder: Path, device: str) -> PreTrainedModel:
    model = load_weights(folder, DTYPE, device)
    prepack_linears(model)
    return model


def _rate(model: PreTrainedModel, batch: int, prompt_tokens: int, new_tokens: int, runs: int) -> float:
    """Return tokens a second of the steps after the first, over all rows: the median of some runs after one more."""
    prompt = random_prompt(model.config.to_dict(), batch, prompt_tokens).to(model.device)
    rates = []
    for _ in range(1 + runs):
        short, long = _seconds(model, prompt, 1), _seconds(model, prompt, new_tokens)
        rates.append(batch * (new_tokens - 1) / max(long - short, 1e-9))
    return statistics.median(rates[1:])


@torch.inference_mode()
def _seconds(model: PreTrainedModel, prompt: torch.Tensor, new_tokens: int) -> float:
    settings = GenerationConfig(do_sample=False, max_new_tokens=new_tokens, min_new_tokens=new_tokens, pad_token_id=0)
    _finish(model)
    started = time.perf_counter()
    generate(model, input_ids=prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)
    _finish(model)
    return time.perf_counter() - started


def _finish(model: PreTrainedModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def generation_text(record: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = [record["device"]]
    for batch, ratio in record["ratios"].items():
        plain, packed = (record[name]["tokens_per_second"][batch] for name in ("plain", "packed"))
        bar = RATE_BARS.get(int(batch))
        wanted = f" (bar: {bar:g})" if bar else ""
        lines.append(f"batch {batch:>2}: bfloat16 {plain:,.1f} tokens/s, packed {packed:,.1f}: {ratio:.2f}{wanted}")
    if record["memory_share"] is not None:
        plain, packed = (record[name]["bytes"] / GIB for name in ("plain", "packed"))
        lines.append(
            f"memory: bfloat16 {plain:.2f} GiB, packed {packed:.2f}: {record['memory_share']:.2f} (bar: {MEMORY_BAR:g})"
        )
    return "\n".join(lines)
