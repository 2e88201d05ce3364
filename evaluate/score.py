"""BLEU and chrF by sacrebleu, each with its signature, and the digests of the two files that it compares.

A test set whose segments are given is scored line by line; where the system found its own segments, its
hypotheses are cut anew along the references first (`evaluate.resegment`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluate.hypotheses import FLAGS, Hypothesis, read_hypotheses
from evaluate.references import References, check_line_by_line
from evaluate.resegment import resegment_recordings
from submission.digest import canonical_json, sha256_file, write_text

BLEU_TOKENIZERS = {"zh": "zh"}
"""Target language -> sacrebleu's tokenizer for BLEU where it is not its default, 13a."""
DECIMALS = 4
NOT_SCORED = "not scored: no references"
COMET = {
    "state": "not computed",
    "reason": "COMET needs an environment of its own (unbabel-comet) and the model Unbabel/wmt22-comet-da; "
    "this step has neither",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One figure with everything that it rests on."""

    testset: str
    pair: str
    metric: str
    """`BLEU` or `chrF`, in percent."""
    value: float
    signature: str
    """sacrebleu's: settings and version."""
    segments: int
    """Hypotheses, one a segment of the system."""
    references: int
    """Reference lines, which is what is compared."""
    resegmented: bool
    data_sha256: str
    """Digest of the reference file."""
    hypotheses_sha256: str
    """Digest of hypotheses.jsonl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSetSummary:
    """How a test set was decoded, scored or not."""

    testset: str
    pair: str
    segments: int
    flags: dict[str, int]
    """Every flag -> number of hypotheses that have it; `blank` counts the blank lines of the upload."""
    plain_flags: dict[str, int]
    """The same before anything was mended."""
    mended: dict[str, int]
    """Attempt -> number of failed hypotheses that it replaced; empty text -> of those that no attempt could mend. Empty
    where the recipe mends nothing, or nothing failed."""
    references: int | None
    """Reference lines; None where there are none."""
    note: str
    """Empty, or why there is no score."""

    __test__ = False  # not a test class, whatever pytest thinks of the name


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A decoded test set and what it is to be compared with."""

    testset: str
    pair: str
    language: str
    """Target language, `de`."""
    hypotheses: Path
    references: References | None
    given: bool
    """Whether the segments are the references' own."""


def score_testset(decoded: Decoded) -> tuple[list[Score], TestSetSummary]:
    """Return the figures of a test set and pair (none where there are no references) and how it was decoded.

    Raises UserError where hypotheses and references do not belong together.
    """
    hypotheses, references = read_hypotheses(decoded.hypotheses), decoded.references
    counts = Counter(flag for hypothesis in hypotheses for flag in hypothesis.flags)
    before = Counter(flag for hypothesis in hypotheses for flag in hypothesis.plain_flags)
    summary = TestSetSummary(
        testset=decoded.testset,
        pair=decoded.pair,
        segments=len(hypotheses),
        flags={flag: counts[flag] for flag in FLAGS},
        plain_flags={flag: before[flag] for flag in FLAGS},
        mended=dict(Counter(hypothesis.mend.kept for hypothesis in hypotheses if hypothesis.mend)),
        references=len(references.lines) if references else None,
        note="" if references else NOT_SCORED,
    )
    if references is None:
        return [], summary
    lines = align_lines(hypotheses, references, decoded.language, decoded.given, str(decoded.hypotheses))
    digest = sha256_file(decoded.hypotheses)
    scores = [
        Score(
            testset=decoded.testset,
            pair=decoded.pair,
            metric=metric,
            value=round(value, DECIMALS),
            signature=signature,
            segments=len(hypotheses),
            references=len(references.lines),
            resegmented=not decoded.given,
            data_sha256=references.sha256,
            hypotheses_sha256=digest,
        )
        for metric, value, signature in corpus_scores(lines, references.lines, decoded.language)
    ]
    return scores, summary


def align_lines(
    hypotheses: Sequence[Hypothesis], references: References, language: str, given: bool, where: str
) -> list[str]:
    """Return one line of hypothesis for each line of reference."""
    recordings = [hypothesis.segment.rpartition("/")[0] for hypothesis in hypotheses]
    if given:
        check_line_by_line(references, recordings, where)
        return [hypothesis.text for hypothesis in hypotheses]
    texts: dict[str, list[str]] = {}
    for recording, hypothesis in zip(recordings, hypotheses, strict=True):
        texts.setdefault(recording, []).append(hypothesis.text)
    pairs = list(zip(references.recordings, references.lines, strict=True))
    return resegment_recordings(texts, pairs, language, where)


def corpus_scores(hypotheses: Sequence[str], references: Sequence[str], language: str) -> list[tuple[str, float, str]]:
    """Return (metric, value, signature) of BLEU and chrF, with sacrebleu's defaults but for BLEU's tokenizer."""
    from sacrebleu.metrics import BLEU, CHRF

    bleu, chrf = BLEU(tokenize=BLEU_TOKENIZERS.get(language, "13a")), CHRF()
    result = []
    for name, metric in (("BLEU", bleu), ("chrF", chrf)):
        value = metric.corpus_score(list(hypotheses), [list(references)]).score
        result.append((name, value, metric.get_signature().format()))
    return result


def write_scores(path: Path, scores: Iterable[Score], testsets: Iterable[TestSetSummary]) -> None:
    """Write scores.json: figures sorted by test set, pair and metric; every test set; what was not computed."""
    record: dict[str, Any] = {
        "comet": COMET,
        "scores": [asdict(s) for s in sorted(scores, key=lambda s: (s.testset, s.pair, s.metric))],
        "testsets": [asdict(t) for t in sorted(testsets, key=lambda t: (t.testset, t.pair))],
    }
    write_text(path, canonical_json(record))
