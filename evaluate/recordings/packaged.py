"""Translate with the bundle of a package: `python -m evaluate.recordings.packaged`, which run.sh of a package calls.

Two ways in: a folder of recordings, of which every test set of the bundle becomes its output files, and a list of
recordings, each of which becomes one line. The model is loaded once, whatever is translated with it.
"""

from __future__ import annotations

import argparse
import codecs
import functools
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submission.cli import run
from submission.counting import counted
from submission.errors import UserError
from submission.store.digests import write_text
from submission.text.recording_names import match_recordings, recording_suffix
from submission.text.segments import SAMPLE_RATE, Segment

if TYPE_CHECKING:
    from evaluate.decoding.model_loading import LoadModel
    from evaluate.recordings.recording_folder import ByMethod
    from evaluate.recordings.rerun import VerifiedBundle
    from segment.probabilities.speech_probabilities import ProbabilityCache
    from segment.testset import RecordingFile, TestSetFolder
    from submission.system.campaign import Pair

RUNS = "runs"
"""Folder of the output, one folder for each test set and pair: hypotheses, segments, report and page."""


def translate(args: argparse.Namespace) -> int:
    """Translate recordings with a verified bundle, offline. Run again, it resumes a killed run.

    With --audio the output is a folder, and every test set of the bundle whose recordings are there becomes
    <pair>/<TESTSET>.txt, one line a segment; recordings of no test set become <pair>.txt. With --input the output is a
    file, one line for each line of the list, blank ones too. Exit status 0: done, 1: the bundle has errors, 2: the
    command failed.
    """
    from submission.bundle.checks import exit_status, report, verify

    findings = verify(args.bundle, args.campaign)
    if exit_status(findings):
        print(report(args.bundle, args.campaign, findings), end="", file=sys.stderr)
        return 1
    from evaluate.decoding.model_loading import load_on
    from evaluate.recordings.recording_folder import check_separate
    from evaluate.recordings.rerun import open_bundle
    from evaluate.recordings.translate import find_pair

    bundle = with_batch_size(open_bundle(args.bundle, args.campaign), args.batch_size)
    every, name = list(bundle.campaign.pairs), args.lang_pair
    pairs = [find_pair(bundle.campaign, name, "--lang-pair")] if name else every
    check_separate(args.bundle, args.output, "--output")
    load = functools.cache(load_on)
    if args.input is not None:
        if len(pairs) > 1 or args.segments:
            fix = f"name one pair with --lang-pair ({', '.join(pair.name for pair in pairs)}), and no segments"
            raise UserError("--input", "is translated into one language, a line for each recording", fix)
        translate_list(bundle, pairs[0], args.input, args.output, device=args.device, load=load)
        return 0
    check_separate(args.audio, args.output, "--output")
    translate_folder(bundle, pairs, args.audio, args.output, segments=args.segments, device=args.device, load=load)
    return 0


def with_batch_size(bundle: VerifiedBundle, batch_size: int | None) -> VerifiedBundle:
    """Return a bundle that is decoded with another number of segments in a batch; None keeps the recipe's."""
    if batch_size is None:
        return bundle
    try:
        decode = replace(bundle.recipe.decode, batch_size=batch_size)
    except ValueError as error:
        raise UserError(f"--batch-size {batch_size}", str(error).partition(": ")[2], "name another") from error
    return replace(bundle, recipe=replace(bundle.recipe, decode=decode))


def translate_folder(
    bundle: VerifiedBundle,
    pairs: list[Pair],
    audio: Path,
    out: Path,
    *,
    segments: Path | None,
    device: str,
    load: LoadModel,
) -> None:
    """Translate a folder of recordings into the output files in `out`.

    segments: a YAML for recordings that are no test set of the bundle.
    """
    from evaluate.recordings.rerun import rerun
    from segment.testset import read_folder

    testsets = [] if segments else complete_testsets(bundle, read_folder(audio))
    for pair, name in _outputs(pairs, testsets):
        run_folder = out / RUNS / f"{pair.name}-{name or 'recordings'}"
        result = rerun(
            bundle, pair, audio, run_folder, segments=segments, testset=name, device=device, worst=0, load=load
        )
        assert result is not None  # of one process
        path = out / pair.name / f"{name}.txt" if name else out / f"{pair.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(f"{line}\n" for line in result.translation.lines))
        print(f"{path}: {counted(len(result.translation.lines), 'line')}", flush=True)


def _outputs(pairs: Sequence[Pair], testsets: Sequence[str]) -> Sequence[tuple[Pair, str | None]]:
    """Return each pair with each of the test sets that it has; with None where there is no test set at all."""
    if not testsets:
        return [(pair, None) for pair in pairs]
    found = [(pair, name) for pair in pairs for name in testsets if name in pair.testsets]
    if not found:
        what = f"the recordings are those of {', '.join(testsets)}, which the pair does not have"
        raise UserError(f"--lang-pair {pairs[0].name}", what, "name another pair, or other recordings")
    return found


def complete_testsets(bundle: VerifiedBundle, folder: TestSetFolder) -> list[str]:
    """Return the bundle's test sets with segments whose recordings are all in a folder, by their names."""
    here = [recording.name for recording in folder.recordings]

    def complete(name: str) -> bool:
        recordings = bundle.recordings(name)
        return bool(recordings) and len(match_recordings(recordings, here)) == len(recordings)

    return [name for name in bundle.segments if complete(name)]


def translate_list(
    bundle: VerifiedBundle, pair: Pair, listed: Path, out: Path, *, device: str, load: LoadModel
) -> None:
    """Translate the recordings that a list names, one a line, into the lines of the file `out`.

    Paths are relative to the list's folder; a blank line of the list is a blank line of the output. A recording longer
    than the encoder's window is segmented as the bundle's recipe says, and its lines are joined.
    """
    from evaluate.recordings.recording_folder import ByMethod
    from evaluate.recordings.rerun import decoding_setup
    from evaluate.recordings.translate import translate as translate_recordings
    from evaluate.scoring.resegmentation import CHARACTER_LANGUAGES
    from segment.testset import TestSetFolder
    from submission.bundle.manifest import SEGMENTER

    if out.is_dir():
        raise UserError(f"--output {out}", "is a folder, and a list becomes a file", "name a file")
    named = listed_recordings(listed)
    folder = TestSetFolder(recordings=tuple(recording for recording in named if recording), unlisted=())
    decoding = decoding_setup(bundle, pair, device, load)
    method = ByMethod(options=bundle.recipe.segment, classifier=bundle.folder / SEGMENTER)
    source = WholeOrSegmented(window_seconds=bundle.campaign.model.window_seconds, method=method)
    run_folder = out.with_name(f"{out.name}.run")
    done = translate_recordings(decoding, folder, source, run_folder)
    assert done is not None  # of one process
    pieces: dict[str, list[str]] = {recording.name: [] for recording in folder.recordings}
    for segment, line in zip(done.segments, done.lines, strict=True):
        pieces[segment.recording].append(line)
    blank = "" if pair.target in CHARACTER_LANGUAGES else " "
    lines = [blank.join(filter(None, pieces[recording.name])) if recording else "" for recording in named]
    write_text(out, "".join(f"{line}\n" for line in lines))
    shutil.rmtree(run_folder)
    print(f"{out}: {counted(len(lines), 'line')}", flush=True)


def listed_recordings(listed: Path) -> list[RecordingFile | None]:
    """Return the recording of each line of a list, under a name that holds the line's number; None for a blank line.

    Line ends are LF or CRLF, a BOM is skipped, and paths are bytes that need no encoding. UserError names the first
    recording that is missing.
    """
    from segment.testset import RecordingFile

    if not listed.is_file():
        raise UserError(f"--input {listed}", "no such file", "name a text file with the path of one recording a line")
    lines = listed.read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    paths = [listed.parent / os.fsdecode(line) if line.strip() else None for line in lines]
    there = [path for path in paths if path is not None]
    missing = [path for path in there if not path.is_file()]
    if missing or not there:
        what = f"lacks {len(missing)} of its {counted(len(there), 'recording')}" + (
            f" (first: {missing[0]})" if missing else ""
        )
        raise UserError(f"--input {listed}", what, "write one path a line, relative to the folder of the list")
    return [
        RecordingFile(name=f"{line:06}{recording_suffix(path.name)}", path=path) if path is not None else None
        for line, path in enumerate(paths, 1)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeOrSegmented:
    """Recordings that fit into the encoder's window as they are, and the segments of those that do not."""

    window_seconds: float
    method: ByMethod

    @property
    def source(self) -> str:
        """How recordings become segments, for reports."""
        return f"whole recordings up to {self.window_seconds:g} s, longer ones {self.method.source}"

    def about(self) -> dict[str, Any]:
        """Return what the segments depend on beside the recordings."""
        return {**self.method.about(), "segmentation": "whole", "window_seconds": self.window_seconds}

    def __call__(self, folder: TestSetFolder, cache: ProbabilityCache) -> tuple[list[Segment], Mapping[str, Any]]:
        """Return the segments in the folder's order, and the report of the method on long recordings."""
        from evaluate.recordings.recording_folder import checked_lengths

        lengths = checked_lengths(folder.recordings)
        most = int(self.window_seconds * SAMPLE_RATE)
        long = tuple(recording for recording in folder.recordings if lengths[recording.name] > most)
        segments: dict[str, list[Segment]] = {
            name: [Segment(recording=name, start=0, end=length)] for name, length in lengths.items() if length <= most
        }
        about: Mapping[str, Any] = {}
        if long:
            found, about = self.method(replace(folder, recordings=long), cache)
            for segment in found:
                segments.setdefault(segment.recording, []).append(segment)
        return [each for recording in folder.recordings for each in segments.get(recording.name, [])], about


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="run.sh", description=translate.__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help=argparse.SUPPRESS)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--audio", type=Path, metavar="DIR", help="recordings, found at any depth")
    given.add_argument("--input", type=Path, metavar="LIST", help="text file with the path of one recording a line")
    parser.add_argument("--output", type=Path, required=True, metavar="PATH", help="folder (--audio) or file (--input)")
    parser.add_argument("--lang-pair", metavar="PAIR", help="such as en-de (default with --audio: every pair)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="most segments in a batch (default: the recipe's)")
    parser.add_argument("--segments", type=Path, metavar="YAML", help="with --audio: list of wav, offset and duration")
    known = "a TOML file of the campaign to check the bundle against (default: the shipped one that it names)"
    parser.add_argument("--campaign", metavar="C", help=known)
    parser.add_argument("--device", default="auto", help="device of the model (default: cuda if available, else cpu)")
    parser.set_defaults(verb=translate)
    return parser


if __name__ == "__main__":
    sys.exit(run(make_parser()))
