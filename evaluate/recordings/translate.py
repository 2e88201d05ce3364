"""A folder of recordings in, one line a segment out: what `translate` and `rerun` have in common.

The output folder belongs to one run, and a killed one goes on there:

    run.json            what the lines depend on; written first, and compared by whoever comes next
    segments.yaml       the segments, in the order of the lines
    hypotheses.jsonl    the lines with their flags, as they come
    <pair>.txt          as the organisers' script writes it: UTF-8, LF, one line a segment, blank for an empty one
    segmentation.json   what there is to say of the segments: where a method cut them, how much speech they miss
    report.json         all of it in figures, with the flags, the scores and the versions of the libraries
    lines.jsonl         where there are references: a reference line a line, with what answers it
    report.html         the same for people, with pictures (lines.svg, quality.svg and as PNG)

No file holds a time: equal runs leave equal bytes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluate.comparing.comparison import Output, segment_places
from evaluate.comparing.outputs import HYPOTHESES, RUN, SEGMENTS
from evaluate.decoding.audio_files import readable_in_pieces
from evaluate.decoding.decode import Outcome, decode
from evaluate.decoding.hypotheses import read_hypotheses
from evaluate.decoding.loading import load_on
from evaluate.recordings.folder_scores import find_fitting, score_lines, score_texts
from evaluate.recordings.recording_folder import Segmenting
from evaluate.report.pages.translation_page import PAGE, FolderResult, write_page
from evaluate.scoring.references import References
from segment.probabilities.speech_probabilities import ProbabilityCache
from segment.report import coverage_lines
from segment.testset import TestSetFolder
from submission.errors import UserError
from submission.runtime.loading import load_processor
from submission.runtime.prompt import render_prompt, window_samples
from submission.store.digests import canonical_json, files_below, remove_leftovers, sha256_file, write_text
from submission.store.launch import process_group
from submission.store.store import library_versions
from submission.system.campaign import Campaign, Pair
from submission.system.recipe import DecodeOptions
from submission.system.schema import nearest
from submission.text.characters import plain_line
from submission.text.segments import SAMPLE_RATE, Segment, read_segments, write_segments

SEGMENTATION, REPORT = "segmentation.json", "report.json"
HEARD = "heard"
"""Folder of what was heard before the segments are written; removed then."""
SAMPLES = "samples"
"""Folder, one a process, of recordings that cannot be read in pieces as they are; removed when they are translated."""
_SAMPLES = re.compile(rf"{SAMPLES}[0-9]*")
LOCK = ".lock"
BEFORE_DECODING = (RUN, SEGMENTATION, SEGMENTS, HEARD)
"""What a run may have left, beside samples, that did not come to decoding; another one may take its place."""
FORMAT = "translation-run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How segments become lines: by which model, and what it is asked."""

    model: Path
    """A packed model or a checkpoint."""
    sha256: str
    """Digest of what the model was read from."""
    campaign: Campaign
    pair: Pair
    options: DecodeOptions
    device: str = "auto"

    @property
    def prompt(self) -> str:
        return render_prompt(self.campaign.prompt, self.pair.target_language)

    def about(self) -> dict[str, Any]:
        """Return all that a line depends on beside its segment, as JSON."""
        return {
            "model_sha256": self.sha256,
            "pair": self.pair.name,
            "prompt": self.prompt,
            "end_token": self.campaign.model.end_token,
            "decode": asdict(self.options),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """What a run has done."""

    out: Path
    pair: str
    source: str
    """Where the segments come from."""
    segments: tuple[Segment, ...]
    lines: tuple[str, ...]
    report: dict[str, Any]
    """report.json."""
    outcome: Outcome

    @property
    def output(self) -> Output:
        return Output(label=str(self.out), lines=self.lines, places=segment_places(self.segments))


def find_pair(campaign: Campaign, name: str) -> Pair:
    """Return a campaign's pair; UserError for a name that it does not have."""
    pairs = {pair.name: pair for pair in campaign.pairs}
    if name not in pairs:
        raise UserError(f"--pair {name}", f"campaign {campaign.name} has no such pair", nearest(name, pairs))
    return pairs[name]


def check_model(model: Path, campaign: Campaign) -> None:
    """Refuse what is no model, and one that hears other lengths than the campaign's, which segments are made for."""
    if not model.is_dir():
        raise UserError(str(model), "no such folder", "name a packed model or a checkpoint")
    if (model / "model" / "config.json").is_file():
        raise UserError(str(model), "is a bundle, and its model lies in it", f"name {model / 'model'}, or use rerun")
    hears, expected = window_samples(load_processor(model)) / SAMPLE_RATE, campaign.model.window_seconds
    if hears != expected:
        what = f"hears {hears:g} s at once, the model of campaign {campaign.name} {expected} s"
        raise UserError(str(model), what, "name the campaign of this model with --campaign")


def translate(
    decoding: Decoding,
    folder: TestSetFolder,
    segmenting: Segmenting,
    out: Path,
    references: Path | None = None,
    testset: str = "",
) -> Translation | None:
    """Translate a folder's recordings into `out`, going on where a killed run stopped.

    references: the folder of the translations to score against, if any; testset: what the recordings are called there.
    Started by a launcher, the first process deals with the folder and every one decodes its share; the others return
    None. Raises UserError, before anything is heard or decoded, where `out` holds another run or anything else, and
    where the references are not those of these recordings.
    """
    with process_group() as launch, ExitStack() as held:
        begun = None
        try:
            if launch.rank == 0:
                found, others = find_fitting(references, decoding.pair, testset, folder)
                run = _describe(decoding, folder, segmenting)
                held.enter_context(_claimed(out, run))
                _segment(folder, segmenting, out)
                begun = _Begun(run=run, references=found, others=others, testset=testset)
        finally:
            goes_on = launch.broadcast(begun is not None)
        if not goes_on:
            return None
        segments = read_segments(out / SEGMENTS)
        samples = out / f"{SAMPLES}{launch.rank or ''}"
        model, processor = load_on(decoding.model, decoding.options.dtype, decoding.device)
        outcome = decode(
            model,
            processor,
            segments,
            readable_in_pieces(folder, segments, samples),
            decoding.prompt,
            decoding.options,
            out / HYPOTHESES,
            end_token=decoding.campaign.model.end_token,
            label=f"decode {decoding.pair.name}",
        )
        _remove(samples)
        if begun is None:
            return None
        lines, report = _write_up(out, folder, decoding.pair, segments, outcome, begun)
    return Translation(
        out=out,
        pair=decoding.pair.name,
        source=segmenting.source,
        segments=tuple(segments),
        lines=lines,
        report=report,
        outcome=outcome,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """What the first process knows of a run that has begun."""

    run: dict[str, Any]
    """run.json."""
    references: References | None
    others: list[str]
    """Recordings with references that are not in the folder."""
    testset: str


def _write_up(
    out: Path, folder: TestSetFolder, pair: Pair, segments: list[Segment], outcome: Outcome, begun: _Begun
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Write what a run whose hypotheses are there has to say; return its lines and report.json."""
    hypotheses = read_hypotheses(out / HYPOTHESES)
    lines = tuple(plain_line(hypothesis.text) for hypothesis in hypotheses)
    write_text(out / f"{pair.name}.txt", "".join(f"{line}\n" for line in lines))
    cell = score_lines(begun.references, pair, segments, out, begun.testset)
    report = {
        **_report(folder, segments, outcome, out),
        "pair": pair.name,
        "run": begun.run,
        "scores": [asdict(score) for score in cell.scores] if cell else [],
        "references_not_asked_for": begun.others,
    }
    write_text(out / REPORT, canonical_json(report))
    result = FolderResult(
        report=report,
        segments=tuple(segments),
        hypotheses=tuple(hypotheses),
        scores=tuple(cell.scores) if cell else (),
        lines=tuple(cell.lines) if cell else (),
        language=pair.target,
    )
    write_page(out, result)
    return lines, report


def _describe(decoding: Decoding, folder: TestSetFolder, segmenting: Segmenting) -> dict[str, Any]:
    """Return all that a run's lines depend on, as run.json has it."""
    recordings = {recording.name: sha256_file(recording.path) for recording in folder.recordings}
    return {
        "format": FORMAT,
        "recordings": [{"name": name, "sha256": digest} for name, digest in recordings.items()],
        "segments": segmenting.about(),
        **decoding.about(),
    }


@contextmanager
def _claimed(out: Path, run: dict[str, Any]) -> Iterator[None]:
    """Hold an output folder for a run: a new one, the folder of this very run, or of one that decoded nothing."""
    if out.is_file():
        raise UserError(f"--out {out}", "is a file", "name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        remove_leftovers(out)
        if (out / RUN).exists() and any(out.glob(f"{HYPOTHESES}*")):
            _check_same(out, run)
        elif foreign := [path for path in files_below(out) if not _is_before_decoding(out, path)]:
            what = f"holds {len(foreign)} files of something else ({foreign[0].name})"
            raise UserError(f"--out {out}", what, "name a new folder")
        elif _written(out) != json.loads(canonical_json(run)):
            (out / SEGMENTS).unlink(missing_ok=True)
            write_text(out / RUN, canonical_json(run))
        yield


def _is_before_decoding(out: Path, path: Path) -> bool:
    """Say whether a run may have left a file before it came to decoding, so that another one may take its place."""
    first = path.relative_to(out).parts[0]
    if first == LOCK:
        return True
    return (out / RUN).exists() and (first in BEFORE_DECODING or bool(_SAMPLES.fullmatch(first)))


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold a folder alone. By a file, which is removed: shared file systems lock no folders."""
    path = out / LOCK
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = os.fstat(lock.fileno()).st_nlink > 0  # or removed since it was opened, and perhaps made again
        except BlockingIOError:
            alone = False
        if not alone:
            raise UserError(f"--out {out}", "another process is at work there", "wait for it, or name another folder")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _written(out: Path) -> Any:
    """Return run.json; None where there is none, or none that can be read."""
    try:
        return json.loads((out / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _check_same(out: Path, run: dict[str, Any]) -> None:
    """Refuse to go on with a run that would have given other lines; the first difference is named."""
    before, now = _written(out), json.loads(canonical_json(run))
    for key in sorted(now):
        was = before.get(key) if isinstance(before, dict) else None
        if was != now[key]:
            what = f"holds another run: its {key} is {_short(was)}, and not {_short(now[key])}"
            raise UserError(f"--out {out}", what, "name another folder, or remove that one")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _segment(folder: TestSetFolder, segmenting: Segmenting, out: Path) -> None:
    """Write the segments and what there is to say of them, unless an earlier run did."""
    if not (out / SEGMENTS).exists():
        segments, about = segmenting(folder, ProbabilityCache(folder=out / HEARD))
        write_text(out / SEGMENTATION, canonical_json(about))
        write_segments(out / SEGMENTS, segments)
    for left in (out / HEARD, *(path for path in out.iterdir() if _SAMPLES.fullmatch(path.name))):
        _remove(left)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _report(folder: TestSetFolder, segments: list[Segment], outcome: Outcome, out: Path) -> dict[str, Any]:
    """Return report.json but for the run: what was there, what became of it, and what was left out."""
    silent = {recording.name for recording in folder.recordings} - {segment.recording for segment in segments}
    return {
        "recordings": len(folder.recordings),
        "recordings_not_asked_for": list(folder.unlisted),
        "recordings_without_segments": sorted(silent),
        "segments": len(segments),
        "segment_seconds": round(sum(segment.end - segment.start for segment in segments) / SAMPLE_RATE, 3),
        "segmentation": json.loads((out / SEGMENTATION).read_text(encoding="utf-8")),
        "flags": outcome.flags,
        "versions": library_versions(),
    }


def translation_text(translation: Translation) -> str:
    """Return what was done as a person reads it."""
    report, about = translation.report, translation.report["segmentation"]
    segments = f"{report['segments']:,}, {report['segment_seconds']:,.1f} s, {translation.source}"
    if about.get("overlapping"):
        segments += f"; {about['overlapping']:,} overlap"
    if about.get("cut_at_end"):
        segments += f"; {about['cut_at_end']:,} cut at their recording's end"
    lines = [f"recordings: {report['recordings']:,}", f"segments: {segments}"]
    if "speech_seconds" in about:
        lines += ["speech, as a voice-activity detector hears it:", *coverage_lines(about)]
    for label, key in (("not asked for", "recordings_not_asked_for"), ("no segments", "recordings_without_segments")):
        if report[key]:
            lines.append(f"{label}: {len(report[key]):,} recordings are not translated: {', '.join(report[key])}")
    outcome = translation.outcome if translation.outcome.decoded else "by an earlier run, all of it"
    lines.append(f"decoded: {outcome if translation.segments else 'nothing, there are no segments'}")
    if others := report["references_not_asked_for"]:
        lines.append(f"not here: {len(others):,} recordings with references are not scored: {', '.join(others)}")
    lines += score_texts(report["scores"])
    return "\n".join([*lines, f"written: {translation.out}/{translation.pair}.txt, and {PAGE} beside it"])
