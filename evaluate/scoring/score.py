"""Score a decoded test set: each metric with its interval, its signature, and the digests of the compared files.

A test set with given segments is scored line by line; where the system segmented the recordings itself, its
hypotheses are first resegmented along the references (`evaluate.scoring.resegmentation`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluate.decoding.hypotheses import FLAGS, Hypothesis, read_hypotheses
from evaluate.scoring.metrics import corpus_scores
from evaluate.scoring.references import References, check_line_by_line
from evaluate.scoring.resegmentation import resegment_recordings
from evaluate.scoring.unicode_form import in_form, with_form
from submission.store.digests import sha256_file

DECIMALS = 4
NOT_SCORED = "not scored: no references"
NO_COMET = "COMET needs its own environment and model: nox -s score"
NO_SOURCE = "no source transcript"
NOTHING_FOR_COMET = "no test set has references and their transcript"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricScore:
    """The score of one metric on one test set, with its provenance."""

    testset: str
    pair: str
    metric: str
    """`BLEU`, `chrF` or `TER`, in percent; of TER less is better."""
    value: float
    low: float
    high: float
    """Bounds of the 95 % bootstrap interval over the reference lines."""
    signature: str
    """sacrebleu's: settings, resamples, seed and version."""
    segments: int
    """Number of hypotheses, one a segment of the system."""
    references: int
    """Number of reference lines; each is compared with one line of the output."""
    resegmented: bool
    data_sha256: str
    """Digest of the reference file."""
    hypotheses_sha256: str
    """Digest of hypotheses.jsonl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSetSummary:
    """Counts of a decoded test set, whether or not it has references."""

    testset: str
    pair: str
    segments: int
    flags: dict[str, int]
    """Every flag -> number of hypotheses that have it; `blank` counts the blank lines of the upload."""
    flags_without_fallbacks: dict[str, int]
    """The same for plain decoding, before any fallback."""
    fallbacks: dict[str, int]
    """Fallback -> number of failed hypotheses that it replaced; empty text -> number of those that none replaced. Empty
    where the recipe names no fallbacks, or nothing failed."""
    references: int | None
    """Reference lines; None where there are none."""
    note: str
    """Why there is no score; empty where there is one."""
    comet: str
    """Why there is no COMET score; empty where there is one."""

    __test__ = False  # not a test class, despite its name


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedTestSet:
    """A decoded test set and its references."""

    testset: str
    pair: str
    language: str
    """Target language, `de`."""
    hypotheses: Path
    references: References | None
    given: bool
    """Whether the segments are the references' own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredLine:
    """A reference line and the corresponding line of the output."""

    recording: str
    source: str | None
    """The transcript; None where there is none."""
    hypothesis: str
    """After resegmentation, where the segments are the system's own."""
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSetScores:
    """All scores of one test set and pair."""

    scores: list[MetricScore]
    """Empty where there are no references."""
    summary: TestSetSummary
    lines: list[ScoredLine]
    """The compared lines in the order of the references; empty where there are no references."""

    __test__ = False  # not a test class, despite its name


@dataclass(frozen=True, slots=True, kw_only=True)
class CometScores:
    """COMET of one test set and pair."""

    testset: str
    pair: str
    reason: str
    """Why there is no score; empty where there is one."""
    scores: tuple[MetricScore, ...] = ()
    segments: tuple[float, ...] = ()
    """Score of each reference line."""
    device: str = ""
    """`cpu` or `cuda`; empty where there is no score."""


def score_testset(decoded: DecodedTestSet) -> TestSetScores:
    """Return the scores of a test set and pair (none without references) and its counts.

    Raises UserError where hypotheses and references do not match.
    """
    hypotheses, references = read_hypotheses(decoded.hypotheses), decoded.references
    counts = Counter(flag for hypothesis in hypotheses for flag in hypothesis.flags)
    before = Counter(flag for hypothesis in hypotheses for flag in hypothesis.plain_flags)
    summary = TestSetSummary(
        testset=decoded.testset,
        pair=decoded.pair,
        segments=len(hypotheses),
        flags={flag: counts[flag] for flag in FLAGS},
        flags_without_fallbacks={flag: before[flag] for flag in FLAGS},
        fallbacks=dict(Counter(hypothesis.fallback.kept for hypothesis in hypotheses if hypothesis.fallback)),
        references=len(references.lines) if references else None,
        note="" if references else NOT_SCORED,
        comet="no references" if not references else NO_COMET if references.sources else NO_SOURCE,
    )
    if references is None:
        return TestSetScores(scores=[], summary=summary, lines=[])
    texts = align_lines(hypotheses, references, decoded.language, decoded.given, str(decoded.hypotheses))
    digest = sha256_file(decoded.hypotheses)
    scores = [
        MetricScore(
            testset=decoded.testset,
            pair=decoded.pair,
            metric=figure.metric,
            value=round(figure.value, DECIMALS),
            low=round(figure.low, DECIMALS),
            high=round(figure.high, DECIMALS),
            signature=with_form(figure.signature, references.form),
            segments=len(hypotheses),
            references=len(references.lines),
            resegmented=not decoded.given,
            data_sha256=references.sha256,
            hypotheses_sha256=digest,
        )
        for figure in corpus_scores(texts, references.lines, decoded.language)
    ]
    sources = references.sources or [None] * len(texts)
    columns = zip(references.recordings, sources, texts, references.lines, strict=True)
    lines = [ScoredLine(recording=r, source=s, hypothesis=h, reference=t) for r, s, h, t in columns]
    return TestSetScores(scores=scores, summary=summary, lines=lines)


def align_lines(
    hypotheses: Sequence[Hypothesis], references: References, language: str, given: bool, where: str
) -> list[str]:
    """Return one line of hypothesis for each line of reference, in the references' Unicode form if they have one."""
    recordings = [hypothesis.segment.rpartition("/")[0] for hypothesis in hypotheses]
    lines = in_form([hypothesis.text for hypothesis in hypotheses], references.form)
    if given:
        check_line_by_line(references, recordings, where)
        return lines
    texts: dict[str, list[str]] = {}
    for recording, line in zip(recordings, lines, strict=True):
        texts.setdefault(recording, []).append(line)
    pairs = list(zip(references.recordings, references.lines, strict=True))
    return resegment_recordings(texts, pairs, language, where)


def gather(scored: Iterable[TestSetScores]) -> dict[str, Any]:
    """Return the content of scores.json, from the scores of each test set and pair.

    Scores are sorted by test set and pair, their metrics in the order of METRICS, test sets by name and pair.
    """
    scored = list(scored)
    return {
        "comet": {"state": "not computed", "reason": NO_COMET},
        "scores": sorted((asdict(score) for one in scored for score in one.scores), key=_by_testset),
        "testsets": sorted((asdict(one.summary) for one in scored), key=_by_testset),
    }


def with_comet(record: Mapping[str, Any], comet: Sequence[CometScores], model_sha256: str) -> dict[str, Any]:
    """Return the content of scores.json with the COMET scores added; model_sha256: digest of the checkpoint."""
    added = [asdict(score) for one in comet for score in one.scores]
    reasons = {(one.pair, one.testset): one.reason for one in comet}
    state = {"state": "computed", "reason": ""} if added else {"state": "not computed", "reason": NOTHING_FOR_COMET}
    return {
        "comet": {**state, "model_sha256": model_sha256},
        "scores": sorted([*record["scores"], *added], key=_by_testset),
        "testsets": [{**t, "comet": reasons[t["pair"], t["testset"]]} for t in record["testsets"]],
    }


def _by_testset(record: Mapping[str, Any]) -> tuple[str, str]:
    return record["testset"], record["pair"]
