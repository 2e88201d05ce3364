"""The bundle: the folder that is uploaded and published.

    model/                  the packed model, and its card, README.md
    <pair>/<TESTSET>.txt    outputs, one line a segment
    segments/<TESTSET>.yaml the segments that the lines belong to
    description/<pair>.txt  the fields that the evaluation server requires
    segmenter/              the segmentation classifier, where the recipe needs it
    campaign.json, recipe.json, scores.json
    efficiency.json         speed and memory on a machine, where they were measured
    manifest.json           every file with its size and SHA-256, and the stages and inputs behind them

It is assembled in a hidden folder beside its path and moved there by a rename once it is complete. An older bundle
stays in place until then.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from submission.bundle.description import Facts, derive_facts, description_fields, render_description
from submission.bundle.efficiency import (
    EFFICIENCY_FILE,
    EfficiencyRecord,
    measured_digest,
    parse_efficiency,
    write_efficiency,
)
from submission.bundle.manifest import (
    CAMPAIGN_FILE,
    RECIPE_FILE,
    SCORES_FILE,
    SEGMENTER,
    SEGMENTER_FILES,
    Manifest,
    build_manifest,
    describe_file,
    write_manifest,
)
from submission.bundle.model_card import MODEL_CARD, render_model_card
from submission.bundle.untrusted.configuration import expected_tensors
from submission.bundle.untrusted.strict_json import Unreadable
from submission.errors import UserError
from submission.model.families import read_config
from submission.model.forecast import CARD_BYTES
from submission.progress import progress
from submission.store.damage import DamagedArtifact
from submission.store.digests import CHUNK_BYTES, canonical_json, files_below, named_place, sha256_file, write_text
from submission.store.locks import lock_file
from submission.system.campaign import Campaign
from submission.system.recipe.recipe import Recipe
from submission.text.characters import plain_line
from submission.text.segments import read_segments, segment_ids


def bundle(
    out: Path,
    *,
    campaign: Campaign,
    recipe: Recipe,
    model: Path,
    hypotheses: Mapping[tuple[str, str], Path],
    segments: Mapping[str, Path],
    scores: Path,
    segmenter: Path | None,
    artifacts: Mapping[Path, Mapping[str, Any]],
    stages: Mapping[str, str],
    inputs: Mapping[str, str],
    provenance: Mapping[str, str],
) -> Path:
    """Put the bundle of a system at `out`, replacing the one that is there, and return `out`.

    model: folder of the packed model; hypotheses: (pair, test set) -> hypotheses.jsonl and segments: test set ->
    segments.yaml, of which only those that the campaign requires are taken; scores: scores.json; segmenter: folder
    of the segmentation classifier, None where the recipe needs none; artifacts: folder in the store -> the files
    that its record describes, by which everything copied from such a folder is checked; stages: stage -> key;
    inputs: name -> digest; provenance: library -> version, as the artifacts record them (versions of this machine
    would change the bytes). Raises UserError where something is missing or does not fit, and
    DamagedArtifact where it has changed since its stage was built.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        _clear_leftovers(out)
        facts = _facts(model, campaign, recipe)
        with _moved_into_place(out) as aside:
            store = _ArtifactRecords(artifacts)
            _copy_folder(store, model, aside / "model")
            _write_outputs(store, aside, campaign, hypotheses, segments)
            write_text(aside / CAMPAIGN_FILE, canonical_json(asdict(campaign)))
            write_text(aside / RECIPE_FILE, canonical_json(asdict(recipe)))
            store.copy(_required(scores, "scores"), aside / SCORES_FILE)
            _write_card(aside / "model" / MODEL_CARD, aside / SCORES_FILE, facts, campaign, recipe)
            if segmenter is not None:
                _copy_segmenter(store, segmenter, aside / SEGMENTER)
            made_from = {"stages": stages, "inputs": inputs, "provenance": provenance}
            manifest = build_manifest(aside, campaign=campaign, recipe=recipe, facts=facts, **made_from)
            kept = _kept_efficiency(out, manifest)
            _complete(aside, manifest, campaign=campaign, recipe=recipe, facts=facts, efficiency=kept)
    return out


def add_efficiency(
    folder: Path,
    manifest: Manifest,
    record: EfficiencyRecord,
    *,
    campaign: Campaign,
    recipe: Recipe,
    facts: Facts,
) -> None:
    """Put measured figures into a verified bundle: efficiency.json, and the field of every description."""
    with _locked(folder):
        _complete(folder, manifest, campaign=campaign, recipe=recipe, facts=facts, efficiency=record)


# --- content ---


def _facts(model: Path, campaign: Campaign, recipe: Recipe) -> Facts:
    """Return the facts about a packed model's folder; UserError where it is none."""
    config = read_config(model)
    if not recipe.quantize.codecs:
        what = "packs nothing, and a bundle holds a packed model"
        raise UserError(f"recipe {recipe.name}", what, "write [quantize.codecs], or take a recipe that has them")
    if recipe.segment.method == "gold":
        what = "takes the references' segments, which do not exist for a blind test set"
        raise UserError(f"recipe {recipe.name}: segment.method", what, "choose another method")
    try:
        expected_tensors(config)
    except Unreadable as error:
        raise UserError(
            str(model / "config.json"), str(error), "pack the model with `python -m quantize pack`"
        ) from error
    size = CARD_BYTES + sum(p.stat().st_size for p in files_below(model))
    return derive_facts(config, size, campaign, recipe)


def _write_card(path: Path, scores: Path, facts: Facts, campaign: Campaign, recipe: Recipe) -> None:
    records = json.loads(scores.read_text(encoding="utf-8"))["scores"]
    write_text(path, render_model_card(facts, campaign, recipe, records))


def _write_outputs(
    store: _ArtifactRecords,
    aside: Path,
    campaign: Campaign,
    hypotheses: Mapping[tuple[str, str], Path],
    segments: Mapping[str, Path],
) -> None:
    ids = {}
    (aside / "segments").mkdir()
    for testset in campaign.testsets:
        source = _required(segments.get(testset.name), f"segments of {testset.name}")
        ids[testset.name] = segment_ids(read_segments(source))
        store.copy(source, aside / "segments" / f"{testset.name}.yaml")
    for pair in campaign.pairs:
        (aside / pair.name).mkdir()
        for name in pair.testsets:
            source = _required(hypotheses.get((pair.name, name)), f"hypotheses of {pair.name}/{name}")
            store.refuse_changed(source, sha256_file(source))
            lines = [plain_line(text) for text in _texts(source, ids[name])]
            write_text(aside / pair.name / f"{name}.txt", "".join(f"{line}\n" for line in lines))


def _complete(
    folder: Path,
    manifest: Manifest,
    *,
    campaign: Campaign,
    recipe: Recipe,
    facts: Facts,
    efficiency: EfficiencyRecord | None,
) -> None:
    """Write the descriptions and what was measured beside the files of a manifest, and the manifest with them."""
    written = [folder / "description" / f"{pair.name}.txt" for pair in campaign.pairs]
    (folder / "description").mkdir(exist_ok=True)
    for pair, path in zip(campaign.pairs, written, strict=True):
        fields = description_fields(facts, campaign, recipe, pair.name, efficiency)
        write_text(path, render_description(fields))
    if efficiency is not None:
        write_efficiency(folder, efficiency)
        written.append(folder / EFFICIENCY_FILE)
    for path in written:
        manifest["files"][path.relative_to(folder).as_posix()] = describe_file(path)
    write_manifest(folder, manifest)


def _kept_efficiency(old: Path, manifest: Manifest) -> EfficiencyRecord | None:
    """Return what was measured of the bundle that is replaced, where it holds for the new one; printed where not."""
    path = old / EFFICIENCY_FILE
    if not path.is_file():
        return None
    try:
        record = parse_efficiency(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, UserError):
        record = None
    if record is not None and record.bundle_sha256 == measured_digest(manifest["files"]):
        return record
    what = "was measured on another model or recipe and is left out"
    print(f"bundle: {path} {what}; measure again: python -m evaluate efficiency {old}", file=sys.stderr, flush=True)
    return None


def read_hypotheses(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (segment id, text) of a hypotheses.jsonl, in order; UserError names the line that is not valid."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record: Any = json.loads(line)
                segment, text = record["segment"], record["text"]
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(
                    f"{path} line {number}", f"is not a hypothesis ({error})", "decode the test set again"
                ) from error
            if not isinstance(segment, str) or not isinstance(text, str):
                raise UserError(
                    f"{path} line {number}", "segment and text must be strings", "decode the test set again"
                )
            yield segment, text


def _texts(path: Path, ids: list[str]) -> list[str]:
    """Return the hypotheses of a test set, which must be those of its segments, in their order."""
    pairs = list(read_hypotheses(path))
    if len(pairs) != len(ids):
        raise UserError(
            str(path), f"expected {len(ids)} hypotheses, one a segment, got {len(pairs)}", "decode it again"
        )
    for (got, _), expected in zip(pairs, ids, strict=True):
        if got != expected:
            raise UserError(str(path), f"expected segment {expected}, got {got}", "decode the test set again")
    return [text for _, text in pairs]


def _required(path: Path | None, name: str) -> Path:
    if path is None or not path.is_file():
        raise UserError("bundle", f"the {name} are missing ({path})", "build the stage that makes them first")
    return path


def _copy_segmenter(store: _ArtifactRecords, source: Path, target: Path) -> None:
    """Copy the files that loading the classifier reads, and none of its training report."""
    target.mkdir()
    for name in SEGMENTER_FILES:
        store.copy(_required(source / name, "segmentation classifier's files"), target / name)


def _copy_folder(store: _ArtifactRecords, source: Path, target: Path) -> None:
    files = files_below(source)
    with progress("bundle: copying the model", sum(p.stat().st_size for p in files), "bytes") as tick:
        for path in files:
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            store.copy(path, copy, tick)


@dataclass(frozen=True, slots=True)
class _ArtifactRecords:
    """Digests of the store's files.

    Bytes are compared while they are copied: a flipped bit on the disk is found before it is uploaded.
    """

    files: Mapping[Path, Mapping[str, Any]]
    """Folder of an artifact -> relative path -> {"bytes", "sha256"}."""

    def copy(self, source: Path, target: Path, tick: Callable[[float], None] = lambda amount: None) -> None:
        """Copy the bytes and flush them to the disk; not the mode: artifacts may be read-only, a bundle never is.

        Raises DamagedArtifact where they differ from the record of the artifact.
        """
        digest = hashlib.sha256()
        with named_place(target), source.open("rb") as original, target.open("wb") as copy:
            while chunk := original.read(CHUNK_BYTES):
                copy.write(chunk)
                digest.update(chunk)
                tick(len(chunk))
            copy.flush()
            os.fsync(copy.fileno())
        self.refuse_changed(source, digest.hexdigest())

    def refuse_changed(self, path: Path, sha256: str) -> None:
        """Raise DamagedArtifact where a file of an artifact has another digest than its record, or is not in it."""
        folder = next((parent for parent in path.parents if parent in self.files), None)
        if folder is None:
            return
        expected = self.files[folder].get(path.relative_to(folder).as_posix())
        if expected is None or expected["sha256"] != sha256:
            what = "differs from what its stage wrote" if expected else "was not written by the stage of this folder"
            raise DamagedArtifact(folder, path.relative_to(folder).as_posix(), what)


# --- atomic replacement ---


def _beside(out: Path, state: Literal["partial", "replaced", "removed"]) -> Path:
    """Return the hidden folder beside a bundle's path; under the lock it has one writer."""
    return out.parent / f".{out.name}.{state}"


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the lock of a bundle's path; wait for another process that builds the same bundle."""
    with (out.parent / f".{out.name}.lock").open("w") as lock:
        lock_file(lock, "bundle", str(out.parent), waiting=f"bundle: another process builds {out}; waiting")
        yield


def _clear_leftovers(out: Path) -> None:
    """Restore what a killed run had moved away, and remove what it had partly assembled or partly removed."""
    replaced = _beside(out, "replaced")
    if replaced.exists() and not out.exists():
        os.rename(replaced, out)
    _remove(replaced, out)
    for state in ("partial", "removed"):
        if (left := _beside(out, state)).exists():
            shutil.rmtree(left)


@contextmanager
def _moved_into_place(out: Path) -> Iterator[Path]:
    """Yield an empty hidden folder and, once it is filled, move it into place; remove it after an error.

    The bundle that was there is moved away first and removed last.
    """
    aside, replaced = _beside(out, "partial"), _beside(out, "replaced")
    aside.mkdir()
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if out.exists():
        os.rename(out, replaced)
    os.rename(aside, out)
    _remove(replaced, out)


def _remove(replaced: Path, out: Path) -> None:
    """Remove a replaced bundle; by a rename first, so that `.replaced` is always a whole one."""
    removed = _beside(out, "removed")
    if replaced.exists():
        if removed.exists():
            shutil.rmtree(removed)
        os.rename(replaced, removed)
        shutil.rmtree(removed)
