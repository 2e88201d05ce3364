"""The result of a translated folder: what its page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluate.decoding.hypotheses import Hypothesis
from evaluate.scoring.metrics import make_metrics
from evaluate.scoring.score import MetricScore, ScoredLine
from submission.text.segments import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderResult:
    """A translated folder, for its page."""

    report: Mapping[str, Any]
    """translation_report.json."""
    segments: tuple[Segment, ...]
    hypotheses: tuple[Hypothesis, ...]
    """One a segment."""
    scores: tuple[MetricScore, ...]
    """Empty where there are no references."""
    lines: tuple[ScoredLine, ...]
    """The compared lines, in the order of the references."""
    language: str
    """Target language, `de`."""

    @property
    def recordings(self) -> list[str]:
        """Every recording of the folder, in order."""
        return [recording["name"] for recording in self.report["run"]["recordings"]]


def recording_quality(result: FolderResult) -> dict[str, float]:
    """Return recording -> chrF of its reference lines."""
    metric = make_metrics(result.language)["chrF"]
    lines: dict[str, list[ScoredLine]] = {}
    for line in result.lines:
        lines.setdefault(line.recording, []).append(line)
    return {
        recording: metric.corpus_score([one.hypothesis for one in of], [[one.reference for one in of]]).score
        for recording, of in lines.items()
    }


def kind_of(hypothesis: Hypothesis) -> str:
    """Return `blank`, `flagged` or `translated`; a hypothesis without text is `blank`, with any flags."""
    if not hypothesis.text:
        return "blank"
    return "flagged" if hypothesis.flags else "translated"
