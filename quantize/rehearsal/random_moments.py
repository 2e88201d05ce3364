"""Draw moments of a model's shapes, so that a rehearsal solves weights without a calibration.

The numbers matter to what solving takes through the search for steps alone. Factors have log-normal diagonals and
Gaussian feedback, importances are log-normal. Inputs of one width share the numbers of one file, under a name for each,
so that as many factors are read as after a calibration.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from quantize.artifact_files import MOMENTS
from quantize.calibration.moment_files import input_path, write_factor, write_importance
from quantize.solvers.feedback import InputFactor
from submission.model.families import tensors
from submission.model.moments_size import input_keys
from submission.progress import progress
from submission.store.digests import canonical_json, write_text

FEEDBACK = 0.5
"""Root of the sum of squares of what a column's error is fed back by, for an error of one."""
SPREAD = 0.7
"""Standard deviation of the logarithms of diagonals and of importances."""


def draw_moments(folder: Path, config: dict[str, Any]) -> None:
    """Fill a folder with moments of every weight of a configuration that can be packed, for `MomentsFolder`.

    A tied embedding has those of one use.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generator, keys, drawn = torch.Generator().manual_seed(0), input_keys(config), dict[int, str]()
    packable = [spec for spec in tensors(config) if spec.packable]
    with progress("random moments", len(packable), "weights") as tick:
        for spec in packable:
            columns, key = spec.shape[1], keys[spec.name]
            if columns not in drawn:
                drawn[columns] = key
                write_factor(folder, key, draw_factor(columns, generator), 1)
            if not input_path(folder, key).exists():
                os.link(input_path(folder, drawn[columns]), input_path(folder, key))
            importance = (SPREAD * torch.randn(spec.shape[0], generator=generator)).exp_()
            write_importance(folder, spec.name, importance, 1)
            tick(1)
    write_text(folder / MOMENTS, canonical_json({"inputs": keys, "tied": {}, "fisher": True}))


def draw_factor(columns: int, generator: torch.Generator) -> InputFactor:
    """Return a random factor of so many columns, whose memory is that of one matrix."""
    feedback = torch.randn(columns, columns, generator=generator).tril_(-1).mul_(FEEDBACK / columns**0.5)
    feedback.diagonal().fill_(1)
    diagonal = (SPREAD * torch.randn(columns, generator=generator, dtype=torch.float64)).exp_()
    return InputFactor(diagonal=diagonal, feedback=feedback)
