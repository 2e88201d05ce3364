"""Measure a bundle's speed and memory with several sizes of batches, and put the figures into it.

The segments are the bundle's own of a test set, as many as requested, evenly over their lengths: so the longest are
among them. They are found, and recordings that are not seekable decoded, before anything is timed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evaluate.efficiency.batch_measurement import DecodingWork, measure_batch
from submission.benchmarking import describe_machine
from submission.bundle.bundle import add_efficiency
from submission.bundle.efficiency import (
    ALL_RECORDINGS,
    FORMAT,
    BatchEfficiency,
    EfficiencyRecord,
    MeasuredMachine,
    UnfitBatch,
    measured_digest,
)
from submission.bundle.manifest import Manifest
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.location import chosen_campaign
from submission.bundle.untrusted.strict_json import Unreadable
from submission.counting import counted
from submission.errors import UserError
from submission.text.segments import SAMPLE_RATE, Segment

if TYPE_CHECKING:
    from evaluate.recordings.rerun import RerunInputs, VerifiedBundle
    from submission.system.campaign import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyRequest:
    """What is measured of a verified bundle."""

    bundle: Path
    campaign: str | None
    """As for `verify`."""
    pair: str
    """Of its first pair, where empty."""
    audio: Path
    testset: str | None
    batch_sizes: tuple[int, ...]
    segments: int
    """Most segments."""
    runs: int
    device: str


def measure_bundle(request: EfficiencyRequest) -> EfficiencyRecord:
    """Return what was measured of a verified bundle, and put it into the bundle.

    Raises UserError, before anything is measured, where recordings or pair are not those of the bundle.
    """
    from evaluate.recordings.rerun import choose_inputs, open_bundle
    from evaluate.recordings.translate import check_model, find_pair

    opened = open_bundle(request.bundle, request.campaign)
    pair = find_pair(opened.campaign, request.pair) if request.pair else opened.campaign.pairs[0]
    check_model(request.bundle / "model", opened.campaign)
    inputs = choose_inputs(opened, request.audio, None, request.testset, False)
    with tempfile.TemporaryDirectory() as aside:
        work = _decoding_work(request, opened, pair, inputs, Path(aside))
        measured = [_announced(work, size) for size in sorted(set(request.batch_sizes))]
    view = BundleView(request.bundle, chosen_campaign(request.bundle, request.campaign))
    assert not isinstance(view.recipe, Unreadable) and view.facts is not None  # of a verified bundle
    manifest = _manifest(view)
    record = EfficiencyRecord(
        format=FORMAT,
        version=1,
        bundle_sha256=measured_digest(manifest["files"]),
        pair=pair.name,
        testset=inputs.testset if inputs.testset in pair.testsets else ALL_RECORDINGS,
        segments=len(work.segments),
        audio_seconds=round(sum(segment.end - segment.start for segment in work.segments) / SAMPLE_RATE, 3),
        dtype=work.options.dtype,
        machine=_machine(request.device),
        batches=tuple(one for one in measured if isinstance(one, BatchEfficiency)),
        did_not_fit=tuple(one for one in measured if isinstance(one, UnfitBatch)),
    )
    add_efficiency(request.bundle, manifest, record, campaign=view.campaign, recipe=view.recipe, facts=view.facts)
    return record


def _decoding_work(
    request: EfficiencyRequest, bundle: VerifiedBundle, pair: Pair, inputs: RerunInputs, aside: Path
) -> DecodingWork:
    """Return what every measurement decodes; copies of recordings that are not seekable lie in `aside`."""
    from evaluate.decoding.audio_files import readable_in_pieces
    from segment.probabilities.speech_probabilities import ProbabilityCache
    from submission.runtime.prompt import render_prompt

    found, _ = inputs.segment_source(inputs.folder, ProbabilityCache(folder=aside / "probabilities"))
    segments = evenly(found, request.segments)
    if not segments:
        raise UserError(f"--audio {request.audio}", "no segments to translate", "name recordings with speech")
    return DecodingWork(
        model=request.bundle / "model",
        device=request.device,
        options=bundle.recipe.decode,
        prompt=render_prompt(bundle.campaign.prompt, pair.target_language),
        end_token=bundle.campaign.model.end_token,
        segments=tuple(segments),
        recordings=readable_in_pieces(inputs.folder, segments, aside / "samples"),
        runs=request.runs,
    )


def evenly(segments: Sequence[Segment], most: int) -> list[Segment]:
    """Return at most so many of the segments, the longest among them and the others evenly over the lengths."""
    ordered = sorted(segments, key=lambda segment: segment.start - segment.end)
    count = min(most, len(ordered))
    return [ordered[number * len(ordered) // count] for number in range(count)]


def _announced(work: DecodingWork, size: int) -> BatchEfficiency | UnfitBatch:
    about = f"{counted(len(work.segments), 'segment')}, {counted(work.runs, 'run')} after loading and a warm-up"
    print(f"efficiency: batch {size}, {about}", file=sys.stderr, flush=True)
    return measure_batch(work, size)


def _machine(device: str) -> MeasuredMachine:
    import torch

    about = describe_machine()
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    name = torch.cuda.get_device_name(None if device == "auto" else device) if on_gpu else "cpu"
    return MeasuredMachine(
        processor=" ".join(about["processor"].split()),
        cores=about["cores"],
        threads=torch.get_num_threads(),  # as the processes of the measurements: by the same variables
        memory_bytes=about["memory_bytes"],
        system=about["system"],
        device=name,
        versions=about["versions"],
    )


def _manifest(view: BundleView) -> Manifest:
    assert not isinstance(view.manifest, Unreadable)  # of a verified bundle
    return Manifest(**view.manifest)  # type: ignore[typeddict-item]  # whose schema was verified
