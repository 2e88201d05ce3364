"""Read the ranking of layers that a sensitivity analysis wrote."""

from __future__ import annotations

import json
from pathlib import Path

RANKING = "ranking.json"


def read_order(folder: Path) -> list[int]:
    """Return the layers from the least to the most sensitive, from the artifact of the stage sensitivity."""
    order: list[int] = json.loads((folder / RANKING).read_text(encoding="utf-8"))["order"]
    return order
