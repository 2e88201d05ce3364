"""Synthetic results, for tests of tables, pictures and page."""

from __future__ import annotations

from base64 import b64decode

from evaluate.decoding.hypotheses import Hypothesis
from evaluate.report.pages.folder_result import FolderResult
from evaluate.report.results import (
    LayerSensitivity,
    PairedResult,
    ReportedScore,
    Results,
    SegmentationResult,
    SystemResult,
    TestSetResult,
    loss_score,
)
from evaluate.scoring.metrics import corpus_scores
from evaluate.scoring.score import MetricScore, ScoredLine
from submission.bundle.efficiency import BatchEfficiency, EfficiencyRecord, MeasuredMachine, UnfitBatch
from submission.text.segments import SAMPLE_RATE, Segment

SVG = "data:image/svg+xml;base64,"
PAIRS = {"en-de": "German", "en-zh": "Chinese"}
LIMIT = 4 << 30
NASTY = "<script>alert(\"x\")</script> & | `code` 'quoted'"
"""A description as an untrusted recipe may hold it."""


def score(metric: str, value: float, margin: float | None = 1.0) -> ReportedScore:
    low, high = (None, None) if margin is None else (value - margin, value + margin)
    return ReportedScore(metric=metric, value=value, low=low, high=high, signature=f"{metric}|v:1", references=3)


def outcome(pair: str, testset: str, bleu: float) -> TestSetResult:
    scores = {"BLEU": score("BLEU", bleu), "chrF": score("chrF", bleu + 20)}
    stages = {f"decode:{pair}/{testset}": "d" * 64, f"score:{pair}/{testset}": "e" * 64}
    missing = "not computed: no model"
    return TestSetResult(pair=pair, testset=testset, scores=scores, missing=missing, segments=3, stages=stages)


def system(name: str, size: int, bleu: float, **more) -> SystemResult:
    """Return a system that is measured on the open set, a point worse into Chinese."""
    values = {
        "description": f"It is {name}",
        "meets_limit": size <= LIMIT,
        "parameters": 8 * 10**9,
        "bytes_by_role": {"mlp": size - 1000, "attn": 1000},
        "losses": {pair: loss_score(100 / (1 + bleu), 0.01) for pair in PAIRS},
        "outcomes": (outcome("en-de", "ACL6060", bleu), outcome("en-zh", "ACL6060", bleu - 1)),
        "stages": {"quantize": name.ljust(64, "0")},
    }
    return SystemResult(name=name, size_bytes=size, **(values | more))


def efficiency(**changes) -> EfficiencyRecord:
    """Return figures of ten seconds of audio: batch 1 in 5 s, batch 16 in 2 s, and 64 for which there is no memory."""
    texts = {"processor": "A processor", "system": "Linux", "device": "A GPU", "versions": {"torch": "2.13.0"}}
    shared = {"load_seconds": 3.0, "warm_up_seconds": 1.0, "tokens": 40, "peak_bytes": 1 << 30}
    batches = (
        BatchEfficiency(batch_size=1, rows=1, seconds=(4.0, 5.0, 7.0), device_peak_bytes=2 << 30, **shared),
        BatchEfficiency(batch_size=16, rows=4, seconds=(2.0, 2.0, 2.0), device_peak_bytes=3 << 30, **shared),
    )
    values = {
        "bundle_sha256": "0" * 64,
        "pair": "en-de",
        "testset": "ACL",
        "segments": 4,
        "audio_seconds": 10.0,
        "dtype": "bfloat16",
        "machine": MeasuredMachine(cores=2, threads=2, memory_bytes=8 << 30, **texts),
        "batches": batches,
        "did_not_fit": (UnfitBatch(batch_size=64, memory="GPU"),),
    }
    return EfficiencyRecord(format="decoding-efficiency", version=1, **(values | changes))


def upload(name: str, packed: str, bleu: float) -> SystemResult:
    """Return a system on the blind sets; packed: the system of the list that is the same model."""
    cells = [("en-de", "ACL"), ("en-de", "ACCENT"), ("en-zh", "ACL")]
    outcomes = tuple(outcome(pair, testset, bleu) for pair, testset in cells)
    return system(name, LIMIT - 9, 0, outcomes=outcomes, losses={}, stages={"quantize": packed.ljust(64, "0")})


def method(name: str, dropped: float, bleu: float) -> SystemResult:
    segmentation_results = tuple(
        SegmentationResult(
            testset=testset,
            given=testset == "ACCENT",
            segments=10,
            segment_seconds=50.0,
            speech_seconds=40.0,
            dropped_seconds=dropped,
            stage="f" * 64,
        )
        for testset in ("ACL", "ACCENT")
    )
    outcomes = upload(name, "x", bleu).outcomes
    return system(name, LIMIT - 9, 0, outcomes=outcomes, losses={}, segmentation_results=segmentation_results)


def results(campaign: str = "miniature", **more) -> Results:
    values = {
        "systems": (
            system("bf16", 15 << 30, 25.0, description=NASTY),
            system("4bit", 5 << 30, 24.0),
            system("g512", LIMIT - 5, 19.0),
            system("a$1$ <b>", 6 << 30, 24.5),
            system("sensitive", LIMIT - 9, 23.0, layers="sensitivity"),
            system("first", LIMIT - 9, 20.0, layers="first"),
            *(system(f"random{n}", LIMIT - 9, 20.0 + n, layers="random") for n in (1, 2, 3)),
            system("awq-all", LIMIT - 9, 22.5, layers="sensitivity", calibration="source only (en-de)", utterances=0),
            system("awq-32", LIMIT - 9, 21.5, layers="sensitivity", calibration="en-de pairs", utterances=32),
        ),
        "uploads": (upload("primary", "awq-all", 30.0), upload("contrastive", "sensitive", 28.0)),
        "paired": tuple(
            PairedResult(pair=pair, testset=name, metric=metric, difference=-2.0, low=-5.0, high=1.0, p_value=p)
            for pair, name, p in (("en-de", "ACL", 0.03), ("en-de", "ACCENT", 0.2), ("en-zh", "ACL", 0.06))
            for metric in ("BLEU", "chrF")
        ),
        "segmentations": (method("shas", 4.0, 20.0), method("shas+vad", 0.0, 21.0)),
        "layers": tuple(
            LayerSensitivity(layer=n, value=0.01 * n, standard_error=0.004, chosen=n < 2) for n in range(4)
        ),
        "layers_about": {"role": "mlp", "codec": "affine3g128", "stage": "a" * 64},
    }
    return Results(
        campaign=campaign,
        edition="Probe & more",
        miniature=campaign == "miniature",
        size_limit="4 GiB",
        limits={"4 GiB": LIMIT, "4 GB": 4 * 10**9},
        pairs=PAIRS,
        testsets=("ACL", "ACCENT"),
        testsets_of={"en-de": ("ACL", "ACCENT"), "en-zh": ("ACL",)},
        open_testset="ACL6060",
        commands={part: f"python -m evaluate report --only {part}" for part in ("systems", "uploads", "segmentations")},
        **(values | more),
    )


def metric_score(metric: str, testset: str = "ACL", pair: str = "en-de", **values) -> MetricScore:
    """Return the score of a metric as score.json holds it."""
    defaults = {
        "value": 1.5,
        "low": 1.0,
        "high": 2.0,
        "signature": "s",
        "segments": 2,
        "references": 2,
        "resegmented": False,
        "data_sha256": "d" * 64,
        "hypotheses_sha256": "e" * 64,
    }
    return MetricScore(metric=metric, testset=testset, pair=pair, **(defaults | values))


WORDS = ["die", "Katze", "schläft", "auf", "dem", "alten", "Dach", "und", "träumt", "von", "Fischen"]


def folder_result(recordings: int = 30, lines_each: int = 4, *, references: bool = True) -> FolderResult:
    """Return a folder of so many recordings, its later ones translated worse, some lines flagged or blank."""
    names = [f"a_recording_whose_name_is_long_and_<b>bold</b>_{n:03d}.wav" for n in range(recordings)]
    segments, hypotheses, lines = [], [], []
    for n, name in enumerate(names):
        for m in range(lines_each):
            segments.append(Segment(recording=name, start=m * 3 * SAMPLE_RATE, end=(m * 3 + 2) * SAMPLE_RATE))
            right = " ".join(WORDS[m : m + 6])
            said = " ".join(WORDS[m : max(m + 1, m + 6 - n // 6)]) if n % 7 else ""
            flags = ("blank",) if not said else ("loop",) if n % 5 == 4 else ()
            hypotheses.append(Hypothesis(segment=f"{name}/{m:04d}", text=said, flags=flags))
            lines.append(ScoredLine(recording=name, source=None, hypothesis=said, reference=right))
    figures = corpus_scores([line.hypothesis for line in lines], [line.reference for line in lines], "de")
    scores = tuple(
        MetricScore(
            testset="",
            pair="en-de",
            metric=figure.metric,
            value=figure.value,
            low=figure.low,
            high=figure.high,
            signature=figure.signature,
            segments=len(segments),
            references=len(lines),
            resegmented=False,
            data_sha256="d" * 64,
            hypotheses_sha256="e" * 64,
        )
        for figure in figures
    )
    report = {
        "pair": "en-de",
        "recordings": recordings,
        "recordings_without_segments": [],
        "references_without_recording": ["elsewhere.wav"],
        "segments": len(segments),
        "segment_seconds": 2.0 * len(segments),
        "versions": {"torch": "2"},
        "run": {
            "model_sha256": "a" * 64,
            "prompt": "<script>alert(1)</script>",
            "segments": {"method": "fixed"},
            "recordings": [{"name": name, "sha256": "c" * 64} for name in names],
        },
    }
    return FolderResult(
        report=report,
        segments=tuple(segments),
        hypotheses=tuple(hypotheses),
        scores=scores if references else (),
        lines=tuple(lines) if references else (),
        language="de",
    )


def image(uri: str) -> str:
    """Return the SVG that a data URI holds."""
    return b64decode(uri.removeprefix(SVG)).decode("utf-8")
