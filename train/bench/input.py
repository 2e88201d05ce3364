"""Measure whether the input is faster than the step: batches made by one process, as one data worker does.

Four ways: from the corpus' own files; with the features kept; and, the corpus' clips joined to speeches of minutes in
AAC, as Europarl-ST has them, from speeches that are decoded once and from speeches that are decoded for each utterance.
Decoding once is counted in, as if the run had one epoch. Each is measured in wall time and in CPU time, which other
load on the machine affects less.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import soxr

from submission.runtime.audio import read_slice
from submission.runtime.loading import load_processor
from submission.system.recipe.training_options import FinetuneOptions
from submission.text.corpus import Utterance, read_corpus
from submission.text.segments import SAMPLE_RATE
from train.batches import Utterances, collate_targets, plan_batches, render_prompts
from train.bench.step import alone
from train.corpora.decoded_audio import DecodedAudio
from train.finetune import Task

SPEECH_SECONDS = 150
SPEECH_RATE = 44_100
SPEECHES = 4
"""Enough that two utterances in a row are seldom of the same one."""
FRAME = 1024
"""Samples that AAC encodes together."""


def _write_m4a(path: Path, samples: np.ndarray) -> None:
    """Write float32 [samples] at 16 kHz as AAC at 44.1 kHz."""
    samples = soxr.resample(samples, SAMPLE_RATE, SPEECH_RATE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=SPEECH_RATE)
        stream.layout = "mono"
        for begin in range(0, len(samples), FRAME):
            piece = np.ascontiguousarray(samples[None, begin : begin + FRAME])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate = SPEECH_RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def join_to_speeches(utterances: Sequence[Utterance], data: Path, folder: Path, count: int) -> Iterator[Utterance]:
    """Write so many m4a speeches of SPEECH_SECONDS out of utterances, again from the first where there are too few.

    Yields each utterance at its place there.
    """
    number = 0
    for speech in range(count):
        name, pieces, end = f"speech{speech}.m4a", [], 0
        while end < SPEECH_SECONDS * SAMPLE_RATE:
            u = utterances[number % len(utterances)]
            pieces.append(read_slice(data / u.audio, u.start, u.end))
            begin, end, number = end, end + len(pieces[-1]), number + 1
            yield replace(u, id=f"{u.id}/{number}", audio=name, start=begin, end=end, recording=name)
        _write_m4a(folder / name, np.concatenate(pieces))


class Rate(NamedTuple):
    """Utterances in a second."""

    wall: float
    cpu: float


def _rate(made: Utterances, options: FinetuneOptions, limit: int, prepare: Callable[[], None]) -> Rate:
    """Return the rate of the first batches of a run, at most `limit` utterances; prepare: counted in."""
    lengths = [u.end - u.start for u in made.utterances]
    plan = plan_batches(lengths, options.batch_size, 1, options.seed)[: max(1, limit // options.batch_size)]
    started, started_cpu = time.perf_counter(), time.process_time()
    prepare()
    for batch in plan:
        collate_targets([made[i] for i in batch], made.processor.tokenizer.pad_token_id)
    count = sum(map(len, plan))
    return Rate(count / (time.perf_counter() - started), count / (time.process_time() - started_cpu))


def _feed(base: Path, corpus: Path, data: Path, task: Task, options: FinetuneOptions, batches: int) -> dict[str, Rate]:
    """Return the rate of every way; meant for a process of its own."""
    processor, prompts = load_processor(base), render_prompts(task.prompt, task.languages)
    everything = read_corpus(corpus / "train.jsonl")
    few = everything[: batches * options.batch_size]

    def rate(
        utterances: Sequence[Utterance], audio: DecodedAudio, keep: bool, limit: int, prepare: bool = False
    ) -> Rate:
        made = Utterances(utterances, processor, audio, prompts, task.end_token, keep=keep)
        if keep:
            made.extract_all(lambda amount: None)
        decode = (lambda: audio.decode(0, 1, lambda: None, lambda amount: None)) if prepare else (lambda: None)
        return _rate(made, options, limit, decode)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = DecodedAudio(data, folder / "none")
        rates = {"from_files": rate(few, files, False, len(few)), "kept": rate(few, files, True, len(few))}
        random.Random(options.seed).shuffle(everything)
        spoken = list(join_to_speeches(everything, data, folder, SPEECHES))
        once = DecodedAudio(folder, folder / "decoded.f32", [u.stretch for u in spoken])
        rates["m4a"] = rate(spoken, once, False, len(spoken), prepare=True)
        rates["m4a_whole"] = rate(spoken, DecodedAudio(folder, folder / "none"), False, 3 * options.batch_size)
    return rates


def bench_input(
    base: Path,
    corpus: Path,
    data: Path,
    task: Task,
    options: FinetuneOptions,
    *,
    batches: int,
    consumed: Rate,
) -> dict[str, Any]:
    """Return the utterances/s of the input alone, in one process, and their ratio to what the step consumes.

    from_files: decode, features, tokens, padding, as a data worker does it for corpora too large to keep; kept: the
    work that is left where the features are kept; m4a: from speeches that are decoded once, that counted in;
    m4a_whole: from the same speeches, each decoded for each utterance. consumed: by our step, of `bench_step`.
    """
    rates = alone(_feed, base, corpus, data, task, options, batches)
    result: dict[str, Any] = {"batches": batches}
    for name, rate in rates.items():
        result[f"{name}_utterances_per_second"] = rate.wall
        result[f"{name}_over_consumed"] = rate.wall / consumed.wall
        result[f"{name}_utterances_per_cpu_second"] = rate.cpu
        result[f"{name}_over_consumed_in_cpu_time"] = rate.cpu / consumed.cpu
    return result
