"""Look up the paper's figures in `paper.toml`, for a report of the paper's campaign."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "paper.toml"
CAMPAIGN = "iwslt26"


@dataclass(frozen=True)
class Paper:
    """The paper's figures; each look-up returns None where the file has none."""

    campaign: str

    @cached_property
    def _figures(self) -> dict[str, Any]:
        if self.campaign != CAMPAIGN:
            return {}
        return tomllib.loads(FILE.read_text(encoding="utf-8"))

    @property
    def source(self) -> str:
        """Source of the figures; empty where none are shown."""
        return self._figures.get("source", "")

    def system(self, name: str, pair: str, metric: str) -> float | None:
        """Return a figure of Table 1."""
        return self._look_up("systems", name, pair, metric)

    def size_gib(self, name: str) -> float | None:
        """Return a size of Table 1 in GiB."""
        return self._look_up("systems", name, "GiB")

    def layers(self, choice: str, pair: str, metric: str) -> float | None:
        """Return a figure of Table 4; choice: as in recipes, `sensitivity` or `first`."""
        return self._look_up("layers", choice, pair, metric)

    def upload(self, name: str, pair: str, metric: str, testset: str) -> float | None:
        """Return a figure of Table 6."""
        return self._look_up("uploads", name, pair, metric, testset)

    def _look_up(self, *keys: str) -> float | None:
        found: Any = self._figures
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found
