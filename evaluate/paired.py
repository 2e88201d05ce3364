"""Two outputs held against references: which is better, by how much, and whether that is chance.

Each output is brought to one line for each line of the references, as `evaluate.score` does it: line by line where its
segments are the references' own, and otherwise cut anew along the references, recording by recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from unicodedata import normalize

from evaluate.comparison import Output, Place
from evaluate.references import References, find_gold_references, find_references, gold_text, reference_text
from evaluate.resegment import resegment_recordings
from evaluate.significance import Difference, paired_bootstrap
from segment.testset import SEGMENTS, read_positions
from submission.errors import UserError
from submission.segments import SAMPLE_RATE, Segment

NEAR = SAMPLE_RATE // 2
"""Samples by which a segment may begin or end elsewhere than its reference line and still be the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """What two outputs are worth against the same references."""

    references: str
    """The file."""
    lines: int
    """Reference lines, which is what is compared."""
    by_line: tuple[bool, bool]
    """Of either output, whether its segments are the references' own; if not it was cut anew."""
    differences: tuple[Difference, ...]
    """One a metric; the first system is A."""


def references_of(folder: Path, pair: str, testset: str) -> References | None:
    """Return the references of an output in a folder, or None where it holds none for this output.

    folder: one test set's (`<pair>.txt` or `.xml` beside segments.yaml), one with a folder for each test set, or
    `acl_6060/eval`. Raises UserError where they cannot be read, and where the pair is not known.
    """
    if not folder.is_dir():
        raise UserError(f"--references {folder}", "no such folder", "name the folder that holds the references")
    if not pair:
        raise UserError("--references", "nothing says which pair the outputs are of", "name it with --pair")
    language = pair.rpartition("-")[2]
    if gold_text(folder, language) is not None:
        return find_gold_references(folder, language)
    for place in (folder, folder / testset) if testset else (folder,):
        if reference_text(place, pair) is not None:
            return find_references(place, pair)
    return None


def compare_with_references(a: Output, b: Output, references: References, pair: str) -> Paired:
    """Return what two outputs are worth; UserError where one does not belong to the references."""
    language, positions = pair.rpartition("-")[2], _positions(references)
    by_line, lines = [], []
    for output in (a, b):
        own = _has_their_segments(output, references, positions)
        by_line.append(own)
        lines.append(list(output.lines) if own else _cut_anew(output, references, language))
    return Paired(
        references=str(references.path),
        lines=len(references.lines),
        by_line=(by_line[0], by_line[1]),
        differences=tuple(paired_bootstrap(lines[0], lines[1], references.lines, language)),
    )


def _positions(references: References) -> list[Segment] | None:
    """Return where the reference lines lie, in their order; None where their file does not say it."""
    beside = references.path.with_name(SEGMENTS)
    return read_positions(beside) if references.path.suffix == ".txt" and beside.is_file() else None


def _key(recording: str) -> str:
    """Return a recording's name as it is compared: a segments YAML may leave the extension out."""
    return normalize("NFC", PurePath(recording).stem if PurePath(recording).suffix == ".wav" else recording)


def _has_their_segments(output: Output, references: References, positions: Sequence[Segment] | None) -> bool:
    """Say whether an output's lines answer the reference lines one by one."""
    if len(output.lines) != len(references.lines):
        return False
    if not all(place.recording for place in output.places):
        return True  # lines of which nothing is known, as many as there are references
    if [_key(place.recording) for place in output.places] != [_key(name) for name in references.recordings]:
        return False
    if positions is None:
        return len(set(references.recordings)) == len(references.recordings)
    return all(_is_near(place, segment) for place, segment in zip(output.places, positions, strict=True))


def _is_near(place: Place, segment: Segment) -> bool:
    if place.start is None or place.end is None:
        return True
    return abs(place.start - segment.start) <= NEAR and abs(place.end - segment.end) <= NEAR


def _cut_anew(output: Output, references: References, language: str) -> list[str]:
    """Return one line for each reference line."""
    if not all(place.recording for place in output.places):
        what = f"has {len(output.lines)} lines, {references.path} has {len(references.lines)}"
        raise UserError(output.label, what, "give its segments with --segments")
    texts: dict[str, list[str]] = {}
    for place, line in zip(output.places, output.lines, strict=True):
        texts.setdefault(place.recording, []).append(line)
    called = {_key(recording): recording for recording in texts}
    names = [called.get(_key(name), name) for name in references.recordings]
    pairs = list(zip(names, references.lines, strict=True))
    return resegment_recordings(texts, pairs, language, output.label)


def paired_lines(paired: Paired) -> list[str]:
    """Return the result as lines of a terminal, but for the table of its metrics."""
    cut = [name for name, own in zip(("A", "B"), paired.by_line, strict=True) if not own]
    how = f"{' and '.join(cut)} cut anew along them" if cut else "line by line"
    return [f"against {paired.lines:,} lines of {paired.references}, {how}:"]


def paired_rows(paired: Paired) -> list[tuple[str, ...]]:
    """Return a table: a metric, both figures, their difference with its interval, and how likely chance makes one."""
    rows: list[tuple[str, ...]] = [("", "A", "B", "B - A", "95 % of it", "p")]
    for one in paired.differences:
        rows.append(
            (
                one.metric,
                f"{one.first:.2f}",
                f"{one.second:.2f}",
                f"{one.difference:+.2f}",
                f"{one.low:+.2f} to {one.high:+.2f}",
                f"{one.p_value:.3f}",
            )
        )
    return rows
