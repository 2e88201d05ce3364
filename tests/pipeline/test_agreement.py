"""The registry of corpus formats names readers that exist."""

from __future__ import annotations

import pytest

from submission.system.corpus_formats import CORPUS_FORMATS
from submission.system.recipe.training_options import Source
from train.corpora.formats import reader_of

HUB = {"files": ("*.parquet",), "columns": {"audio": "audio", "source": "text"}, "targets": {"de": "de"}}


@pytest.mark.parametrize("name", CORPUS_FORMATS)
def test_every_corpus_format_has_a_reader(name: str) -> None:
    options = {option: HUB[option] for option in CORPUS_FORMATS[name].options}
    assert callable(reader_of(Source(name="a", format=name, **options)))
