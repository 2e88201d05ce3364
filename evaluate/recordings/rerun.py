"""A bundle decoded again, with nothing but what it holds, and held against the outputs that it ships.

The bundle must be verified before: its recipe and its model are read as they are. What the campaign fixes (prompt, end
token, pairs) comes from the checker's own copy. Segments come from the first of these that there is:

    the YAML that is given
    segments/<TESTSET>.yaml of the bundle, where all of its recordings are in the folder, by their names
    a YAML that lies among the recordings
    the method of the bundle's recipe, with the classifier in the bundle's segmenter/ where it needs one
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from evaluate.comparing.comparison import Comparison, compare, notes, pair_up, recordings_of, summary_cells, worst_lines
from evaluate.comparing.outputs import bundled_output
from evaluate.recordings.recording_folder import Cut, Given, Kept, Segmenting, given_file, only
from evaluate.recordings.translate import Decoding, Translation, check_model, translate, translation_text
from segment.testset import TestSetFolder, read_folder
from submission.bundle.checks.bundle_view import BundleView
from submission.bundle.checks.location import chosen_campaign
from submission.bundle.checks.strict_json import Unreadable
from submission.bundle.manifest import NAME as MANIFEST
from submission.bundle.manifest import SEGMENTER
from submission.errors import UserError
from submission.store.digests import canonical_json, sha256_file, write_text
from submission.store.store import library_versions
from submission.system.campaign import Campaign, Pair
from submission.system.recipe import Recipe
from submission.system.schema import nearest
from submission.text.characters import printable
from submission.text.segments import Segment, read_segments

RESULT = "rerun.json"
OURS, SHIPPED = "this run", "shipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a re-run takes from a verified bundle."""

    folder: Path
    campaign: Campaign
    """The checker's own copy."""
    recipe: Recipe
    versions: dict[str, str]
    """Versions of the libraries that it was built with, as its manifest says."""
    segments: dict[str, tuple[Segment, ...]]
    """By test set."""

    def recordings(self, testset: str) -> list[str]:
        """Return the recordings of a test set that have segments, in their order."""
        return list(dict.fromkeys(segment.recording for segment in self.segments[testset]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """What a re-run has done and found."""

    translation: Translation
    shipped: str
    """The shipped output that this run is compared with, `en-de/ACL`; empty where the bundle ships none."""
    comparison: Comparison | None
    versions: dict[str, tuple[str, str]]
    """Library -> (version in the bundle, version here), where they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is translated, and in which segments."""

    folder: TestSetFolder
    segmenting: Segmenting
    testset: str
    """The bundle's test set whose recordings these are; empty where they are none's."""


def open_bundle(folder: Path, campaign: str | None) -> Bundle:
    """Return a verified bundle; campaign: as for `verify`. Raises UserError where it was not verified."""
    view = BundleView(folder, chosen_campaign(folder, campaign))
    if isinstance(view.recipe, Unreadable) or isinstance(view.manifest, Unreadable):
        raise UserError(f"bundle {folder}", "its recipe or manifest cannot be read", "verify it first")
    return Bundle(
        folder=folder,
        campaign=view.campaign,
        recipe=view.recipe,
        versions={printable(name): printable(str(version)) for name, version in view.manifest["provenance"].items()},
        segments={
            testset.name: tuple(read_segments(folder / "segments" / f"{testset.name}.yaml"))
            for testset in view.campaign.testsets
        },
    )


def known_testset(bundle: Bundle, folder: TestSetFolder, asked: str | None) -> str:
    """Return the test set of the bundle whose recordings are all in a folder, by their names, or "".

    asked: the one that is meant; UserError where it is not there, and where several are and none is asked for.
    """
    here = {normalize("NFC", recording.name) for recording in folder.recordings}
    missing = {
        name: [recording for recording in bundle.recordings(name) if normalize("NFC", recording) not in here]
        for name in bundle.segments
    }
    if asked is not None:
        if asked not in missing:
            raise UserError(f"--testset {asked}", "the bundle has no such test set", nearest(asked, missing))
        if missing[asked]:
            what = f"{len(missing[asked])} of its recordings are not in the folder (first: {missing[asked][0]})"
            raise UserError(f"--testset {asked}", what, "put them there, or leave --testset out")
        return asked
    complete = [name for name in missing if not missing[name] and bundle.segments[name]]
    if len(complete) > 1:
        what = f"holds the recordings of several test sets: {', '.join(complete)}"
        raise UserError("--audio", what, "name one with --testset, or the folder of one")
    return complete[0] if complete else ""


def choose(bundle: Bundle, audio: Path, segments: Path | None, testset: str | None, anew: bool) -> Choice:
    """Return what to translate of a folder, and how its recordings become segments.

    segments: the YAML that is given; testset: the one that is asked for; anew: whether to cut what the bundle holds
    segments of. Raises UserError where these contradict each other, and where a classifier is needed and not there.
    """
    if anew and segments:
        raise UserError("--segment-anew", "contradicts --segments", "give one of them")
    folder = read_folder(audio)
    known = known_testset(bundle, folder, testset)
    if known and not segments:
        folder = only(folder, bundle.recordings(known))
    if found := segments or (None if known or anew else given_file(audio)):
        given = Given(path=found, window_seconds=bundle.campaign.model.window_seconds)
        return Choice(folder=folder, segmenting=given, testset=known)
    if known and not anew:
        path = bundle.folder / "segments" / f"{known}.yaml"
        kept = Kept(testset=known, path=path, segments=bundle.segments[known])
        return Choice(folder=folder, segmenting=kept, testset=known)
    options, classifier = bundle.recipe.segment, bundle.folder / SEGMENTER
    if options.about.needs_classifier and not classifier.is_dir():
        what = f"its recipe segments by {options.method}, and it holds no classifier ({SEGMENTER}/)"
        raise UserError(f"bundle {bundle.folder}", what, "give the segments with --segments YAML")
    return Choice(folder=folder, segmenting=Cut(options=options, classifier=classifier), testset=known)


def rerun(
    bundle: Bundle,
    pair: Pair,
    audio: Path,
    out: Path,
    *,
    segments: Path | None = None,
    testset: str | None = None,
    anew: bool = False,
    device: str = "auto",
    references: Path | None = None,
    worst: int,
) -> Rerun | None:
    """Translate a folder with a bundle into `out` (see `evaluate.recordings.translate`) and compare with what it ships.

    The result is written to `out/rerun.json` too; of several processes the first one has it. references: to score
    against; worst: how many differences to keep. Other arguments as `choose`.
    """
    choice = choose(bundle, audio, segments, testset, anew)
    check_model(bundle.folder / "model", bundle.campaign)
    decoding = Decoding(
        model=bundle.folder / "model",
        sha256=sha256_file(bundle.folder / MANIFEST),  # which the model has been verified against
        campaign=bundle.campaign,
        pair=pair,
        options=bundle.recipe.decode,
        device=device,
    )
    known = choice.testset or _only_set_in_part(bundle, choice.folder)
    translation = translate(decoding, choice.folder, choice.segmenting, out, references, known)
    if translation is None:
        return None
    shipped = _shipped(bundle, pair, known)
    theirs = bundled_output(bundle.folder, *shipped.split("/")) if shipped else None
    comparison = None
    if theirs and set(recordings_of(translation.output)) & set(recordings_of(theirs)):
        comparison = compare(pair_up(translation.output, theirs), worst)
    here = library_versions()
    differing = {
        name: (version, here.get(name, "none"))
        for name, version in bundle.versions.items()
        if here.get(name) != version
    }
    result = Rerun(translation=translation, shipped=shipped, comparison=comparison, versions=differing)
    write_text(out / RESULT, canonical_json(result_json(result)))
    return result


def _shipped(bundle: Bundle, pair: Pair, testset: str) -> str:
    """Return the name of the output that a bundle ships, `en-de/ACL`; "" where the pair does not have the test set."""
    return f"{pair.name}/{testset}" if testset in pair.testsets else ""


def _only_set_in_part(bundle: Bundle, folder: TestSetFolder) -> str:
    """Return the one test set of which a folder has any recording, or ""."""
    here = {normalize("NFC", recording.name) for recording in folder.recordings}
    some = [
        name
        for name in bundle.segments
        if not here.isdisjoint(normalize("NFC", recording) for recording in bundle.recordings(name))
    ]
    return some[0] if len(some) == 1 else ""


def result_json(result: Rerun) -> dict[str, Any]:
    """Return a re-run's result for machines."""
    return {
        "comparison": asdict(result.comparison) if result.comparison else None,
        "report": result.translation.report,
        "shipped": result.shipped,
        "versions_that_differ": {
            name: {"bundle": bundle, "here": here} for name, (bundle, here) in sorted(result.versions.items())
        },
    }


def result_text(result: Rerun) -> str:
    """Return a re-run's result for people."""
    lines = [translation_text(result.translation)]
    versions = ", ".join(f"{name} {b} -> {h}" for name, (b, h) in sorted(result.versions.items()))
    lines.append(f"libraries: {f'others than the bundle was built with: {versions}' if versions else 'as built'}")
    comparison = result.comparison
    if comparison is None:
        lines.append("compared: with nothing; the bundle ships no output of this pair for these recordings")
        return "\n".join(lines)
    identical, chrf, blank = summary_cells(comparison)
    lines.append(f"compared with the shipped {result.shipped}: identical {identical}, chrF {chrf}, blank {blank}")
    lines += notes(comparison, OURS, SHIPPED)
    if comparison.worst:
        lines += ["where they differ most:", *worst_lines(comparison, OURS, SHIPPED)]
    lines.append(f"chrF: this run against the shipped output as reference, {comparison.signature}")
    return "\n".join(lines)
