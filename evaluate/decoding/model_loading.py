"""Load a model for decoding, packed or not, onto a device."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from submission.runtime.loading import load_for_inference

LoadModel = Callable[[Path, str, str], Any]
"""(model folder, dtype, device) -> (model, processor), as `load_on` or with a model kept for several runs."""


def load_on(folder: Path, dtype: str, device: str) -> Any:
    """Return (model, processor) of a folder on a device, ready to generate.

    device: `auto` is the GPU of this process's local rank where there is one, else the CPU.
    """
    if device == "auto":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    return load_for_inference(folder, dtype, device)
