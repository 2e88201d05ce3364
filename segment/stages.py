"""The stage function of segmentation, and the models that it runs, loaded once for many test sets."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submission.store.store import Stage, StageFunction, Store
from submission.system.revisions import REVISIONS

if TYPE_CHECKING:
    from segment.probabilities.speech_probabilities import Detectors
    from segment.recording_parts import RecordingPart
    from submission.system.recipe.decoding_options import SegmentOptions

NOT_READ = {"threshold": 0.5}
"""Values of required options that a method does not read, and its key therefore lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedDetectors:
    """Gives the models that the options of a segmentation stage name, each loaded when the first stage needs it."""

    batch_size: int | None = None
    """Windows per batch of the classifier where the options do not fix it: there it changes the speed alone."""
    classifier_digest: str = ""
    """Digest of the classifier's folder, by which frame probabilities are cached."""
    _made: dict[str, Detectors] = field(default_factory=dict)

    def __call__(self, options: Mapping[str, Any], inputs: Mapping[str, Path]) -> Detectors:
        """Return the detectors of a stage; options: the stage's own; inputs: its folders, `classifier` among them."""
        from segment.probabilities.detectors import make_detectors, vad_detectors

        name = "given" if takes_given(options) else f"{segment_options(options)} {inputs.get('classifier')}"
        if name not in self._made:
            revision = REVISIONS["segment"]
            if takes_given(options):
                self._made[name] = vad_detectors(revision)
            else:
                speed = {"batch_size": self.batch_size} if self.batch_size else {}
                chosen = segment_options(speed | dict(options))
                classifier = inputs.get("classifier", Path())
                self._made[name] = make_detectors(chosen, classifier, self.classifier_digest, revision)
        return self._made[name]


def shared_detectors(stages: list[Stage], batch_size: int) -> SharedDetectors:
    """Return what gives the models of several segmentation stages of one system."""
    digests = [stage.inputs["classifier"].digest for stage in stages if "classifier" in stage.inputs]
    return SharedDetectors(batch_size=batch_size, classifier_digest=digests[0] if digests else "")


def takes_given(options: Mapping[str, Any]) -> bool:
    """Return whether the segments are read from a file: the test set's own, or the references' by the method `gold`."""
    from submission.system.registry import SEGMENTATION_METHODS

    return options["segmentation"] == "given" or SEGMENTATION_METHODS[options["method"]].from_references


def segment_options(options: Mapping[str, Any]) -> SegmentOptions:
    """Return the options of a method, from those of a stage."""
    from submission.system.recipe.decoding_options import SegmentOptions
    from submission.system.schema import parse_options

    return parse_options(SegmentOptions, NOT_READ | dict(options))


def probabilities_folder(store: Store) -> Path:
    """Return where frame probabilities are cached: beside the store's artifacts, since several stages share them."""
    return store.root / "frame_probabilities"


def segment(
    options: dict[str, Any],
    inputs: dict[str, Path],
    out: Path,
    *,
    detectors: SharedDetectors | None = None,
    probabilities: Path | None = None,
    label: str = "segment",
    allow_missing: bool = False,
) -> None:
    """Write segments.yaml and a report on a test set.

    detectors: where models are loaded once for several stages; probabilities: folder in which those of frames are
    cached, by default a temporary one; label: of the progress line; allow_missing: whether recordings of FILE_ORDER may
    be missing.
    """
    from segment.probabilities.speech_probabilities import ProbabilityCache
    from segment.segmentation import SEGMENTS, TestSetOptions, segment_testset, write_given_segmentation

    about = TestSetOptions(channels=options["channels"], allow_missing=allow_missing)
    models = (detectors or SharedDetectors())(options, inputs)
    with tempfile.TemporaryDirectory(prefix="probabilities-") as scratch:
        cache = ProbabilityCache(folder=probabilities or Path(scratch))
        if takes_given(options):
            file = inputs["gold"] / SEGMENTS if "gold" in inputs else None
            write_given_segmentation(inputs["audio"], options["window_seconds"], models, cache, label, out, file, about)
        else:
            by_regions = options["segmentation"] == "regions"
            method = segment_options(options)
            segment_testset(inputs["audio"], method, models, cache, label, out, about, by_regions=by_regions)


def parts_of_stage(stage: Stage, store: Store) -> list[RecordingPart]:
    """Return the parts of recordings of which a stage needs probabilities; nothing where they cannot be read."""
    from segment.segmentation import parts_of_testset

    folder, options = store.locate(stage.inputs["audio"]), stage.options
    by_regions = options["segmentation"] == "regions" and not takes_given(options)
    channels = "mean" if takes_given(options) else options["channels"]
    return parts_of_testset(folder, channels, by_regions=by_regions)


def segmented(stage: Stage, store: Store, detectors: SharedDetectors, *, allow_missing: bool = False) -> Path:
    """Return the folder of a stage segment:<NAME>, built where it is missing; allow_missing: as for `segment`."""
    cached = probabilities_folder(store)
    work = functools.partial(
        segment, detectors=detectors, probabilities=cached, label=stage.id, allow_missing=allow_missing
    )
    return store.build(stage, work)


STAGES: dict[str, StageFunction] = {"segment": segment}
"""Stage -> the function that builds it."""
