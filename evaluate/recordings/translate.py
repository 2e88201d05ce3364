"""Translate a folder of recordings, one line a segment: the common part of `translate` and `rerun`.

The output folder belongs to one run; a killed run resumes there:

    run.json                  everything that the lines depend on; written first, and compared before resuming
    segments.yaml             the segments, in the order of the lines
    hypotheses.jsonl          the lines with their flags, appended while decoding
    <pair>.txt                as the organisers' script writes it: UTF-8, LF, one line a segment, blank for an empty one
    segmentation.json         report on the segments; for those of a method, how much speech they leave out
    translation_report.json   counts, flags, scores and versions of the libraries
    lines.jsonl               with references: one reference line a line, with the compared line
    report.html               the report as a page, with pictures (lines.svg, quality.svg, dark variants, PNG)

No file holds a time: equal runs write equal bytes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluate.comparing.comparison import SystemOutput, segment_positions
from evaluate.comparing.outputs import HYPOTHESES, RUN, SEGMENTS
from evaluate.decoding.audio_files import check_space, readable_in_pieces
from evaluate.decoding.decode import DecodeSummary, decode
from evaluate.decoding.hypotheses import read_hypotheses
from evaluate.decoding.model_loading import LoadModel, load_on
from evaluate.recordings.folder_scores import find_aligned_references, score_lines, score_texts, scores_note
from evaluate.recordings.recording_folder import SegmentSource
from evaluate.report.pages.folder_result import FolderResult
from evaluate.report.pages.translation_page import PAGE, write_page
from evaluate.scoring.references import References
from evaluate.scoring.unicode_form import UnicodeForm
from segment.probabilities.speech_probabilities import ProbabilityCache
from segment.segmentation_report import coverage_lines
from segment.testset import TestSetFolder
from submission.counting import counted
from submission.errors import UserError
from submission.runtime.loading import load_processor
from submission.runtime.prompt import render_prompt, window_samples
from submission.store.digests import canonical_json, files_below, remove_leftovers, sha256_file, write_text
from submission.store.launch import process_group
from submission.store.locks import lock_file
from submission.store.store import library_versions
from submission.system.campaign import Campaign, Pair
from submission.system.recipe.decoding_options import DecodeOptions
from submission.system.schema import nearest
from submission.text.characters import plain_line
from submission.text.segments import SAMPLE_RATE, Segment, read_segments, write_segments

SEGMENTATION, REPORT = "segmentation.json", "translation_report.json"
PROBABILITIES = "probabilities"
"""Folder of the speech probabilities, cached until the segments are written."""
SAMPLES = "samples"
"""Folder, one a process, with decoded copies of recordings that are not seekable; removed after decoding."""
_SAMPLES = re.compile(rf"{SAMPLES}[0-9]*")
LOCK = ".lock"
BEFORE_DECODING = (RUN, SEGMENTATION, SEGMENTS, PROBABILITIES)
"""Files, beside samples, of a run that was killed before decoding; another run may replace them."""
FORMAT = "translation-run"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingSetup:
    """The model, prompt and options that turn segments into lines."""

    model: Path
    """A packed model or a checkpoint."""
    sha256: str
    """Digest of the model's source."""
    campaign: Campaign
    pair: Pair
    options: DecodeOptions
    device: str = "auto"
    load: LoadModel = load_on

    @property
    def prompt(self) -> str:
        """The campaign's prompt for the target language."""
        return render_prompt(self.campaign.prompt, self.pair.target_language)

    def about(self) -> dict[str, Any]:
        """Return everything that a line depends on beside its segment, as JSON."""
        return {
            "model_sha256": self.sha256,
            "pair": self.pair.name,
            "prompt": self.prompt,
            "end_token": self.campaign.model.end_token,
            "decode": asdict(self.options),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """The result of a run."""

    out: Path
    pair: str
    source: str
    """Where the segments come from."""
    segments: tuple[Segment, ...]
    lines: tuple[str, ...]
    report: dict[str, Any]
    """translation_report.json."""
    summary: DecodeSummary

    @property
    def output(self) -> SystemOutput:
        """The lines with the positions of their segments, as comparisons take them."""
        return SystemOutput(label=str(self.out), lines=self.lines, places=segment_positions(self.segments))


def find_pair(campaign: Campaign, name: str, option: str = "--pair") -> Pair:
    """Return a campaign's pair; UserError, naming the option, for a name that it does not have."""
    pairs = {pair.name: pair for pair in campaign.pairs}
    if name not in pairs:
        raise UserError(f"{option} {name}", f"campaign {campaign.name} has no such pair", nearest(name, pairs))
    return pairs[name]


def check_model(model: Path, campaign: Campaign) -> None:
    """Raise UserError unless a folder is a model whose encoder window is the campaign's."""
    if not model.is_dir():
        raise UserError(str(model), "no such folder", "name a packed model or a checkpoint")
    if (model / "model" / "config.json").is_file():
        raise UserError(str(model), "is a bundle, expected a model", f"name {model / 'model'}, or use rerun")
    window, expected = window_samples(load_processor(model)) / SAMPLE_RATE, campaign.model.window_seconds
    if window != expected:
        what = f"has a window of {window:g} s, the model of campaign {campaign.name} one of {expected} s"
        raise UserError(str(model), what, "name the campaign of this model with --campaign")


def translate(
    decoding: DecodingSetup,
    folder: TestSetFolder,
    segment_source: SegmentSource,
    out: Path,
    references: Path | None = None,
    testset: str = "",
    form: UnicodeForm = "",
) -> Translation | None:
    """Translate a folder's recordings into `out`, resuming a killed run.

    references: the folder of references to score against, if any; testset: its name there; form: the Unicode form in
    which they are compared. Started by a launcher, the first process manages the folder and every one decodes its
    share; the others return None. Raises UserError, before audio is segmented or decoded, where `out` holds another run
    or foreign files, and where the references are not those of these recordings.
    """
    with process_group() as launch, ExitStack() as held:
        started = None
        try:
            if launch.rank == 0:
                found, others = find_aligned_references(references, decoding.pair, testset, folder, form)
                run = _describe(decoding, folder, segment_source)
                held.enter_context(_locked_output(out, run))
                check_space(folder.recordings, out)
                _segment(folder, segment_source, out)
                started = _StartedRun(run=run, references=found, others=others, testset=testset)
        finally:
            proceed = launch.broadcast(started is not None)
        if not proceed:
            return None
        segments = read_segments(out / SEGMENTS)
        summary = _decode_share(decoding, folder, segments, out, launch.rank)
        if started is None:
            return None
        lines, report = _write_results(out, folder, decoding.pair, segments, summary, started)
    return Translation(
        out=out,
        pair=decoding.pair.name,
        source=segment_source.source,
        segments=tuple(segments),
        lines=lines,
        report=report,
        summary=summary,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _StartedRun:
    """State of a started run, in the first process only."""

    run: dict[str, Any]
    """run.json."""
    references: References | None
    others: list[str]
    """Recordings with references that are not in the folder."""
    testset: str


def _decode_share(
    decoding: DecodingSetup, folder: TestSetFolder, segments: list[Segment], out: Path, rank: int
) -> DecodeSummary:
    """Load the model and decode a process's share of the segments into the hypotheses of `out`."""
    samples = out / f"{SAMPLES}{rank or ''}"
    readable = readable_in_pieces(folder, segments, samples)
    model, processor = decoding.load(decoding.model, decoding.options.dtype, decoding.device)
    summary = decode(
        model,
        processor,
        segments,
        readable,
        decoding.prompt,
        decoding.options,
        out / HYPOTHESES,
        end_token=decoding.campaign.model.end_token,
        label=f"decode {decoding.pair.name}",
    )
    _remove(samples)
    return summary


def _write_results(
    out: Path, folder: TestSetFolder, pair: Pair, segments: list[Segment], summary: DecodeSummary, started: _StartedRun
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Write lines, scores, report and page of a decoded run; return its lines and its report."""
    hypotheses = read_hypotheses(out / HYPOTHESES)
    lines = tuple(plain_line(hypothesis.text) for hypothesis in hypotheses)
    write_text(out / f"{pair.name}.txt", "".join(f"{line}\n" for line in lines))
    scored = score_lines(started.references, pair, segments, out, started.testset)
    report = {
        **_report(folder, segments, summary, out),
        "pair": pair.name,
        "run": started.run,
        "scores": [asdict(score) for score in scored.scores] if scored else [],
        "scores_note": scores_note(started.references, scored),
        "references_without_recording": started.others,
    }
    write_text(out / REPORT, canonical_json(report))
    result = FolderResult(
        report=report,
        segments=tuple(segments),
        hypotheses=tuple(hypotheses),
        scores=tuple(scored.scores) if scored else (),
        lines=tuple(scored.lines) if scored else (),
        language=pair.target,
    )
    write_page(out, result)
    return lines, report


def _describe(decoding: DecodingSetup, folder: TestSetFolder, segment_source: SegmentSource) -> dict[str, Any]:
    """Return everything that a run's lines depend on, for run.json."""
    recordings = {recording.name: sha256_file(recording.path) for recording in folder.recordings}
    return {
        "format": FORMAT,
        "recordings": [{"name": name, "sha256": digest} for name, digest in recordings.items()],
        "segments": segment_source.about(),
        **decoding.about(),
    }


@contextmanager
def _locked_output(out: Path, run: dict[str, Any]) -> Iterator[None]:
    """Lock an output folder for a run: a new one, the folder of the same run, or of a run that decoded nothing."""
    if out.is_file():
        raise UserError(f"--out {out}", "is a file", "name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        remove_leftovers(out)
        if (out / RUN).exists() and any(out.glob(f"{HYPOTHESES}*")):
            _check_same(out, run)
        elif foreign := [path for path in files_below(out) if not _is_before_decoding(out, path)]:
            what = f"holds other files than those of a run: {len(foreign)} (first: {foreign[0].name})"
            raise UserError(f"--out {out}", what, "name a new folder")
        elif _read_run(out) != json.loads(canonical_json(run)):
            (out / SEGMENTS).unlink(missing_ok=True)
            write_text(out / RUN, canonical_json(run))
        yield


def _is_before_decoding(out: Path, path: Path) -> bool:
    """Return whether a file may stem from a run that was killed before decoding."""
    first = path.relative_to(out).parts[0]
    if first == LOCK:
        return True
    return (out / RUN).exists() and (first in BEFORE_DECODING or bool(_SAMPLES.fullmatch(first)))


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Lock a folder by a file in it: shared file systems do not lock folders."""
    path = out / LOCK
    with path.open("w") as lock:
        # Locked, or removed after opening by the process that had it.
        alone = lock_file(lock, "translate", str(out)) and os.fstat(lock.fileno()).st_nlink > 0
        if not alone:
            raise UserError(f"--out {out}", "another process uses it", "wait for it, or name another folder")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _read_run(out: Path) -> Any:
    """Return run.json; None where it is missing or unreadable."""
    try:
        return json.loads((out / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _check_same(out: Path, run: dict[str, Any]) -> None:
    """Refuse to resume a run with other lines; name the first difference."""
    before, now = _read_run(out), json.loads(canonical_json(run))
    for key in sorted(now):
        was = before.get(key) if isinstance(before, dict) else None
        if was != now[key]:
            what = f"holds another run: its {key} is {_short(was)}, and not {_short(now[key])}"
            raise UserError(f"--out {out}", what, "name another folder, or remove that one")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _segment(folder: TestSetFolder, segment_source: SegmentSource, out: Path) -> None:
    """Write the segments and their report, unless an earlier run did."""
    if not (out / SEGMENTS).exists():
        segments, about = segment_source(folder, ProbabilityCache(folder=out / PROBABILITIES))
        write_text(out / SEGMENTATION, canonical_json(about))
        write_segments(out / SEGMENTS, segments)
    for left in (out / PROBABILITIES, *(path for path in out.iterdir() if _SAMPLES.fullmatch(path.name))):
        _remove(left)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _report(folder: TestSetFolder, segments: list[Segment], summary: DecodeSummary, out: Path) -> dict[str, Any]:
    """Return the counts of translation_report.json: recordings, segments, flags, and what was left out."""
    silent = {recording.name for recording in folder.recordings} - {segment.recording for segment in segments}
    return {
        "recordings": len(folder.recordings),
        "recordings_not_listed": list(folder.unlisted),
        "recordings_left_out": list(folder.left_out),
        "recordings_missing": list(folder.missing),
        "recordings_without_segments": sorted(silent),
        "segments": len(segments),
        "segment_seconds": round(sum(segment.end - segment.start for segment in segments) / SAMPLE_RATE, 3),
        "segmentation": json.loads((out / SEGMENTATION).read_text(encoding="utf-8")),
        "flags": summary.flags,
        "versions": library_versions(),
    }


def translation_text(translation: Translation) -> str:
    """Return the result of a run as text."""
    report, about = translation.report, translation.report["segmentation"]
    segments = f"{report['segments']:,}, {report['segment_seconds']:,.1f} s, {translation.source}"
    if about.get("overlapping"):
        segments += f"; {about['overlapping']:,} overlap"
    if about.get("cut_at_end"):
        segments += f"; {about['cut_at_end']:,} cut at their recording's end"
    if about.get("split"):
        segments += f"; {about['split']:,} given ones longer than the model's window, split"
    lines = [f"recordings: {report['recordings']:,}", f"segments: {segments}"]
    if "speech_seconds" in about:
        lines += ["speech found by the voice-activity detector:", *coverage_lines(about)]
    for label, key in (
        ("in FILE_ORDER without a file", "recordings_missing"),
        ("no segments", "recordings_without_segments"),
    ):
        if report[key]:
            lines.append(f"{label}: {counted(len(report[key]), 'recording')} not translated: {', '.join(report[key])}")
    if names := report["recordings_not_listed"]:
        lines.append(
            f"not listed in FILE_ORDER: {counted(len(names), 'recording')}, after the others: {', '.join(names)}"
        )
    if names := report["recordings_left_out"]:
        lines.append(f"not of the test set: {counted(len(names), 'recording')} not translated: {', '.join(names)}")
    summary = translation.summary if translation.summary.decoded else "everything by an earlier run"
    lines.append(f"decoded: {summary if translation.segments else 'nothing, there are no segments'}")
    if others := report["references_without_recording"]:
        lines.append(
            f"missing from the folder: {counted(len(others), 'recording')} with references: {', '.join(others)}"
        )
    lines += score_texts(report["scores"])
    lines += [report["scores_note"]] if report["scores_note"] else []
    return "\n".join([*lines, f"written: {translation.out}/{translation.pair}.txt, and {PAGE} beside it"])
