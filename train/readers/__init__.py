"""Readers of corpora in their published layouts: one module per layout, all yielding the same candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from submission.errors import UserError
from submission.schema import nearest
from train.readers import acl6060, plain
from train.readers.candidate import Candidate, Unparsed

Reader = Callable[[Path, Sequence[str]], Iterator[Candidate | Unparsed]]
"""Folder of a corpus and target languages -> its utterances in any order; UserError if it is not of the layout."""

READERS: dict[str, Reader] = {"acl6060": acl6060.read, "plain": plain.read}

NOT_YET = {
    "covost2": "covost_v2.en_*.tsv joined with Common Voice clips in mp3",
    "europarl-st": "Europarl-ST v1.1, en/audios/*.m4a with segments.lst",
}
"""Layouts that recipes may name but nothing reads yet."""


def reader_of(layout: str) -> Reader:
    """Return the reader of a layout; UserError names those that there are."""
    if layout in NOT_YET:
        raise UserError(
            f"corpus format {layout!r}",
            f"is not read yet ({NOT_YET[layout]})",
            f"bring the corpus into the plain layout (audio/ and utterances.tsv); read now: {', '.join(READERS)}",
        )
    if layout not in READERS:
        raise UserError(f"corpus format {layout!r}", "unknown format", nearest(layout, READERS))
    return READERS[layout]
