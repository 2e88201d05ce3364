"""Measure decoding with one size of batches in a process of its own: loading, a warm-up of one segment, and some runs.

A process of its own has a peak of memory of its own, and where the system ends it for want of memory the others go on.
Libraries are imported within the functions: their import is part of loading.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from submission.benchmarking import peak_of_this_process
from submission.bundle.efficiency import BatchEfficiency, UnfitBatch
from submission.system.recipe.decoding_options import DecodeOptions
from submission.text.segments import Segment

if TYPE_CHECKING:
    import torch

    from evaluate.decoding.audio_batches import NamedSegment
    from evaluate.decoding.generation import Translator

DECIMALS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingWork:
    """What every size of batches decodes."""

    model: Path
    device: str
    options: DecodeOptions
    prompt: str
    end_token: str
    segments: tuple[Segment, ...]
    recordings: dict[str, Path]
    """Recording -> a file of which pieces can be read."""
    runs: int


def measure_batch(work: DecodingWork, batch_size: int) -> BatchEfficiency | UnfitBatch:
    """Return what one size of batches takes; a batch has as many segments, whatever the recipe's limit of seconds."""
    options = replace(work.options, batch_size=batch_size, batch_seconds=0.0)
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_measure, replace(work, options=options)).result()
    except BrokenProcessPool:  # the system ended it
        return UnfitBatch(batch_size=batch_size, memory="machine")


def _measure(work: DecodingWork) -> BatchEfficiency | UnfitBatch:
    started = time.perf_counter()
    from evaluate.decoding.batching import form_batches, is_out_of_memory
    from evaluate.decoding.generation import translator
    from evaluate.decoding.model_loading import load_on
    from submission.text.segments import segment_ids

    names = segment_ids(work.segments)
    batches = [[(names[i], work.segments[i]) for i in batch] for batch in form_batches(work.segments, work.options)]
    size = work.options.batch_size
    try:
        model, processor = load_on(work.model, work.options.dtype, work.device)
        device = model.device
        finish = _finisher(device)
        load_seconds = _elapsed(started, finish)
        with translator(model, processor, work.prompt, work.options, work.end_token) as lent:
            started = time.perf_counter()
            _decode(lent, [batches[0][:1]], work)  # the longest segment
            warm_up_seconds = _elapsed(started, finish)
            seconds, texts = [], []
            for _ in range(work.runs):
                started = time.perf_counter()
                texts = _decode(lent, batches, work)
                seconds.append(_elapsed(started, finish))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return UnfitBatch(batch_size=size, memory="GPU" if "CUDA" in str(error) else "machine")
    return BatchEfficiency(
        batch_size=size,
        rows=max(map(len, batches)),
        load_seconds=load_seconds,
        warm_up_seconds=warm_up_seconds,
        seconds=tuple(seconds),
        tokens=sum(1 + len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts),
        peak_bytes=peak_of_this_process(),
        device_peak_bytes=_device_peak(device),
    )


def _decode(lent: Translator, batches: Sequence[Sequence[NamedSegment]], work: DecodingWork) -> list[str]:
    """Return the texts of batches, decoded as `evaluate decode` does it."""
    from evaluate.decoding.audio_batches import read_batches
    from evaluate.decoding.decode import decode_batch

    read = read_batches(lent.processor, batches, work.recordings)
    done = [decode_batch(lent, batch, work.options.fallbacks) for batch in read]
    return [hypothesis.text for hypotheses in done for hypothesis in hypotheses]


def _elapsed(started: float, finish: Callable[[], None]) -> float:
    finish()
    return round(time.perf_counter() - started, DECIMALS)


def _finisher(device: torch.device) -> Callable[[], None]:
    """Return what waits until a device has done all that it was given."""
    import torch

    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)


def _device_peak(device: torch.device) -> int | None:
    import torch

    return int(torch.cuda.max_memory_reserved(device)) if device.type == "cuda" else None
