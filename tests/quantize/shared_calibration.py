"""The calibration of a small model on noise, as launched processes share it, one of which may be killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch

from quantize.calibration import activations, moment_files, shared_sums
from quantize.calibration.model_moments import calibrate
from submission.miniature.model import END, SMALL, Shape
from submission.system.recipe.quantize_options import MomentsOptions
from submission.text.corpus import read_corpus, write_corpus
from tests.quantize.recovery.support import LANGUAGES, PROMPTS, write_data
from tests.support.tiny_qwen import build_checkpoint

BASE = "base"
FEW = 6
"""Utterances of dev.jsonl: two batches, one of which has gradients."""
GRADIENT_UTTERANCES = {"train": 10, "dev": 4}
"""Of train.jsonl's seven batches three have gradients, two with four utterances each and one with two."""


def write_inputs(folder: Path, shape: Shape = SMALL) -> Path:
    """Write a checkpoint, train.jsonl with 24 utterances, dev.jsonl with few of them, and their recording."""
    build_checkpoint(folder / BASE, ["the cat sleeps", "die Katze schläft"], shape, 1)
    write_data(folder)
    write_corpus(folder / "dev.jsonl", list(read_corpus(folder / "train.jsonl"))[: FEW * len(LANGUAGES)])
    return folder


def calibrate_on(
    inputs: Path, out: Path, source: str = "train", *, fisher: bool = True, traced: int | None = None
) -> Path:
    """Calibrate with one thread, as launched programs do; return `out`. traced: utterances with gradients."""
    out.mkdir(exist_ok=True)
    options = MomentsOptions(
        pairs=("en-de", "en-zh"),
        source=source,
        utterances=0,
        gradient_utterances=traced or GRADIENT_UTTERANCES[source],
        seed=1,
        fisher=fisher,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        calibrate(inputs / BASE, inputs, inputs, out, options=options, prompts=PROMPTS, end_token=END)
    finally:
        torch.set_num_threads(threads)
    return out


def kill_rank(rank: int, files: int) -> None:
    """Let the process of a rank kill itself at the file after so many that it writes."""
    if os.environ["RANK"] != str(rank):
        return
    write, left = moment_files.write_tensors, files

    def write_until_killed(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, tensors)

    for module in (activations, moment_files, shared_sums):
        module.write_tensors = write_until_killed
