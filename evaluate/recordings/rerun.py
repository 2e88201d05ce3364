"""Decode recordings with a verified bundle alone, and compare with the outputs that the bundle holds.

The bundle must be verified before: its recipe and its model are used as they are. What the campaign fixes (prompt, end
token, pairs) comes from the local copy of the campaign. Segments come from the first of these that exists:

    the YAML that is given
    a YAML among the recordings, of a test set whose segments the organisers give; differences from the bundle's list
    are reported
    segments/<TESTSET>.yaml of the bundle, where all of its recordings are in the folder, by their names
    a YAML among the recordings
    the method of the bundle's recipe, with the classifier in the bundle's segmenter/ where it needs one
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluate.comparing.comparison import (
    Comparison,
    compare,
    notes,
    pair_up,
    recordings_of,
    segment_positions,
    some_of,
    summary_cells,
    worst_lines,
)
from evaluate.comparing.outputs import bundled_output
from evaluate.decoding.model_loading import LoadModel, load_on
from evaluate.recordings.recording_folder import (
    BundledSegments,
    ByMethod,
    ListedSegments,
    SegmentSource,
    given_file,
    given_file_near,
    named_as,
    only,
)
from evaluate.recordings.translate import DecodingSetup, Translation, check_model, translate, translation_text
from evaluate.scoring.unicode_form import UnicodeForm
from segment.recording_parts import EACH, MEAN
from segment.testset import TestSetFolder, read_folder
from submission.bundle.manifest import NAME as MANIFEST
from submission.bundle.manifest import SEGMENTER
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.location import chosen_campaign
from submission.bundle.untrusted.strict_json import Unreadable
from submission.errors import UserError
from submission.store.digests import canonical_json, sha256_file, write_text
from submission.store.store import library_versions
from submission.system.campaign import Campaign, Pair
from submission.system.recipe.recipe import Recipe
from submission.system.schema import nearest
from submission.text.characters import printable
from submission.text.recording_names import match_recordings
from submission.text.segments import Segment, read_segments

RESULT = "rerun.json"
OURS, SHIPPED = "this run", "shipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedBundle:
    """The parts of a verified bundle that a re-run uses."""

    folder: Path
    campaign: Campaign
    """The local copy, not the bundle's."""
    recipe: Recipe
    versions: dict[str, str]
    """Versions of the libraries that it was built with, from its manifest."""
    segments: dict[str, tuple[Segment, ...]]
    """By test set."""

    def recordings(self, testset: str) -> list[str]:
        """Return the recordings of a test set that have segments, in their order."""
        return list(dict.fromkeys(segment.recording for segment in self.segments[testset]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """The result of a re-run."""

    translation: Translation
    shipped: str
    """The bundle's output that this run is compared with, `en-de/ACL`; empty where there is none."""
    comparison: Comparison | None
    versions: dict[str, tuple[str, str]]
    """Library -> (version in the bundle, version here), where they differ."""
    only_listed: tuple[str, ...]
    """Where the organisers' list is among the recordings: segments of it that the bundle does not have."""
    only_bundled: tuple[str, ...]
    """Segments of the bundle that are not in that list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunInputs:
    """The recordings to translate, and the source of their segments."""

    folder: TestSetFolder
    segment_source: SegmentSource
    testset: str
    """The bundle's test set with these recordings; empty where there is none."""
    listed: bool = False
    """Whether the segments are those that the organisers give for this test set, in a YAML among the recordings."""


def open_bundle(folder: Path, campaign: str | None) -> VerifiedBundle:
    """Return a verified bundle; campaign: as for `verify`. Raises UserError where it was not verified."""
    view = BundleView(folder, chosen_campaign(folder, campaign))
    if isinstance(view.recipe, Unreadable) or isinstance(view.manifest, Unreadable):
        raise UserError(f"bundle {folder}", "its recipe or manifest cannot be read", "verify it first")
    return VerifiedBundle(
        folder=folder,
        campaign=view.campaign,
        recipe=view.recipe,
        versions={printable(name): printable(str(version)) for name, version in view.manifest["provenance"].items()},
        segments={
            testset.name: tuple(read_segments(folder / "segments" / f"{testset.name}.yaml"))
            for testset in view.campaign.testsets
        },
    )


def matching_testset(bundle: VerifiedBundle, folder: TestSetFolder, requested: str | None) -> str:
    """Return the test set of the bundle of which a folder has all recordings, or alone has any, by their names, or "".

    requested: the one to use; UserError where it is not there, and where several are and none is requested.
    """
    here = [recording.name for recording in folder.recordings]
    missing = {}
    for name in bundle.segments:
        recordings = bundle.recordings(name)
        found = match_recordings(recordings, here)
        missing[name] = [recording for recording in recordings if recording not in found]
    if requested is not None:
        if requested not in missing:
            raise UserError(f"--testset {requested}", "the bundle has no such test set", nearest(requested, missing))
        if missing[requested]:
            what = f"{len(missing[requested])} of its recordings are not in the folder (first: {missing[requested][0]})"
            raise UserError(f"--testset {requested}", what, "add them, or omit --testset")
        return requested
    complete = [name for name in missing if not missing[name] and bundle.segments[name]]
    if len(complete) > 1:
        what = f"holds the recordings of several test sets: {', '.join(complete)}"
        raise UserError("--audio", what, "name one with --testset, or the folder of one")
    some = [name for name in missing if len(missing[name]) < len(bundle.recordings(name))]
    return complete[0] if complete else some[0] if len(some) == 1 else ""


def _print_matches(bundle: VerifiedBundle, folder: TestSetFolder, testset: str) -> None:
    """Print which recordings of a test set are there under another name, and which are not."""
    recordings = bundle.recordings(testset)
    found = match_recordings(recordings, [recording.name for recording in folder.recordings])
    renamed = [f"{name} as {file}" for name, file in found.items() if name != file]
    absent = [name for name in recordings if name not in found]
    for what, names in (("recordings by another name", renamed), ("recordings that are not there", absent)):
        if names:
            some = ", ".join(printable(name) for name in names[:5]) + (", …" if len(names) > 5 else "")
            print(f"{testset}: {len(names)} of {len(recordings)} {what}: {some}", file=sys.stderr, flush=True)


def choose_inputs(
    bundle: VerifiedBundle,
    audio: Path,
    segments: Path | None,
    testset: str | None,
    resegment: bool,
    channels: str | None = None,
) -> RerunInputs:
    """Return what to translate of a folder, and how its recordings become segments.

    segments: the given YAML; testset: the requested one; resegment: whether to segment recordings of which the bundle
    holds the segments; channels: what is translated of several, by default what the campaign says of the test set.
    Raises UserError where these contradict each other, and where a classifier is missing.
    """
    if resegment and segments:
        raise UserError("--resegment", "contradicts --segments", "use one of them")
    folder = read_folder(audio)
    known = matching_testset(bundle, folder, testset)
    if known:
        _print_matches(bundle, folder, known)
        own = only(folder, bundle.recordings(known))
        is_given = bundle.campaign.testset(known).segmentation == "given" and not (segments or resegment)
        if is_given and (listed := given_file_near(own.recordings, audio)):
            given = _listed_segments(bundle, listed, known, channels)
            named = named_as(folder, bundle.recordings(known))
            return RerunInputs(folder=named, segment_source=given, testset=known, listed=True)
        folder = folder if segments else own
    if found := segments or (None if known or resegment else given_file(audio)):
        given = _listed_segments(bundle, found, known, channels)
        return RerunInputs(folder=folder, segment_source=given, testset=known)
    if known and not resegment:
        path = bundle.folder / "segments" / f"{known}.yaml"
        names = {recording.name for recording in folder.recordings}
        here = tuple(segment for segment in bundle.segments[known] if segment.recording in names)
        kept = BundledSegments(testset=known, path=path, segments=here)
        return RerunInputs(folder=folder, segment_source=kept, testset=known)
    return RerunInputs(folder=folder, segment_source=_by_recipe(bundle, folder, audio, known, channels), testset=known)


def _by_recipe(
    bundle: VerifiedBundle, folder: TestSetFolder, audio: Path, known: str, channels: str | None
) -> ByMethod:
    """Return the segmentation of the bundle's recipe, in regions where the test set has them among the recordings."""
    options, classifier = bundle.recipe.segment, bundle.folder / SEGMENTER
    if options.about.needs_classifier and not classifier.is_dir():
        what = f"its recipe segments with {options.method}, and it holds no classifier ({SEGMENTER}/)"
        raise UserError(f"bundle {bundle.folder}", what, "name the segments with --segments YAML")
    in_campaign = bundle.campaign.testset(known) if known else None
    by_regions = in_campaign is not None and in_campaign.segmentation == "regions"
    return ByMethod(
        options=options,
        classifier=classifier,
        channels=channels or (in_campaign.channels if in_campaign else MEAN),
        regions=given_file_near(folder.recordings, audio) if by_regions else None,
    )


def _listed_segments(bundle: VerifiedBundle, path: Path, known: str, channels: str | None) -> ListedSegments:
    """Return the segments of a list, of the channels that the campaign says for given segments, or as requested."""
    if channels == EACH:
        raise UserError(f"--channels {EACH}", f"contradicts the segments in {path}", "take mean or first")
    in_campaign = bundle.campaign.testset(known) if known else None
    taken = channels or (in_campaign.channels if in_campaign and in_campaign.segmentation == "given" else MEAN)
    return ListedSegments(path=path, window_seconds=bundle.campaign.model.window_seconds, channels=taken)


def decoding_setup(bundle: VerifiedBundle, pair: Pair, device: str, load: LoadModel) -> DecodingSetup:
    """Return how a bundle turns segments into lines; UserError where its encoder's window is not the campaign's."""
    check_model(bundle.folder / "model", bundle.campaign)
    return DecodingSetup(
        model=bundle.folder / "model",
        sha256=sha256_file(bundle.folder / MANIFEST),  # which the model has been verified against
        campaign=bundle.campaign,
        pair=pair,
        options=bundle.recipe.decode,
        device=device,
        load=load,
    )


def rerun(
    bundle: VerifiedBundle,
    pair: Pair,
    audio: Path,
    out: Path,
    *,
    segments: Path | None = None,
    testset: str | None = None,
    resegment: bool = False,
    channels: str | None = None,
    device: str = "auto",
    references: Path | None = None,
    form: UnicodeForm = "",
    worst: int,
    load: LoadModel = load_on,
) -> Rerun | None:
    """Translate a folder with a bundle into `out` (see `evaluate.recordings.translate`) and compare with its outputs.

    The result is also written to `out/rerun.json`; of several processes the first one returns it. references: to score
    against, form: in which Unicode form; worst: how many differences to keep; load: as of `DecodingSetup`. Other
    arguments as `choose_inputs`.
    """
    inputs = choose_inputs(bundle, audio, segments, testset, resegment, channels)
    decoding = decoding_setup(bundle, pair, device, load)
    known = inputs.testset
    translation = translate(decoding, inputs.folder, inputs.segment_source, out, references, known, form)
    if translation is None:
        return None
    shipped = _shipped(pair, known)
    ours = [str(place) for place in translation.output.places] if inputs.listed else []
    theirs = [str(place) for place in segment_positions(bundle.segments[known])] if inputs.listed else []
    result = Rerun(
        translation=translation,
        shipped=shipped,
        comparison=_compare_with_shipped(bundle, translation, shipped, worst),
        versions=_differing_versions(bundle),
        only_listed=tuple(name for name in ours if name not in set(theirs)),
        only_bundled=tuple(name for name in theirs if name not in set(ours)),
    )
    write_text(out / RESULT, canonical_json(result_json(result)))
    return result


def _compare_with_shipped(
    bundle: VerifiedBundle, translation: Translation, shipped: str, worst: int
) -> Comparison | None:
    """Return how the lines differ from a shipped output; None where there is none, or none of these recordings."""
    if not shipped:
        return None
    theirs = bundled_output(bundle.folder, *shipped.split("/"))
    if not set(recordings_of(translation.output)) & set(recordings_of(theirs)):
        return None
    return compare(pair_up(translation.output, theirs), worst)


def _differing_versions(bundle: VerifiedBundle) -> dict[str, tuple[str, str]]:
    """Return library -> (version in the bundle, version here), where they differ."""
    here = library_versions()
    return {
        name: (version, here.get(name, "none"))
        for name, version in bundle.versions.items()
        if here.get(name) != version
    }


def _shipped(pair: Pair, testset: str) -> str:
    """Return the name of a bundle's output, `en-de/ACL`; "" where the pair does not have the test set."""
    return f"{pair.name}/{testset}" if testset in pair.testsets else ""


def result_json(result: Rerun) -> dict[str, Any]:
    """Return a re-run's result as JSON."""
    return {
        "segments_only_in_the_list": list(result.only_listed),
        "segments_only_in_the_bundle": list(result.only_bundled),
        "comparison": asdict(result.comparison) if result.comparison else None,
        "report": result.translation.report,
        "shipped": result.shipped,
        "versions_that_differ": {
            name: {"bundle": bundle, "here": here} for name, (bundle, here) in sorted(result.versions.items())
        },
    }


def result_text(result: Rerun) -> str:
    """Return a re-run's result as text."""
    lines = [translation_text(result.translation)]
    versions = ", ".join(f"{name} {b} -> {h}" for name, (b, h) in sorted(result.versions.items()))
    lines.append(f"libraries: {f'versions differ from the bundle: {versions}' if versions else 'as in the bundle'}")
    for which, names in (("given, not", result.only_listed), ("not given, but", result.only_bundled)):
        if names:
            lines.append(f"segments: {len(names)} {which} in the bundle: {some_of(names)}")
    comparison = result.comparison
    if comparison is None:
        lines.append("not compared: the bundle holds no output of this pair for these recordings")
        return "\n".join(lines)
    identical, chrf, blank = summary_cells(comparison)
    lines.append(f"compared with the shipped {result.shipped}: identical {identical}, chrF {chrf}, blank {blank}")
    lines += notes(comparison, OURS, SHIPPED)
    if comparison.worst:
        lines += ["largest differences:", *worst_lines(comparison, OURS, SHIPPED)]
    lines.append(f"chrF: this run against the shipped output as reference, {comparison.signature}")
    return "\n".join(lines)
