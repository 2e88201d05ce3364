"""Readers of training corpora: one module per layout, all yielding the same candidates."""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from submission.system.corpus_formats import CORPUS_FORMATS
from submission.system.recipe.training_options import Source
from train.corpora.formats.corpus_utterance import CorpusUtterance, Unparsed

Reader = Callable[[Path, Sequence[str]], Iterator[CorpusUtterance | Unparsed]]
"""Folder of a corpus and target languages -> its utterances in any order; UserError if it is not of the layout."""


def reader_of(source: Source) -> Reader:
    """Return the reader of a source's format, with those options of the source that the format reads."""
    corpus_format = CORPUS_FORMATS[source.format]
    read = pkgutil.resolve_name(corpus_format.read)
    return functools.partial(read, **{name: getattr(source, name) for name in corpus_format.options})
