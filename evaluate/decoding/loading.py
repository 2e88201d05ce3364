"""Loading a model for inference on a device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def load_on(folder: Path, dtype: str, device: str) -> Any:
    """Return (model, processor) of a folder on a device, ready to generate; `auto` is a GPU where there is one."""
    import torch

    from submission.runtime.loading import load_for_inference

    if device == "auto":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    return load_for_inference(folder, dtype, device)
