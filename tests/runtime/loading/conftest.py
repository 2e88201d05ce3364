"""Folders of a small model, plain and packed, which the tests of loading share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from quantize.packing.pack import pack_checkpoint
from submission.miniature.model import SMALL
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from tests.runtime.loading.support import RULES
from tests.support.tiny_qwen import build_checkpoint


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)


@pytest.fixture(scope="session")
def packed(base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack_checkpoint(base, folder, resolve_codecs(read_config(base), RULES), solver="hqq")
    return folder


@pytest.fixture
def copy(packed, tmp_path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "copy"))
