"""Measure the memory of a packed model at full size, loaded and generating, in a process of its own.

Counted is resident memory, mapped pages of the file included, above that after the imports.
"""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from submission.benchmarking import peak_of_this_process, resident_bytes
from submission.model.sizes import GIB

BAR = 6 * GIB
PROMPT_TOKENS = 256
NEW_TOKENS = 4


def bench_memory(folder: Path) -> dict[str, Any]:
    """Return the bytes that a packed model takes once loaded, once its codes are prepacked, and after generating.

    folder: a packed model; a tokenizer is not needed. One prompt of random tokens is read, longer than the kernels
    take, and a few are generated, so that every weight of the decoder has been used both ways; that runs in bfloat16
    on the CPU. `resident_bytes` is the most of the three, `peak_bytes` what there ever was, temporaries included.
    Raises UserError where memory cannot be read.
    """
    resident_bytes()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(_work, folder).result()
    model_bytes = sum(path.stat().st_size for path in folder.iterdir())
    return {"model_bytes": model_bytes, "bar": BAR, "resident_bytes": max(found["resident"].values()), **found}


def _work(folder: Path) -> dict[str, Any]:
    import torch
    from transformers import GenerationConfig

    from evaluate.bench.full_size import random_prompt
    from submission.runtime.families.family import generate
    from submission.runtime.loading import load_weights
    from submission.runtime.packed import prepack_linears

    before, started = resident_bytes(), time.perf_counter()
    resident, seconds = {}, {}

    def note(name: str) -> None:
        resident[name] = resident_bytes() - before
        seconds[name] = round(time.perf_counter() - started, 1)

    model = load_weights(folder, torch.bfloat16)
    note("loaded")
    prepacked = prepack_linears(model)
    note("prepacked")
    settings = GenerationConfig(do_sample=False, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, pad_token_id=0)
    with torch.inference_mode():
        prompt = random_prompt(model.config.to_dict(), 1, PROMPT_TOKENS)
        generate(model, input_ids=prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)
    note("generated")
    return {
        "prepacked": prepacked,
        "resident": resident,
        "seconds": seconds,
        "peak_bytes": peak_of_this_process() - before,
    }


def memory_text(record: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = [f"a packed model of {record['model_bytes'] / GIB:.2f} GiB, {record['prepacked']} linears by a kernel"]
    lines += [
        f"{name:<10}{resident / GIB:5.2f} GiB resident after {record['seconds'][name]:.1f} s"
        for name, resident in record["resident"].items()
    ]
    peak, most = record["peak_bytes"] / GIB, record["resident_bytes"] / GIB
    return "\n".join([*lines, f"most       {most:5.2f} GiB (bar: {record['bar'] / GIB:g}); peak {peak:.2f} GiB"])
