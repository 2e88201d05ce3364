"""The results of a report as plain values: figures with their intervals and the stages that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from submission.bundle.efficiency import EfficiencyRecord

METRICS = ("BLEU", "chrF", "TER", "COMET")
LOWER_IS_BETTER = frozenset({"TER", "loss"})
NOT_COMPUTED = "not computed"
NORMAL_95 = 1.959964
"""Standard errors on either side of a mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedScore:
    """One figure of one test set."""

    metric: str
    value: float
    low: float | None = None
    """Lower bound of its 95 % interval; None where none was estimated."""
    high: float | None = None
    signature: str = ""
    references: int = 0
    """Number of compared reference lines."""
    resegmented: bool = False
    data_sha256: str = ""
    hypotheses_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSetResult:
    """The scores and counts of a system on one test set of a pair."""

    pair: str
    testset: str
    scores: dict[str, ReportedScore]
    """Metric -> score, for the computed metrics."""
    missing: str = ""
    """Why the other metrics were not computed."""
    segments: int = 0
    blank: int = 0
    """Hypotheses without text."""
    stages: dict[str, str] = field(default_factory=dict)
    """Stage -> key, of every stage that the figures come from."""

    __test__ = False  # not a test class, despite its name


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationResult:
    """The segmentation of a test set; speech is what the voice-activity detector finds."""

    testset: str
    given: bool
    """Whether the organisers give the segments, so that every method has the same."""
    segments: int
    segment_seconds: float
    speech_seconds: float
    dropped_seconds: float
    """Speech outside all segments."""
    stage: str
    """Key of the stage segment:<NAME>."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemResult:
    """The measurements of one system."""

    name: str
    description: str
    size_bytes: int
    """Every file of the model folder."""
    meets_limit: bool
    parameters: int
    layers: str = ""
    """How the layers of a coarser codec were chosen: `sensitivity`, `random`, …; empty where none are."""
    calibration: str = ""
    """AWQ's calibration set, as the paper names it; empty without AWQ."""
    utterances: int | None = None
    """Its number of utterances; 0 for all; None without AWQ."""
    recovered: bool = False
    """Whether numbers were tuned after packing, so that it differs in more than layers or calibration set."""
    bytes_by_role: dict[str, int] = field(default_factory=dict)
    """Group of roles -> bytes, from the forecast; the sum is size_bytes."""
    losses: dict[str, ReportedScore] = field(default_factory=dict)
    """Pair -> cross-entropy on dev, nats per target token."""
    outcomes: tuple[TestSetResult, ...] = ()
    segmentation_results: tuple[SegmentationResult, ...] = ()
    efficiency: EfficiencyRecord | None = None
    """Speed and memory as measured of its bundle; None where they were not."""
    stages: dict[str, str] = field(default_factory=dict)
    labelled: bool = False
    """Whether it was requested by name, so that pictures name it wherever it lies."""

    @property
    def bits_per_parameter(self) -> float:
        """Bits of the model folder over the parameters of the base model."""
        return 8 * self.size_bytes / self.parameters

    @property
    def model_key(self) -> str | None:
        """Key of the stage whose packed model this is."""
        return self.stages.get("recover") or self.stages.get("quantize")

    def outcome(self, pair: str, testset: str) -> TestSetResult | None:
        """Return the results on a test set of a pair, None where it was not measured."""
        return next((o for o in self.outcomes if (o.pair, o.testset) == (pair, testset)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """The change of loss by a coarser codec in one layer, mean of the pairs."""

    layer: int
    value: float
    standard_error: float
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedResult:
    """The difference of the second upload from the first on one test set, by a paired bootstrap."""

    pair: str
    testset: str
    metric: str
    difference: float
    """In the metric's own points."""
    low: float
    high: float
    """Bounds of its 95 % interval."""
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All results of a report."""

    campaign: str
    edition: str
    miniature: bool
    """Whether this is the embedded campaign: scores of a tiny model on synthetic speech."""
    size_limit: str | None
    """With its unit, `4 GiB`; None where the campaign states none."""
    limits: dict[str, int]
    """The limit, and its other reading (`4 GB` of `4 GiB`) -> bytes."""
    pairs: dict[str, str]
    """Pair -> target language, `German`."""
    testsets: tuple[str, ...]
    """The blind ones."""
    testsets_of: dict[str, tuple[str, ...]]
    """Pair -> its blind test sets."""
    open_testset: str
    commands: dict[str, str]
    """Part of the report -> the command that makes it."""
    systems: tuple[SystemResult, ...] = ()
    uploads: tuple[SystemResult, ...] = ()
    paired: tuple[PairedResult, ...] = ()
    """Of two uploads, on every test set and metric that both have."""
    segmentations: tuple[SystemResult, ...] = ()
    layers: tuple[LayerSensitivity, ...] = ()
    layers_about: dict[str, Any] = field(default_factory=dict)
    """The ranking: `role`, `codec`, `stage`, `system`."""


def loss_score(value: float, standard_error: float) -> ReportedScore:
    """Return a mean with its 95 % interval from its standard error."""
    margin = NORMAL_95 * standard_error
    return ReportedScore(metric="loss", value=value, low=value - margin, high=value + margin)


def overlap(one: ReportedScore, two: ReportedScore) -> bool | None:
    """Return whether two 95 % intervals overlap; None where one has none."""
    if one.low is None or one.high is None or two.low is None or two.high is None:
        return None
    return one.low <= two.high and two.low <= one.high


def best(metric: str, values: Sequence[float]) -> float:
    """Return the best of some values of a metric."""
    return min(values) if metric in LOWER_IS_BETTER else max(values)
