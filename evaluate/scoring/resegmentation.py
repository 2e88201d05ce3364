"""Resegment the hypotheses of a recording, so that each piece corresponds to one line of the reference.

A system that finds its own segments does not break the recording where the reference does. The track scores it
as Matusov et al. (2005, "Evaluating Machine Translation Output with Automatic Sentence Segmentation") do: all
hypotheses of a recording are one stream of tokens, and the stream is divided where the edit distance to the
reference lines is least. German is a stream of words, Chinese one of characters (runs of Latin letters count
as one). mweralign computes the boundaries. It receives numbers in place of tokens and returns only how many
belong to each line, so that no content of a text (for mweralign `###` separates references, `</s>` ends a
segment, control characters separate words) can move a boundary, lose a word or stop the process.
"""

from __future__ import annotations

import logging
import os
import re
import string
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from types import ModuleType

from submission.errors import UserError

CHARACTER_LANGUAGES = frozenset({"ja", "zh"})
"""Languages without blanks between words: aligned by character."""

_BLANKS = re.compile(r"[ \t\n\v\f\r]+")
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def resegment(hypotheses: Sequence[str], references: Sequence[str], language: str) -> list[str]:
    """Return the text of one recording's hypotheses as one line for each reference.

    hypotheses are in the order in which they were spoken; empty ones add nothing. The lines hold the same
    tokens in the same order. Case of ASCII letters does not count when tokens are compared, as in mweralign.
    """
    if not references:
        raise ValueError("resegment: expected at least one reference line, got none")
    by_character = language in CHARACTER_LANGUAGES
    split, join = (_characters, _join_characters) if by_character else (_words, " ".join)
    stream = [split(text) for text in hypotheses]
    tokens = [token for pieces in stream for token in pieces]
    if not tokens:
        return [""] * len(references)
    starts = set(accumulate(len(pieces) for pieces in stream))
    ends = _line_ends([split(reference) for reference in references], tokens)
    if by_character:  # two hypotheses that meet in Latin letters are two words, not one
        tokens = [
            f" {token}" if n in starts and n and _latin(tokens[n - 1][-1]) and _latin(token[0]) else token
            for n, token in enumerate(tokens)
        ]
    return [join(tokens[start:end]).strip(" ") for start, end in zip([0, *ends], ends, strict=False)]


def resegment_recordings(
    hypotheses: Mapping[str, Sequence[str]], references: Sequence[tuple[str, str]], language: str, where: str
) -> list[str]:
    """Return one line for each reference, each recording aligned on its own.

    hypotheses maps a recording to its hypotheses in order; references are (recording, line) in the order of
    the reference file, which is the order of the result. A recording without hypotheses gives empty lines;
    hypotheses of a recording that the references do not know raise UserError, for they would count nowhere.
    """
    lines_of: dict[str, list[int]] = {}
    for number, (recording, _) in enumerate(references):
        lines_of.setdefault(recording, []).append(number)
    unknown = sorted(set(hypotheses) - set(lines_of))
    if unknown:
        raise UserError(
            where,
            f"{len(unknown)} of {len(hypotheses)} decoded recordings have no reference line (first: {unknown[0]})",
            "give references for every recording, or decode only the recordings that have them",
        )
    result = [""] * len(references)
    for recording, numbers in lines_of.items():
        pieces = resegment(hypotheses.get(recording, ()), [references[n][1] for n in numbers], language)
        for number, piece in zip(numbers, pieces, strict=True):
            result[number] = piece
    return result


def _line_ends(references: Sequence[Sequence[str]], tokens: Sequence[str]) -> list[int]:
    """Return, for each reference, how many of the tokens belong to it and the references before it."""
    numbers: dict[str, int] = {}

    def line(of: Sequence[str]) -> str:
        return " ".join(str(numbers.setdefault(token.translate(_ASCII_LOWER), len(numbers))) for token in of)

    # The last line feed matters: without it the aligner drops an empty reference at the end.
    reference_lines = "".join(line(reference) + "\n" for reference in references)
    aligner = _mweralign()
    with _silent_standard_error():
        aligned = aligner.align_texts(reference_lines, line(tokens)).split("\n")
    ends = list(accumulate(len(piece.split()) for piece in aligned))
    if len(ends) != len(references) or ends[-1] != len(tokens):
        raise AssertionError(
            f"mweralign: expected {len(references)} lines with {len(tokens)} tokens, got {len(ends)} with {ends[-1]}"
        )
    return ends


def _words(text: str) -> list[str]:
    return [word for word in _BLANKS.split(text) if word]


def _characters(text: str) -> list[str]:
    """Return mweralign's pieces of a line: single characters, and runs of Latin-1 with the blanks in them."""
    line = " ".join(_words(text))
    # The segmenter replaces blanks one for one: split the line by the lengths of the pieces.
    ends = list(accumulate(len(piece) for piece in _mweralign().segmenter.CJSegmenter().encode(line)))
    return [line[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _join_characters(pieces: Sequence[str]) -> str:
    return _BLANKS.sub(" ", "".join(pieces))


def _latin(character: str) -> bool:
    return ord(character) <= 0xFF and not character.isspace()


def _mweralign() -> ModuleType:
    """Import mweralign without the handler and the level that its import gives the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    import mweralign

    root.handlers[:] = handlers
    root.setLevel(level)
    return mweralign


@contextmanager
def _silent_standard_error() -> Iterator[None]:
    """Redirect file descriptor 2 to /dev/null: the aligner's C++ prints two lines for each recording."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
