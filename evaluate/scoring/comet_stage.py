"""Score a scored test set with COMET: what the stage comet:<pair>/<NAME> does."""

from __future__ import annotations

from pathlib import Path

from evaluate.scoring.comet import Comet, comet_score, segment_scores
from evaluate.scoring.score import NO_SOURCE, CometScores
from evaluate.scoring.score_files import LINES_FILE, read_testset_scores, write_comet_scores

DECIMALS = 4


def score_with_comet(model: Comet, scored: Path, out: Path) -> None:
    """Write COMET's scores of a test set, or why there are none; scored: folder of score.json and lines.jsonl."""
    found = read_testset_scores(scored)
    pair, testset = found.summary.pair, found.summary.testset
    reason = ""
    if not found.scores:
        reason = found.summary.comet
    elif any(line.source is None for line in found.lines):
        reason = NO_SOURCE
    if reason:
        write_comet_scores(out, CometScores(pair=pair, testset=testset, reason=reason))
        return
    segments = segment_scores(model, found.lines, str(scored / LINES_FILE))
    scores = CometScores(
        pair=pair,
        testset=testset,
        reason="",
        scores=(comet_score(model, segments, found.scores[0]),),
        segments=tuple(round(score, DECIMALS) for score in segments),
        device=model.device,
    )
    write_comet_scores(out, scores)
