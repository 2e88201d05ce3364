"""Recordings to translate."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def audio(bundled, tmp_path) -> Path:
    """Return a folder of one's own with a.wav and b.wav, each in a folder, and without FILE_ORDER."""
    return Path(shutil.copytree(bundled.audio / "talks", tmp_path / "audio"))
