"""What a report is made of: figures with their intervals, and where each comes from. Plain values, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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
    """Lower end of its 95 % interval; None where none was estimated."""
    high: float | None = None
    signature: str = ""
    references: int = 0
    """Reference lines that were compared."""
    resegmented: bool = False
    data_sha256: str = ""
    hypotheses_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSetResult:
    """What a system makes of one test set of a pair."""

    pair: str
    testset: str
    scores: dict[str, ReportedScore]
    """Metric -> figure; a metric that was not computed is not there."""
    missing: str = ""
    """Why a metric that is not there was not computed."""
    segments: int = 0
    blank: int = 0
    """Hypotheses without text."""
    stages: dict[str, str] = field(default_factory=dict)
    """Stage -> key, of every stage that the figures come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationResult:
    """How a test set was cut; speech is what the voice-activity detector hears."""

    testset: str
    given: bool
    """Whether the organisers ship the segments, so that every method has the same."""
    segments: int
    segment_seconds: float
    speech_seconds: float
    dropped_seconds: float
    """Speech that is in no segment."""
    stage: str
    """Key of the stage segment:<NAME>."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemResult:
    """One system, or one way of segmenting."""

    name: str
    description: str
    size_bytes: int
    """Every file of the model folder."""
    meets_limit: bool
    parameters: int
    layers: str = ""
    """How the layers of a coarser codec were chosen: `sensitivity`, `random`, …; empty where none are."""
    calibration: str = ""
    """What AWQ is calibrated on, as the paper names its sets; empty without AWQ."""
    utterances: int | None = None
    """How many utterances that is; 0 for all; None without AWQ."""
    bytes_by_role: dict[str, int] = field(default_factory=dict)
    """Family of roles -> bytes, from the forecast; together they are size_bytes."""
    losses: dict[str, ReportedScore] = field(default_factory=dict)
    """Pair -> cross-entropy on dev, nats per target token."""
    outcomes: tuple[TestSetResult, ...] = ()
    cuts: tuple[SegmentationResult, ...] = ()
    stages: dict[str, str] = field(default_factory=dict)

    @property
    def bits_per_parameter(self) -> float:
        return 8 * self.size_bytes / self.parameters

    def outcome(self, pair: str, testset: str) -> TestSetResult | None:
        """Return what was measured on a test set of a pair, None where that was not asked."""
        return next((o for o in self.outcomes if (o.pair, o.testset) == (pair, testset)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """What a coarser codec in one layer costs: the change of loss, mean of the pairs."""

    layer: int
    value: float
    standard_error: float
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedResult:
    """By how much the second upload differs from the first on one test set, by a paired bootstrap."""

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
    """Everything that a report says."""

    campaign: str
    edition: str
    miniature: bool
    """Whether the campaign is made here: scores of a tiny model on synthetic speech."""
    size_limit: str
    """With its unit, `4 GiB`."""
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
    """Of two uploads, every test set and metric that both are scored by."""
    segmentations: tuple[SystemResult, ...] = ()
    layers: tuple[LayerSensitivity, ...] = ()
    layers_about: dict[str, Any] = field(default_factory=dict)
    """What was ranked: `role`, `codec`, `stage`."""


def loss_score(value: float, standard_error: float) -> ReportedScore:
    """Return a mean with its 95 % interval from its standard error."""
    margin = NORMAL_95 * standard_error
    return ReportedScore(metric="loss", value=value, low=value - margin, high=value + margin)


def overlap(one: ReportedScore, two: ReportedScore) -> bool | None:
    """Say whether two 95 % intervals overlap; None where one has none."""
    if one.low is None or one.high is None or two.low is None or two.high is None:
        return None
    return one.low <= two.high and two.low <= one.high


def best(metric: str, values: Sequence[float]) -> float:
    """Return the best of some values of a metric."""
    return min(values) if metric in LOWER_IS_BETTER else max(values)
