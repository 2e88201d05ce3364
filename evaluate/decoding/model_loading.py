"""Load a model for decoding, packed or not, onto a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from submission.runtime.loading import load_for_inference
from submission.store.launch import assigned_device

LoadModel = Callable[[Path, str, str], Any]
"""(model folder, dtype, device) -> (model, processor), as `load_on` or with a model kept for several runs."""


def load_on(folder: Path, dtype: str, device: str) -> Any:
    """Return (model, processor) of a folder on a device, ready to generate.

    device: `auto` is the GPU of this process's local rank where there is one, else the CPU.
    """
    if device == "auto":
        device = assigned_device()
    return load_for_inference(folder, dtype, device)
