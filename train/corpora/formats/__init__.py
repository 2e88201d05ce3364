"""Readers of corpora in their published layouts: one module per layout, all yielding the same candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from submission.errors import UserError
from submission.system.schema import nearest
from train.corpora.formats import acl6060, acl6060_full, covost2, europarl_st, plain
from train.corpora.formats.candidate import Candidate, Unparsed

Reader = Callable[[Path, Sequence[str]], Iterator[Candidate | Unparsed]]
"""Folder of a corpus and target languages -> its utterances in any order; UserError if it is not of the layout."""

READERS: dict[str, Reader] = {
    "acl6060": acl6060.read,
    "acl6060-full": acl6060_full.read,
    "covost2": covost2.read,
    "europarl-st": europarl_st.read,
    "plain": plain.read,
}


def reader_of(layout: str) -> Reader:
    """Return the reader of a layout; UserError names those that there are."""
    if layout not in READERS:
        raise UserError(f"corpus format {layout!r}", "unknown format", nearest(layout, READERS))
    return READERS[layout]
