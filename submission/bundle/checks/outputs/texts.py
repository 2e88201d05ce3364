"""SET and TXT: whether every output is there, with exactly one clean line for each segment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from submission.bundle.checks.finding import Fault
from submission.bundle.checks.folder.files import is_pair
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.folder import MOST_TEXT_BYTES
from submission.bundle.untrusted.strict_json import Unreadable
from submission.counting import counted
from submission.errors import UserError
from submission.text.characters import (
    BIDIRECTIONAL,
    CONTROLS,
    LOST,
    OTHER_LINE_BREAKS,
    character_name,
    hidden_characters,
    plain_line,
    printable,
)
from submission.text.loops import repeated_part
from submission.text.segments import SAMPLE_RATE, Segment, parse_segments

BOM = "\ufeff"
# Blanks that are neither line breaks nor controls: what may still stand at the ends of a line.
BLANKS = frozenset("\x20\xa0\u1680\u202f\u205f\u3000") | frozenset(map(chr, range(0x2000, 0x200B)))
TAG = re.compile(r"[(\[<（【]\s{0,3}(\w{1,30})\s{0,3}[)\]>）】]|<\|[^|<>]{1,40}\|>|[♪♫]")
# fmt: off
TAG_WORDS = frozenset({
    "applause", "applauds", "laughter", "laugh", "laughs", "laughing", "music", "noise", "silence", "inaudible",
    "unintelligible", "cheering", "cheers", "cough", "coughs", "sigh", "sighs", "beifall", "applaus", "gelächter",
    "lachen", "lacht", "musik", "geräusch", "unverständlich", "stille",
    "掌声", "鼓掌", "笑声", "大笑", "音乐", "噪音", "听不清",
})
# fmt: on
CHANNELS: dict[str, frozenset[int | None] | None] = {
    "mean": frozenset({None}),
    "first": frozenset({None, 0}),
    "each": None,
}
"""What a campaign takes of several channels -> the channels that a segment may have; None: any."""
# Two hours of speech make some 1,500 segments.
MOST_LINES = 20_000


def missing_output(view: BundleView) -> Iterator[Fault]:
    """Decode the test set and write the bundle again; the track takes an output for every pair and test set."""
    for path in view.outputs:
        if path not in view.files:
            yield path, "is missing"


def extra_output(view: BundleView) -> Iterator[Fault]:
    """Remove it: the campaign has no such pair or test set."""
    pairs = view.campaign.pairs
    expected = {*view.outputs, *(f"segments/{t.name}.yaml" for t in view.campaign.testsets)}
    expected |= {f"description/{pair.name}.txt" for pair in pairs}
    for path in view.files:
        folder = path.rpartition("/")[0]
        if (is_pair(folder) or folder in {"segments", "description"}) and path not in expected:
            yield printable(path), f"belongs to no pair or test set of campaign {view.campaign.name}"


def bad_segments(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again: the segments define which stretch of speech each line translates."""
    for testset in view.campaign.testsets:
        path = f"segments/{testset.name}.yaml"
        try:
            segments = read_segments_of(view, testset.name)
        except Unreadable as error:
            yield path, str(error)
            continue
        known = CHANNELS[testset.channels]
        other = next((n for n, s in enumerate(segments, 1) if known is not None and s.channel not in known), None)
        if other is not None:
            what = f"line {other:,}: channel {segments[other - 1].channel}"
            yield path, f"{what}, and the campaign has channels = '{testset.channels}' for this test set"


def segment_count(view: BundleView, testset: str) -> int:
    """Return how many segments a test set has in the bundle; Unreadable where its file is missing or is none."""
    return len(read_segments_of(view, testset))


def read_segments_of(view: BundleView, testset: str) -> list[Segment]:
    """Return the segments of a test set in the bundle; Unreadable where their file is missing or is none."""
    path = f"segments/{testset}.yaml"
    data = view.read(path, MOST_TEXT_BYTES)
    try:
        return parse_segments(data.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not UTF-8 ({error.reason} at byte {error.start:,})") from None
    except UserError as error:
        raise Unreadable(f"{printable(error.where)}: {printable(error.what, 200)}") from None
    except OverflowError as error:
        raise Unreadable(f"holds an impossible value ({error})") from None


def overlong_segment(view: BundleView) -> Iterator[Fault]:
    """Segment the recordings again: the model takes no more audio at once, and what lies beyond would be lost."""
    seconds = view.campaign.model.window_seconds
    for testset in view.campaign.testsets:
        try:
            segments = read_segments_of(view, testset.name)
        except Unreadable:
            continue  # reported as SET03
        longer = [number for number, segment in enumerate(segments, 1) if segment.seconds > seconds]
        if longer:
            more = f"; {len(longer):,} segments in all" if len(longer) > 1 else ""
            what = f"line {longer[0]:,}: {segments[longer[0] - 1].seconds:g} s, and the model takes {seconds} s{more}"
            yield f"segments/{testset.name}.yaml", what


def overlapping_segments(view: BundleView) -> Iterator[Fault]:
    """Look at the segments: what two of them share is translated twice, which no segmentation method does."""
    for testset in view.campaign.testsets:
        try:
            segments = read_segments_of(view, testset.name)
        except Unreadable:
            continue  # reported as SET03
        before: dict[tuple[str, int | None], Segment] = {}
        for segment in sorted(segments, key=lambda s: (s.recording, s.start)):
            last = before.get((segment.recording, segment.channel))
            shorter = segment if last is None else min(segment, last, key=lambda s: s.end - s.start)
            if last is not None and 2 * (min(last.end, segment.end) - segment.start) > shorter.end - shorter.start:
                seconds = f"{segment.start / SAMPLE_RATE:.2f} s of {printable(segment.recording)}"
                yield f"segments/{testset.name}.yaml", f"two segments at {seconds} overlap by more than half of one"
            if last is None or segment.end > last.end:
                before[segment.recording, segment.channel] = segment


def wrong_line_count(view: BundleView) -> Iterator[Fault]:
    """Write one line for every segment, in their order, and a blank line where there is no translation."""
    for path, testset in view.outputs.items():
        try:
            count, data = segment_count(view, testset), read_output(view, path)
        except Unreadable:
            continue  # reported as SET01, SET03, TXT13
        lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
        if lines != count:
            yield path, f"expected {counted(count, 'line')}, one a segment, got {lines:,}"


def unreadable_output(view: BundleView) -> Iterator[Fault]:
    """Write the bundle again: two hours of speech make a fifth of a megabyte of text; this file cannot be read, or is
    far larger.
    """
    for path in view.outputs:
        if path in view.files:
            try:
                view.read(path, MOST_TEXT_BYTES)
            except Unreadable as error:
                yield path, str(error)


def not_utf8(view: BundleView) -> Iterator[Fault]:
    """Save the file as UTF-8."""
    for path, data in _outputs(view):
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            yield path, f"line {line:,}: byte 0x{data[error.start]:02x} is not UTF-8 ({error.reason})"


def byte_order_mark(view: BundleView) -> Iterator[Fault]:
    """Save the file as UTF-8 without a byte order mark; the mark would be scored as part of the first line."""
    for path, text in _texts(view, keep_mark=True):
        if text.startswith(BOM):
            yield path, "begins with a byte order mark"


def carriage_return(view: BundleView) -> Iterator[Fault]:
    """Save the file with LF line ends only."""
    yield from _lines_where(view, lambda line: character_name("\r") if "\r" in line else "")


def other_line_break(view: BundleView) -> Iterator[Fault]:
    """Replace it with a blank: some programs count it as the end of a line, and all lines after it would shift."""
    yield from _lines_where(view, lambda line: _first_of(line, OTHER_LINE_BREAKS))


def control_character(view: BundleView) -> Iterator[Fault]:
    """Replace it with a blank: NUL, tabs and other control characters are not text."""
    yield from _lines_where(view, lambda line: _first_of(line, CONTROLS))


def direction_mark(view: BundleView) -> Iterator[Fault]:
    """Remove it: it makes the displayed text differ from the text that is scored."""
    yield from _lines_where(view, lambda line: _first_of(line, BIDIRECTIONAL) or _hidden(line))


def _hidden(line: str) -> str:
    found = hidden_characters(line)
    return character_name(found[0]) if found else ""


def lost_character(view: BundleView) -> Iterator[Fault]:
    """Look at these lines: U+FFFD stands where the model wrote bytes that are no character, or where a text was decoded
    wrongly.
    """
    for path, text in _texts(view):
        if count := text.count(LOST):
            lines = sum(LOST in line for line in lines_of(text))
            times = f"{count:,} times, in {lines:,} line{'s' if lines > 1 else ''}" if count > 1 else "once"
            yield path, f"U+FFFD {times}"


def outer_blank(view: BundleView) -> Iterator[Fault]:
    """Strip every line."""
    yield from _lines_where(view, lambda line: "blank" if line[:1] in BLANKS or line[-1:] in BLANKS else "")


def no_final_line_feed(view: BundleView) -> Iterator[Fault]:
    """End the last line with a line feed."""
    for path, data in _outputs(view):
        if data and not data.endswith(b"\n"):
            yield path, "the last line is not ended by a line feed"


def blank_line(view: BundleView) -> Iterator[Fault]:
    """Look at these segments: a blank line is right for one without speech, and otherwise a missing
    translation.
    """
    nothing = {path for path, _ in blank_output(view)}  # reported as TXT14
    faults = _lines_where(view, lambda line: "blank" if is_blank(line) else "")
    yield from (fault for fault in faults if fault[0] not in nothing)


def blank_output(view: BundleView) -> Iterator[Fault]:
    """Decode the test set again: an output without any text holds no translation."""
    for path, text in _texts(view):
        if is_blank(text):
            lines = len(lines_of(text))
            yield path, f"is blank in all of its {counted(lines, 'line')}" if lines else "is empty"


def repetition(view: BundleView) -> Iterator[Fault]:
    """Look at these lines: the model has probably not stopped at the end of the speech."""
    yield from _lines_where(view, _loop)


def tag(view: BundleView) -> Iterator[Fault]:
    """Remove it: tags for applause, laughter or music, and the model's own tokens, are not scored as text."""
    yield from _lines_where(view, _tag)


def _tag(line: str) -> str:
    """Return the first tag of a line; a word in brackets that names no sound, `(RNN)`, is not a tag."""
    found = (m[0] for m in TAG.finditer(line) if m[1] is None or m[1].casefold() in TAG_WORDS)
    return next((f"'{printable(tag)}'" for tag in found), "")


def _loop(line: str) -> str:
    part = repeated_part(line)
    return f"'{printable(part, 40)}' repeated four times or more" if part else ""


def _first_of(line: str, characters: frozenset[str]) -> str:
    return next((character_name(c) for c in line if c in characters), "") if not characters.isdisjoint(line) else ""


def _outputs(view: BundleView) -> Iterator[tuple[str, bytes]]:
    """Yield the readable outputs, one at a time, so that one at a time is in memory."""
    for path in view.outputs:
        try:
            yield path, read_output(view, path)
        except Unreadable:
            continue  # reported as SET01 or TXT13


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character."""
    return not (text.strip() and plain_line(text))


def lines_of(text: str) -> list[str]:
    """Return the lines of an output, with or without a final line feed."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_output(view: BundleView, path: str) -> bytes:
    """Return the bytes of an output; Unreadable where it is missing or has far too many bytes or lines."""
    data = view.read(path, MOST_TEXT_BYTES)
    if data.count(b"\n") > MOST_LINES:
        raise Unreadable(f"has more than {MOST_LINES:,} lines")
    return data


def _texts(view: BundleView, *, keep_mark: bool = False) -> Iterator[tuple[str, str]]:
    for path, data in _outputs(view):
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            continue  # reported as TXT02
        yield path, text if keep_mark else text.removeprefix(BOM)


def _lines_where(view: BundleView, look: Callable[[str], str]) -> Iterator[Fault]:
    """Yield a fault for each output with lines at which `look` finds something: how many, and the first."""
    for path, text in _texts(view):
        hits = [(number, seen) for number, line in enumerate(lines_of(text), 1) if (seen := look(line))]
        if hits:
            number, seen = hits[0]
            more = f"; {len(hits):,} lines in all" if len(hits) > 1 else ""
            yield path, f"line {number:,}: {seen}{more}"
