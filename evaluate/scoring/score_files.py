"""Read and write the files of a scored test set: score.json, lines.jsonl and comet.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from evaluate.scoring.score import CometScores, MetricScore, ScoredLine, TestSetScores, TestSetSummary
from submission.errors import UserError
from submission.store.digests import canonical_json, write_text

SCORE_FILE, LINES_FILE, COMET_FILE = "score.json", "lines.jsonl", "comet.json"


def write_testset_scores(folder: Path, scores: TestSetScores) -> None:
    """Write score.json, and lines.jsonl with one reference line a line."""
    record = {"scores": [asdict(score) for score in scores.scores], "testset": asdict(scores.summary)}
    write_text(folder / SCORE_FILE, canonical_json(record))
    write_lines(folder / LINES_FILE, scores.lines)


def read_testset_scores(folder: Path) -> TestSetScores:
    """Return the content of score.json and lines.jsonl of a folder."""
    record = json.loads((folder / SCORE_FILE).read_text(encoding="utf-8"))
    return TestSetScores(
        scores=[MetricScore(**score) for score in record["scores"]],
        summary=TestSetSummary(**record["testset"]),
        lines=read_lines(folder / LINES_FILE),
    )


def write_lines(path: Path, lines: Iterable[ScoredLine]) -> None:
    """Write the compared lines, one JSON object a reference line."""
    texts = (json.dumps(asdict(line), ensure_ascii=False, sort_keys=True) + "\n" for line in lines)
    write_text(path, "".join(texts))


def read_lines(path: Path) -> list[ScoredLine]:
    """Return the compared lines of lines.jsonl; UserError for a line without one of its fields."""
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            lines.append(ScoredLine(**json.loads(text)))
        except (TypeError, ValueError) as error:
            what = f"is not a scored line ({error})"
            raise UserError(f"{path} line {number}", what, "score the test set again") from error
    return lines


def write_comet_scores(folder: Path, scores: CometScores) -> None:
    """Write comet.json."""
    write_text(folder / COMET_FILE, canonical_json(asdict(scores)))


def read_comet_scores(folder: Path) -> CometScores:
    """Return the content of comet.json of a folder."""
    record = json.loads((folder / COMET_FILE).read_text(encoding="utf-8"))
    scores = tuple(MetricScore(**score) for score in record["scores"])
    return CometScores(**{**record, "scores": scores, "segments": tuple(record["segments"])})
