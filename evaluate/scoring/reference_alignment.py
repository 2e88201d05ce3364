"""Align references with an output: match their recordings, and decide whether resegmentation is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from evaluate.comparing.comparison import LinePosition
from evaluate.scoring.references import References
from segment.testset import SEGMENTS, read_positions
from submission.errors import UserError
from submission.text.recording_names import match_recordings
from submission.text.segments import SAMPLE_RATE

NEAR = SAMPLE_RATE // 2
"""Samples by which a segment may begin or end elsewhere than its reference line and still match."""


def align_references(references: References, places: Sequence[LinePosition], where: str) -> tuple[References, bool]:
    """Return the references in the order of an output, and whether lines correspond one to one.

    Recordings take the names and the order of the output's positions; those that the output does not have come last.
    Lines correspond one to one where the output's segments are those of the references: the same number in each
    recording, with starts and ends at most half a second apart, as far as both are known. Otherwise the output must be
    resegmented. Raises UserError where the output has recordings that the references lack, and where it names no
    recordings and has another number of lines.
    """
    if not all(place.recording for place in places):
        if len(places) != len(references.lines):
            what = f"has {len(places)} lines, {references.path} has {len(references.lines)}"
            raise UserError(where, what, "give its segments with --segments")
        return references, True
    theirs = list(dict.fromkeys(place.recording for place in places))
    called = match_recordings(dict.fromkeys(references.recordings), theirs)
    if unknown := [name for name in theirs if name not in called.values()]:
        what = f"{len(unknown)} of {len(theirs)} recordings have no reference line (first: {unknown[0]})"
        raise UserError(where, what, "give references for every recording, or only the recordings that have them")
    names = tuple(called.get(name, name) for name in references.recordings)
    renamed = replace(references, recordings=names)
    lines_of: dict[str, list[int]] = {name: [] for name in theirs}
    for number, name in enumerate(names):
        lines_of.setdefault(name, []).append(number)
    if Counter(names) == Counter(place.recording for place in places):
        left = {name: iter(numbers) for name, numbers in lines_of.items()}
        beside = renamed.chosen([next(left[place.recording]) for place in places])
        if _positions_match(beside, places):
            return beside, True
    return renamed.chosen([number for numbers in lines_of.values() for number in numbers]), False


def _positions_match(references: References, places: Sequence[LinePosition]) -> bool:
    """Return whether segments have the positions of the reference lines, which are as many."""
    beside = references.path.with_name(SEGMENTS)
    if references.path.suffix != ".txt" or not beside.is_file():  # the positions of the lines are unknown
        return len(set(references.recordings)) == len(references.recordings)
    positions = read_positions(beside)
    return all(
        place.start is None
        or place.end is None
        or (abs(place.start - positions[n].start) <= NEAR and abs(place.end - positions[n].end) <= NEAR)
        for place, n in zip(places, references.numbers, strict=True)
    )
