"""The lines of a translated folder against anybody's references: found and checked first, scored when the lines are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluate.comparing.comparison import Place, segment_places
from evaluate.comparing.outputs import HYPOTHESES
from evaluate.scoring.reference_alignment import fitted
from evaluate.scoring.references import References, references_of
from evaluate.scoring.score import LINES_FILE, Cell, Decoded, score_testset, write_lines
from segment.testset import TestSetFolder
from submission.errors import UserError
from submission.system.campaign import Pair
from submission.text.segments import Segment


def find_fitting(
    place: Path | None, pair: Pair, testset: str, folder: TestSetFolder
) -> tuple[References | None, list[str]]:
    """Return the references of a folder's recordings, which are called as there, and what others there would be.

    None where none are asked for. place: as for `references_of`; testset: what the recordings are called there. Raises
    UserError where there are none, and where they lack a recording of the folder.
    """
    if place is None:
        return None, []
    found = references_of(place, pair.name, testset)
    if found is None:
        what, fix = f"holds no references for {pair.name}", f"name the folder of {pair.name}.txt or {pair.name}.xml"
        raise UserError(f"--references {place}", what, fix)
    fit, _ = fitted(found, [Place(recording=recording.name) for recording in folder.recordings], "--audio")
    here = {recording.name for recording in folder.recordings}
    others = [name for name in dict.fromkeys(fit.recordings) if name not in here]
    return fit.chosen([n for n, name in enumerate(fit.recordings) if name in here]), others


def score_lines(
    references: References | None, pair: Pair, segments: Sequence[Segment], out: Path, testset: str
) -> Cell | None:
    """Return the scores of a run's lines, and keep the lines that were compared; None without references.

    references: as `find_fitting` gives them; out: the run's folder.
    """
    (out / LINES_FILE).unlink(missing_ok=True)
    if references is None:
        return None
    fit, own = fitted(references, segment_places(segments), str(out / HYPOTHESES))
    decoded = Decoded(
        testset=testset,
        pair=pair.name,
        language=pair.target,
        hypotheses=out / HYPOTHESES,
        references=fit,
        given=own,
    )
    cell = score_testset(decoded)
    write_lines(out / LINES_FILE, cell.lines)
    return cell


def score_texts(scores: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line a metric for a terminal; scores: as report.json holds them."""
    lines = []
    for score in scores:
        how = "cut anew along them" if score["resegmented"] else "line by line"
        against = f"{score['references']:,} reference lines, {how}; {score['signature']}"
        lines.append(f"{score['metric']}: {score['value']:.2f} ({score['low']:.2f} to {score['high']:.2f}), {against}")
    return lines
