"""Options of segmentation and of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from submission.system.fallbacks import FALLBACKS
from submission.system.recipe.requirement import require
from submission.system.registry import SEGMENTATION_METHODS, SegmentationMethod, SegmentationName

MOST_SECONDS, MOST_PASSES, MOST_BATCH = 600, 100, 4096
"""Of a segment, of averaged passes, of a batch: what a re-run would do with a bundle's recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOptions:
    """How recordings without given segments are segmented; the defaults of SHAS."""

    method: SegmentationName
    """`shas+vad` adds the speech that a voice-activity detector finds besides; `vad` and `fixed` are baselines. `gold`
    takes the references' own segments: to measure by, never to upload."""
    max_seconds: float
    min_seconds: float
    threshold: float
    """Speech probability from which a frame stays when a segment is trimmed."""
    inference_times: int = 1
    """Shifted passes of the classifier that are averaged."""
    batch_size: int = 14
    """Windows per batch, for the speed. It changes no bit of the result on a processor, but for `original_batching`;
    on a GPU it may change the last ones."""
    original_batching: bool = False
    """Normalise windows over the padded rows of a batch, as the published code does; for comparisons with it."""

    def __post_init__(self) -> None:
        require(
            0 <= self.min_seconds < self.max_seconds,
            f"min_seconds: {self.min_seconds} is not below max_seconds {self.max_seconds}; exchange them",
        )
        require(
            self.max_seconds <= MOST_SECONDS,
            f"max_seconds: {self.max_seconds} is beyond {MOST_SECONDS}; write at most that",
        )
        for name, most in (("inference_times", MOST_PASSES), ("batch_size", MOST_BATCH)):
            require(getattr(self, name) <= most, f"{name}: {getattr(self, name)} is beyond {most}; write at most that")
        require(0 < self.threshold < 1, f"threshold: {self.threshold} is no probability; write e.g. 0.5")
        for name in ("inference_times", "batch_size"):
            require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive; write at least 1")

    @property
    def about(self) -> SegmentationMethod:
        """The method's entry in the registry."""
        return SEGMENTATION_METHODS[self.method]


MOST_NEW_TOKENS = 1024
"""More than thirty seconds of speech can hold several times over. A bundle's recipe is untrusted: without a bound it
could keep whoever runs it again for days."""
MOST_BEAMS = 64
MOST_BATCH_SECONDS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """How segments become hypotheses."""

    dtype: Literal["bfloat16", "float32"]
    num_beams: int
    max_new_tokens: int
    batch_size: int
    """Most segments in a batch."""
    batch_seconds: float = 0.0
    """Most seconds of audio in a batch, padding and beams counted; 0 for no such limit."""
    fallbacks: tuple[str, ...] = ()
    """Names in `submission.system.fallbacks`, tried on hypotheses that repeat themselves or are empty; none is plain
    decoding, as in the paper."""

    def __post_init__(self) -> None:
        for name in ("num_beams", "max_new_tokens", "batch_size"):
            require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive; write at least 1")
        bounds = {"num_beams": MOST_BEAMS, "max_new_tokens": MOST_NEW_TOKENS, "batch_size": MOST_BATCH}
        for name, most in {**bounds, "batch_seconds": MOST_BATCH_SECONDS}.items():
            require(getattr(self, name) <= most, f"{name}: {getattr(self, name)} is beyond {most}; write at most that")
        require(self.batch_seconds >= 0, f"batch_seconds: {self.batch_seconds} is negative; write 0 for no such limit")
        for name in self.fallbacks:
            require(name in FALLBACKS, f"fallbacks: {name!r} is unknown; choose from {', '.join(FALLBACKS)}")
        repeated = len(set(self.fallbacks)) < len(self.fallbacks)
        require(not repeated, f"fallbacks: {list(self.fallbacks)} repeats a name; write each once")
