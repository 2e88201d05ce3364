"""Score the lines of a translated folder against a user's references: checked before decoding, scored after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluate.comparing.comparison import LinePosition, segment_positions
from evaluate.comparing.outputs import HYPOTHESES
from evaluate.scoring.reference_alignment import align_references
from evaluate.scoring.references import References, references_of
from evaluate.scoring.score import DecodedTestSet, TestSetScores, score_testset
from evaluate.scoring.score_files import LINES_FILE, write_lines
from evaluate.scoring.unicode_form import UnicodeForm, form_note
from segment.testset import TestSetFolder
from submission.errors import UserError
from submission.system.campaign import Pair
from submission.text.segments import Segment


def find_aligned_references(
    place: Path | None, pair: Pair, testset: str, folder: TestSetFolder, form: UnicodeForm = ""
) -> tuple[References | None, list[str]]:
    """Return the references of a folder's recordings, under its names, and the other recordings that have references.

    None where no folder of references is named. place, form: as for `references_of`; testset: its name there. Raises
    UserError where there are no references, and where they lack a recording of the folder.
    """
    if place is None:
        return None, []
    found = references_of(place, pair.name, testset, form)
    if found is None:
        what, fix = f"holds no references for {pair.name}", f"name the folder of {pair.name}.txt or {pair.name}.xml"
        raise UserError(f"--references {place}", what, fix)
    fit, _ = align_references(
        found, [LinePosition(recording=recording.name) for recording in folder.recordings], "--audio"
    )
    here = {recording.name for recording in folder.recordings}
    others = [name for name in dict.fromkeys(fit.recordings) if name not in here]
    return fit.chosen([n for n, name in enumerate(fit.recordings) if name in here]), others


def score_lines(
    references: References | None, pair: Pair, segments: Sequence[Segment], out: Path, testset: str
) -> TestSetScores | None:
    """Return the scores of a run's lines, and write the compared lines; None without references.

    references: from `find_aligned_references`; out: the run's folder.
    """
    (out / LINES_FILE).unlink(missing_ok=True)
    if references is None:
        return None
    fit, own = align_references(references, segment_positions(segments), str(out / HYPOTHESES))
    decoded = DecodedTestSet(
        testset=testset,
        pair=pair.name,
        language=pair.target,
        hypotheses=out / HYPOTHESES,
        references=fit,
        given=own,
    )
    scored = score_testset(decoded)
    write_lines(out / LINES_FILE, scored.lines)
    return scored


def scores_note(references: References | None, scored: TestSetScores | None) -> str:
    """Return what the Unicode forms of a run's lines and their references cost; "" where nothing."""
    if references is None or scored is None:
        return ""
    compared = {
        f"{references.path.parent.name}/{references.path.name}": [line.reference for line in scored.lines],
        HYPOTHESES: [line.hypothesis for line in scored.lines],
    }
    return form_note(compared)


def score_texts(scores: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line a metric for a terminal; scores: from translation_report.json."""
    lines = []
    for score in scores:
        how = "resegmented along them" if score["resegmented"] else "line by line"
        against = f"{score['references']:,} reference lines, {how}; {score['signature']}"
        lines.append(f"{score['metric']}: {score['value']:.2f} ({score['low']:.2f} to {score['high']:.2f}), {against}")
    return lines
