"""The stage function of the miniature: its data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from submission.store.store import StageFunction


def data(options: dict[str, Any], inputs: dict[str, Path], out: Path) -> None:
    """Write the data folder; the inputs are the shipped models, `base` and `shas`."""
    from submission.miniature.dataset import write_data_folder

    write_data_folder(out, options["model"], inputs, seed=options["seed"])


STAGES: dict[str, StageFunction] = {"data": data}
"""Stage -> the function that builds it."""
