"""Reading of test sets as organisers ship them: recordings, FILE_ORDER and, where given, a segments YAML.

    FILE_ORDER      one recording a line, with or without its extension, in the order of the output; of files of one
                    name in several folders, with as much of the path as distinguishes them
    …/*.wav         the recordings, at any depth; those that FILE_ORDER does not name follow the others, by path
    segments.yaml   (or the folder's only YAML file) a list of `wav, offset, duration`; seconds

The YAML comes in three dialects (SHAS flow style, block style, JSON with paths in `wav`), which YAML readers do
not distinguish. Its order is kept within a recording; recordings follow FILE_ORDER. A recording's name is its file
name; where several files share that, it is the path below the test set's folder.
"""

from __future__ import annotations

import itertools
import math
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from segment.plain_yaml import PlainYamlError, parse_plain_yaml
from submission.errors import UserError
from submission.model.families.json_shape import shown
from submission.store.recording_files import find_recordings
from submission.text.bounded_text import read_text
from submission.text.characters import UNPRINTABLE, printable
from submission.text.recording_names import AUDIO_SUFFIXES
from submission.text.segments import SAMPLE_RATE, Segment

FILE_ORDER = "FILE_ORDER"
SEGMENTS = "segments.yaml"
MOST_ORDER_BYTES = 1 << 20
ENTRY_KEYS = frozenset(
    {"wav", "offset", "duration", "rW", "uW", "speaker_id", "speaker", "channel", "text", "lang", "id"}
)
"""Keys that published lists of segments have; the first three are read."""
MOST_SKIPPED = 20
PAST_END_SAMPLES = SAMPLE_RATE // 20
"""How far (50 ms) a given segment may reach past the end and be cut there: writers round to frames or 10 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingFile:
    """One recording of a test set."""

    name: str
    """File name, `talk1.wav`, or path, `day1/talk1.wav`, where another file has the same; unique in its test set."""
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSetFolder:
    """What lies in a test set's folder."""

    recordings: tuple[RecordingFile, ...]
    """In the order of FILE_ORDER, then those that it does not name, by path."""
    unlisted: tuple[str, ...]
    """Those that FILE_ORDER does not name."""
    missing: tuple[str, ...] = ()
    """Entries of FILE_ORDER for which there is no recording."""
    left_out: tuple[str, ...] = ()
    """Recordings of the folder that are not to be translated, where only some are."""

    __test__ = False  # not a test class, although pytest would take it for one by its name


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSegments:
    """A given segmentation in samples."""

    segments: tuple[Segment, ...]
    overlaps: int
    """Segments that begin before an earlier one of their recording ends; allowed."""
    cut_at_end: int
    """Segments that reached past the end by no more than 50 ms and were cut there."""
    without_recording: int = 0
    """Entries of recordings that FILE_ORDER names and that are missing."""


def read_testset(folder: Path) -> TestSetFolder:
    """Return the recordings of a test set in order; UserError where an entry of FILE_ORDER means none or several.

    An entry without a file becomes one of `missing`.
    """
    return _ordered(_find_recordings(folder), [folder / FILE_ORDER])


def read_folder(folder: Path) -> TestSetFolder:
    """Return the recordings of any folder in the order of its FILE_ORDER, or by their paths where it has none.

    Without one of its own, those of the folders in it count, one after the other. Raises UserError as `read_testset`.
    """
    found = _find_recordings(folder)
    orders = [folder / FILE_ORDER] if (folder / FILE_ORDER).is_file() else sorted(folder.rglob(FILE_ORDER))
    return _ordered(found, orders) if orders else TestSetFolder(recordings=tuple(found.values()), unlisted=())


def _ordered(found: dict[str, RecordingFile], orders: list[Path]) -> TestSetFolder:
    """Return the recordings that files FILE_ORDER name, in their order, then the others, by path."""
    listed: list[RecordingFile] = []
    missing = []
    for order in orders:
        for number, entry in _listed(order):
            where = f"{order} line {number}"
            matches = _matches(entry, found.values(), order.parent)
            if not matches:
                missing.append(entry)
            elif len(matches) > 1:
                what = f"{entry!r} means several of {_some([match.name for match in matches])}"
                raise UserError(where, what, "write more of the path")
            elif matches[0] in listed:
                raise UserError(where, f"{matches[0].name} is listed twice", "list it once")
            else:
                listed.append(matches[0])
    if not listed:
        what = f"none of its {len(missing)} entries is a recording of the folder (first: {missing[0]!r})"
        raise UserError(str(orders[0]), what, f"the recordings are {_some(sorted(found))}")
    others = [recording for recording in found.values() if recording not in listed]
    return TestSetFolder(recordings=(*listed, *others), unlisted=tuple(r.name for r in others), missing=tuple(missing))


def _find_recordings(folder: Path) -> dict[str, RecordingFile]:
    """Return composed name -> recording for all audio files below a folder, by path.

    Raises UserError where two paths differ in their Unicode form alone, and for a name that outputs could not hold.
    """
    if not folder.is_dir():
        what = "is a file, expected the folder that holds it" if folder.is_file() else "no such folder"
        raise UserError(str(folder), what, "put the recordings into a folder, as organisers ship them, and name that")
    walked = find_recordings(folder)
    _print_skipped(folder, walked.skipped)
    paths = []
    for path in walked.paths:
        inside = path.relative_to(folder).as_posix()
        if any(unicodedata.category(character) in UNPRINTABLE for character in inside):
            what = f"a file name that is not UTF-8, or holds a control character: {ascii(inside)}"
            raise UserError(str(folder), what, "rename it: outputs name their recordings")
        paths.append(path)
    counts = Counter(_composed(path.name) for path in paths)
    found: dict[str, RecordingFile] = {}
    for path in paths:
        name = path.name if counts[_composed(path.name)] == 1 else path.relative_to(folder).as_posix()
        key = _composed(name)
        if key in found:
            raise UserError(str(path), f"{found[key].path} has the same file name", "keep one of them")
        found[key] = RecordingFile(name=name, path=path)
    if not found:
        raise UserError(str(folder), f"holds no recordings ({', '.join(AUDIO_SUFFIXES)})", "put the recordings there")
    return found


@cache
def _print_skipped(folder: Path, skipped: tuple[str, ...]) -> None:
    """Print once what lies below a folder and is not read."""
    if skipped:
        more = f"\n  and {len(skipped) - MOST_SKIPPED} more" if len(skipped) > MOST_SKIPPED else ""
        lines = "".join(f"\n  {printable(line, 300)}" for line in skipped[:MOST_SKIPPED])
        print(f"{folder}: skipped {len(skipped)} of its entries:{lines}{more}", file=sys.stderr, flush=True)


def _listed(order: Path) -> list[tuple[int, str]]:
    """Return (line number, entry) of FILE_ORDER: any line ends, with or without a BOM, blank lines left out."""
    text = read_text(order, "write the recordings' names there, one a line, in UTF-8", MOST_ORDER_BYTES)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    names = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not names:
        raise UserError(str(order), "names no recordings", "write the recordings' names there, one a line")
    return names


def _match(entry: str, found: dict[str, RecordingFile], where: str) -> RecordingFile:
    """Return the recording that an entry means: its file name, the extension and any path before it optional."""
    matches = _matches(entry, found.values())
    if len(matches) == 1:
        return matches[0]
    spelled, names = shown(entry), _some([printable(m.name) for m in matches])
    what = f"{spelled} means several of {names}" if matches else f"there is no recording {spelled}"
    raise UserError(where, what, f"the recordings are {_some(sorted(found))}")


def _matches(entry: str, found: Iterable[RecordingFile], folder: Path | None = None) -> list[RecordingFile]:
    """Return the recordings that an entry can mean: of those of its name, the ones that share most of its path.

    folder: what relative entries are relative to. An extension may be left out where no file is named like it without.
    """
    *before, name = _composed(entry).replace("\\", "/").rstrip("/").split("/")
    named = [recording for recording in found if _composed(recording.path.name) == name]
    named = named or [recording for recording in found if Path(_composed(recording.path.name)).stem == name]
    if len(named) < 2:
        return named
    parts = [part for part in before if part not in ("", ".")]
    if folder is not None and not entry.startswith(("/", "\\")):
        parts = [*map(_composed, folder.parts), *parts]
    shared = [_shared_end(parts, [_composed(part) for part in recording.path.parent.parts]) for recording in named]
    return [recording for recording, count in zip(named, shared, strict=True) if count == max(shared)]


def _shared_end(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many parts two paths have in common from their ends."""
    same = (a == b for a, b in zip(reversed(one), reversed(other), strict=False))
    return sum(itertools.takewhile(bool, same))


def _last_part(entry: str) -> str:
    """Return what follows the last slash of either kind; a colon is part of a name."""
    return entry.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _composed(name: str) -> str:
    """Return a name in Unicode's form NFC: a text and a file system may write one `ä` differently."""
    return unicodedata.normalize("NFC", name)


def _some(names: list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def yaml_files(folder: Path) -> list[Path]:
    """Return every YAML file below a folder, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".yaml", ".yml") and p.is_file())


def find_segments_file(folder: Path) -> Path:
    """Return segments.yaml, or the folder's only YAML file; UserError where there is no such file."""
    if (folder / SEGMENTS).is_file():
        return folder / SEGMENTS
    candidates = yaml_files(folder)
    if len(candidates) == 1:
        return candidates[0]
    what = f"has {len(candidates)} YAML files ({_some([p.name for p in candidates])})" if candidates else "has none"
    raise UserError(str(folder), f"expected the given segments in {SEGMENTS}, the folder {what}", f"add {SEGMENTS}")


def read_given(path: Path, testset: TestSetFolder, length_samples: Callable[[Path], int]) -> GivenSegments:
    """Return given segments or regions in samples: every entry, in order, recordings as in FILE_ORDER.

    length_samples: path of a recording -> its samples at 16 kHz. Segments of any length are taken. Entries of
    recordings that FILE_ORDER names and that are missing are left out and counted. Raises UserError that names the
    entry: not `wav, offset, duration`, not a number, negative, empty, past the end.
    """
    known = {_composed(recording.name): recording for recording in testset.recordings}
    missing = {_stem(entry) for entry in testset.missing}
    lengths: dict[str, int] = {}
    segments: dict[str, list[Segment]] = {recording.name: [] for recording in testset.recordings}
    cut = without = 0
    for where, entry in _numbered(path):
        wav = _wav(entry, where)
        if _stem(wav) in missing and not _matches(wav, testset.recordings):
            without += 1
            continue
        recording = _match(wav, known, where)
        if recording.name not in lengths:
            lengths[recording.name] = length_samples(recording.path)
        segment, was_cut = _segment(entry, recording.name, lengths[recording.name], where)
        segments[recording.name].append(segment)
        cut += was_cut
    return GivenSegments(
        segments=tuple(s for part in segments.values() for s in part),
        overlaps=sum(_overlaps(part) for part in segments.values()),
        cut_at_end=cut,
        without_recording=without,
    )


def _stem(entry: str) -> str:
    """Return the file name of an entry without the extension of an audio file."""
    name = Path(_composed(_last_part(entry)))
    return name.stem if name.suffix.lower() in AUDIO_SUFFIXES else name.name


def read_recordings(path: Path, testset: TestSetFolder | None) -> list[str]:
    """Return the file name of each entry's recording in a segments YAML, in the order of the entries.

    Entries are understood and refused as `read_given` does, but for their times, which are not looked at. Without
    a test set names stay as they are written, less any path before them.
    """
    return _recordings([(_wav(entry, where), where) for where, entry in _numbered(path)], testset)


def recordings_of(names: Sequence[str], testset: TestSetFolder | None, where: str) -> list[str]:
    """Return the file name of the recording that each name means, the extension optional; UserError for others."""
    return _recordings([(name, where) for name in names], testset)


def _recordings(named: Sequence[tuple[str, str]], testset: TestSetFolder | None) -> list[str]:
    if testset is None:
        return [_last_part(name) for name, _ in named]
    known = {_composed(recording.name): recording for recording in testset.recordings}
    return [_match(name, known, where).name for name, where in named]


def read_positions(path: Path) -> list[Segment]:
    """Return a segments YAML of any dialect as it is written, in its order, without looking at the recordings.

    Names stay as they are, less any path before them. Raises UserError that names the entry which is not valid.
    """
    segments = []
    for where, entry in _numbered(path):
        name, (start, end) = _last_part(_wav(entry, where)), _span(entry, where)
        segments.append(Segment(recording=name, start=start, end=max(end, start + 1)))
    return segments


def _numbered(path: Path) -> list[tuple[str, Any]]:
    """Return (where it is, entry) for each entry of a segments YAML."""
    return [(f"{path} entry {number}", entry) for number, entry in enumerate(_entries(path), 1)]


def _entries(path: Path) -> list[Any]:
    fix = "get the file again from the organisers"
    try:
        # Scalars stay as they are written: 2022.110 is a name and keeps its zero, 2022-99-99 too.
        content = parse_plain_yaml(read_text(path, fix))
    except PlainYamlError as error:
        raise UserError(str(path), f"cannot be read as YAML ({error})", fix) from error
    if not isinstance(content, list) or not content:
        got = "an empty list" if content == [] else type(content).__name__
        raise UserError(
            str(path), f"expected a list of segments, got {got}", "write `- {wav: …, offset: …, duration: …}`"
        )
    return content


def _wav(entry: Any, where: str) -> str:
    if not isinstance(entry, dict):
        raise UserError(where, f"expected wav, offset and duration, got {shown(entry)}", "write a mapping")
    for before, key in itertools.pairwise(["", *entry]):
        if key in ENTRY_KEYS:
            continue
        if before and str(key).isdecimal():
            spelled = printable(str(entry[before]), 40)
            what = f"{before}: expected seconds, got {spelled},{key} with a decimal comma"
            raise UserError(where, what, f"write {spelled}.{key}")
        raise UserError(where, f"unknown key {shown(key)}", f"the keys are {', '.join(sorted(ENTRY_KEYS))}")
    missing = [key for key in ("wav", "offset", "duration") if key not in entry]
    if missing:
        raise UserError(where, f"lacks {', '.join(missing)}", "give wav, offset and duration")
    if not isinstance(entry["wav"], str):
        raise UserError(
            where, f"wav: expected a file name, got {shown(entry['wav'])}", "name a recording of the test set"
        )
    return entry["wav"]


def _seconds(entry: dict[str, Any], key: str, where: str) -> float:
    """Return a number of seconds, in quotes or not."""
    value = entry[key]
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UserError(where, f"{key}: expected seconds, got {shown(value)}", "write a number such as 3.25")
    return seconds


def _span(entry: dict[str, Any], where: str) -> tuple[int, int]:
    """Return where an entry begins and ends, in samples."""
    offset, duration = _seconds(entry, "offset", where), _seconds(entry, "duration", where)
    if offset < 0 or duration <= 0:
        raise UserError(
            where, f"expected offset >= 0 and duration > 0, got {offset:g} and {duration:g}", "correct the times"
        )
    return round(offset * SAMPLE_RATE), round((offset + duration) * SAMPLE_RATE)


def _segment(entry: dict[str, Any], recording: str, length: int, where: str) -> tuple[Segment, bool]:
    """Return an entry's segment and whether it was cut at the recording's end."""
    start, end = _span(entry, where)
    stop = min(end, length)
    if end > length + PAST_END_SAMPLES or start >= stop:
        raise UserError(
            where,
            f"{recording}: {start / SAMPLE_RATE:g} s to {end / SAMPLE_RATE:g} s does not lie within the recording's "
            f"{length / SAMPLE_RATE:g} s",
            "check that the segments belong to these recordings",
        )
    return Segment(recording=recording, start=start, end=stop), end > length


def _overlaps(segments: list[Segment]) -> int:
    """Return how many segments of one recording begin before an earlier one ends."""
    count, reached = 0, 0
    for segment in sorted(segments, key=lambda s: (s.start, s.end)):
        count += segment.start < reached
        reached = max(reached, segment.end)
    return count
