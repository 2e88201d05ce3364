"""Compare loading a packed model with loading its checkpoint: seconds and memory, each run in a separate process.

The checkpoint is loaded by stock `from_pretrained`, the packed model by `load_weights`, which decoding uses. Both map
safetensors files into memory and return before a weight is read. So a run ends when every byte of every weight has been
read once, which is what the first batch would wait for, and memory is counted then: what is resident, mapped pages
included, above what the imports take. Runs alternate.

Warm: the files are in the page cache. Then much of the time is Python's, for each tensor of the model, of which a
packed one has about twice as many. Cold: the files have to come from the disk, and time goes with their bytes.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submission.benchmarking import describe_machine, resident_bytes
from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint, weight_files
from submission.model.families import tensors

if TYPE_CHECKING:
    import torch

MOST_TIME = {"warm": 0.35, "cold": 0.5}
MOST_MEMORY = 0.35
READ_BYTES = 1 << 24


def bench_loading(plain: Path, packed: Path, *, runs: int = 3, cold_runs: int = 1) -> dict[str, Any]:
    """Return seconds and bytes of loading a checkpoint and its packed model in bfloat16, and their ratios.

    warm and cold have medians by folder and, of the seconds, median ratios of neighbouring runs; `mapped_seconds` is
    how long loading by itself took. With few layers embedding and head are most of both, and what loading
    costs without any weight weighs more: the ratios of a shrunk model are not those of the whole.
    Raises UserError for folders that are no such pair.
    """
    resident_bytes()  # where memory cannot be read, nothing is measured
    folders = {"plain": plain, "packed": packed}
    checkpoints = {name: read_checkpoint(folder) for name, folder in folders.items()}
    if checkpoints["plain"].codecs or not checkpoints["packed"].codecs:
        wrong = plain if checkpoints["plain"].codecs else packed
        raise UserError(str(wrong), "is the other kind of model", "name the checkpoint first, the packed model second")
    for folder in folders.values():
        _read_once(folder)
    record: dict[str, Any] = {
        "layers": len({spec.layer for spec in tensors(checkpoints["plain"].config)} - {None}),
        "files_bytes": {name: sum(p.stat().st_size for p in weight_files(folder)) for name, folder in folders.items()},
        "warm": _compare(folders, runs, cold=False),
        "cold": _compare(folders, cold_runs, cold=True),
        "machine": describe_machine(),
    }
    for state, most_time in MOST_TIME.items():
        bars = record[state]["bars"] = {"seconds": most_time, "resident_bytes": MOST_MEMORY}
        ratios = record[state]["ratios"]
        record[state]["passed"] = {name: ratios[name] <= bar for name, bar in bars.items()}
    return record


def _compare(folders: dict[str, Path], runs: int, *, cold: bool) -> dict[str, Any]:
    """Return medians by folder and ratios of the packed model to the checkpoint, of alternating runs."""
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in folders}
    for _ in range(runs):
        for name, folder in folders.items():
            if cold:
                _forget(folder)
            measured[name].append(_load_apart(folder))
    pairs = list(zip(measured["packed"], measured["plain"], strict=True))
    medians = {name: {key: statistics.median(run[key] for run in of) for key in of[0]} for name, of in measured.items()}
    ratios = {key: round(statistics.median(a[key] / b[key] for a, b in pairs), 3) for key in medians["plain"]}
    return {"runs": runs, **medians, "ratios": ratios}


def _read_once(folder: Path) -> None:
    """Bring a folder's weights into the page cache."""
    buffer = bytearray(READ_BYTES)
    for path in weight_files(folder):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _forget(folder: Path) -> None:
    """Take a folder's weights out of the page cache (Linux), written out before."""
    for path in weight_files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _load_apart(folder: Path) -> dict[str, float]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_load, folder).result()


def _load(folder: Path) -> dict[str, float]:
    """Load a model and read every weight; return seconds, and the bytes that became resident.

    Seconds are of the clock and of this process's processor time, which a busy machine stretches less.
    """
    import torch
    from transformers.utils import logging

    from submission.runtime.families import runtime_of
    from submission.runtime.loading import load_weights

    logging.disable_progress_bar()
    checkpoint = read_checkpoint(folder)
    model_class = runtime_of(checkpoint.config).model_class
    before = resident_bytes()
    started, worked = time.perf_counter(), time.process_time()
    if checkpoint.codecs:
        model = load_weights(folder, torch.bfloat16)
    else:
        model = model_class.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    mapped = time.perf_counter() - started
    for tensor in model.state_dict().values():
        _read(tensor)
    return {
        "mapped_seconds": round(mapped, 4),
        "seconds": round(time.perf_counter() - started, 4),
        "processor_seconds": round(time.process_time() - worked, 4),
        "resident_bytes": resident_bytes() - before,
    }


def _read(tensor: torch.Tensor) -> None:
    """Read every byte of a tensor, in place and at the speed of memory."""
    import torch

    data = tensor.detach().view(-1).view(torch.uint8)
    whole = data.numel() // 8 * 8
    if data.data_ptr() % 8 == 0 and whole:
        data[:whole].view(torch.int64).amax()
    else:
        data.amax()


def loading_text(record: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = [f"{record['layers']} layers; both read every weight in bfloat16, each run in a process of its own"]
    for state, where in (("warm", "files in the page cache"), ("cold", "files on the disk only")):
        part = record[state]
        lines.append(f"{state}: {where}, medians of {part['runs']}")
        for name in ("plain", "packed"):
            one = part[name]
            lines.append(
                f"  {name:<7}{one['seconds']:7.2f} s, of which mapping {one['mapped_seconds']:.2f} s; "
                f"processor {one['processor_seconds']:.2f} s; resident {one['resident_bytes'] / 2**30:.2f} GiB"
            )
        for key, what in (("seconds", "time"), ("resident_bytes", "memory")):
            judged = "passed" if part["passed"][key] else "NOT passed"
            lines.append(f"  {what:<7}{part['ratios'][key]:.2f} of the checkpoint's, bar {part['bars'][key]}: {judged}")
    return "\n".join(lines)
