"""Find the outputs to compare in bundles, folders of runs, hypotheses.jsonl files, and text files with segments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from evaluate.comparing.comparison import (
    LinePosition,
    SystemOutput,
    named_positions,
    numbered_positions,
    recordings_of,
    segment_positions,
)
from evaluate.decoding.hypotheses import read_hypotheses
from evaluate.scoring.references import read_lines
from segment.testset import read_positions
from submission.bundle.checks.folder.files import is_pair
from submission.bundle.manifest import NAME as MANIFEST
from submission.bundle.untrusted.folder import Folder
from submission.errors import UserError
from submission.text.bounded_text import read_text
from submission.text.segments import read_segments, segment_ids

RUN, SEGMENTS, HYPOTHESES = "run.json", "segments.yaml", "hypotheses.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedOutput:
    """An output with its pair and test set, as far as known."""

    output: SystemOutput
    pair: str = ""
    """Empty where unknown."""
    testset: str = ""

    @property
    def name(self) -> str:
        """`<pair>/<TESTSET>`, or what of it is known."""
        return "/".join(part for part in (self.pair, self.testset) if part)


def find_outputs(path: Path, segments: Path | None = None) -> list[NamedOutput]:
    """Return the outputs of a bundle (every pair and test set), of a run's folder, or of a file.

    segments: the YAML with the segments of a text file that is neither in a bundle nor beside segments.yaml. Raises
    UserError where there is no output, or where the numbers of lines and segments differ.
    """
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return _bundle(path)
        if (path / HYPOTHESES).is_file():
            return [_run(path)]
        what = f"holds neither {MANIFEST} nor {HYPOTHESES}"
        raise UserError(str(path), what, "name a bundle, the folder of a finished run, or a file of outputs")
    if not path.is_file():
        raise UserError(str(path), "no such file or folder", "name a bundle, a run's folder, or a file of outputs")
    return [_hypotheses(path) if path.suffix == ".jsonl" else _text(path, segments)]


def bundled_output(bundle: Path, pair: str, testset: str) -> SystemOutput:
    """Return the output that a bundle ships for a pair and test set."""
    path = bundle / pair / f"{testset}.txt"
    places = segment_positions(read_segments(bundle / "segments" / f"{testset}.yaml"))
    return SystemOutput(label=str(path), lines=tuple(read_lines(path)), places=places)


def _bundle(bundle: Path) -> list[NamedOutput]:
    named = [PurePosixPath(path) for path in Folder(bundle).files]  # regular files, behind no link
    paths = [bundle / p for p in named if len(p.parts) == 2 and is_pair(p.parts[0]) and p.suffix == ".txt"]
    if not paths:
        raise UserError(str(bundle), "holds no outputs", "write the bundle again")
    return [
        NamedOutput(
            output=bundled_output(bundle, path.parent.name, path.stem), pair=path.parent.name, testset=path.stem
        )
        for path in paths
    ]


def _run(folder: Path) -> NamedOutput:
    found = _hypotheses(folder / HYPOTHESES)
    try:
        run = json.loads(read_text(folder / RUN, "decode the test set again"))
        pair, testset = run["pair"], run["segments"].get("testset", "")
    except (UserError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return found  # the folder of a stage, which names neither
    return NamedOutput(output=found.output, pair=str(pair), testset=str(testset))


def _hypotheses(path: Path) -> NamedOutput:
    hypotheses = read_hypotheses(path)
    ids = [hypothesis.segment for hypothesis in hypotheses]
    places: Sequence[LinePosition] = named_positions(ids)
    if (beside := path.with_name(SEGMENTS)).is_file():
        segments = read_segments(beside)
        if segment_ids(segments) != ids:
            what = f"its {len(ids)} hypotheses are not those of the {len(segments)} segments in {SEGMENTS}, in order"
            raise UserError(str(path), what, "let the run finish (the same command resumes it)")
        places = segment_positions(segments)
    return NamedOutput(
        output=SystemOutput(label=str(path), lines=tuple(h.text for h in hypotheses), places=tuple(places))
    )


def _text(path: Path, segments: Path | None) -> NamedOutput:
    bundle = path.parent.parent
    if (bundle / MANIFEST).is_file() and is_pair(path.parent.name):
        pair, testset = path.parent.name, path.stem
        return NamedOutput(output=bundled_output(bundle, pair, testset), pair=pair, testset=testset)
    lines = tuple(read_lines(path))
    beside = path.with_name(SEGMENTS)
    given = segments or (beside if beside.is_file() else None)
    places = segment_positions(read_positions(given)) if given else numbered_positions(len(lines))
    pair = path.stem if is_pair(path.stem) else ""
    return NamedOutput(output=SystemOutput(label=str(path), lines=lines, places=tuple(places)), pair=pair)


def of_names(found: Sequence[NamedOutput], pair: str | None, testset: str | None) -> list[NamedOutput]:
    """Return the outputs of a pair and a test set, where these are named; outputs without a name match any."""
    return [
        one for one in found if (not pair or one.pair in ("", pair)) and (not testset or one.testset in ("", testset))
    ]


def match(a: Sequence[NamedOutput], b: Sequence[NamedOutput]) -> list[tuple[str, NamedOutput, NamedOutput]]:
    """Return (name, of a, of b) for the corresponding outputs of two sides, in the order of `a`.

    Outputs with the same name correspond. A side's only output, which may have no name, corresponds to the one of the
    other side with its recordings. Raises UserError where none, or more than one, corresponds.
    """
    if not a or not b:
        raise UserError("compare", "one side has no such output", "correct --pair and --testset")
    if len(b) == 1 and len(a) > 1:
        return [(name, one, other) for name, other, one in match(b, a)]
    if len(a) > 1:
        pairs = [(one, other) for one in a for other in b if one.name == other.name]
    else:
        pairs = [(a[0], other) for other in b if _could_be(a[0], other)]
        if len(pairs) > 1:
            names = ", ".join(other.name or other.output.label for _, other in pairs)
            fix = "name the output itself, BUNDLE/<pair>/<TESTSET>.txt"
            raise UserError(a[0].output.label, f"could be compared with {names}", fix)
    if not pairs:
        sides = [", ".join(found.name or found.output.label for found in side[:4]) for side in (a, b)]
        what = f"nothing in common: {sides[0]} against {sides[1]}"
        raise UserError("compare", what, "compare outputs of the same pair and recordings")
    return [(one.name if len(one.name) >= len(other.name) else other.name, one, other) for one, other in pairs]


def _could_be(one: NamedOutput, other: NamedOutput) -> bool:
    """Return whether two outputs can be of one pair and of the same recordings."""
    if one.pair and other.pair and one.pair != other.pair:
        return False
    if one.testset and other.testset:
        return one.testset == other.testset
    recordings, others = recordings_of(one.output), recordings_of(other.output)
    return not recordings or not others or not set(recordings).isdisjoint(others)
