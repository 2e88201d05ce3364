"""Compare two systems' outputs: identical lines, the similarity of the others, and the largest differences.

Similarity is chrF with the second output as the reference of the first; it needs no reference translation, and does
not measure which output is better. Where both have the same segments, lines are compared. Where they segment the same
recordings differently, lines have no counterpart (only references could align them, see
`evaluate.scoring.resegmentation`): then each recording's whole text is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from submission.counting import counted
from submission.errors import UserError
from submission.text.characters import printable
from submission.text.segments import SAMPLE_RATE, Segment, segment_ids

DECIMALS = 4
WORST = 5
"""How many differences are shown by default."""
LONGEST_SHOWN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class LinePosition:
    """Recording and position of a line, in samples at 16 kHz; None where unknown."""

    recording: str = ""
    """File name of the recording, empty where unknown."""
    start: int | None = None
    end: int | None = None
    name: str = ""
    """Name of the line where its position is unknown: `talk1.wav/0003`, `line 4`."""

    def __str__(self) -> str:
        if self.start is None or self.end is None:
            return self.name or self.recording
        return f"{self.recording} {self.start / SAMPLE_RATE:.2f}-{self.end / SAMPLE_RATE:.2f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemOutput:
    """A system's output for some recordings: a line a segment, with its position."""

    label: str
    """Its name in errors and reports."""
    lines: tuple[str, ...]
    places: tuple[LinePosition, ...]

    def __post_init__(self) -> None:
        if len(self.lines) != len(self.places):
            what = f"expected {counted(len(self.places), 'line')}, one a segment, got {len(self.lines)}"
            raise UserError(self.label, what, "use text and segments of the same run")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedOutputs:
    """The corresponding texts of two outputs."""

    unit: Literal["line", "recording"]
    places: tuple[LinePosition, ...]
    a: tuple[str, ...]
    b: tuple[str, ...]
    only_a: tuple[str, ...] = ()
    """Recordings that only the first output has; they are not compared."""
    only_b: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDifference:
    """Two corresponding texts that are not identical."""

    place: LinePosition
    chrf: float
    a: str
    b: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The comparison of two outputs."""

    unit: Literal["line", "recording"]
    compared: int
    """How many lines, or recordings."""
    identical: int
    chrf: float | None
    """Of all compared texts, in percent, with the second output as the reference; None where there are none."""
    signature: str
    """sacrebleu's."""
    blank_a: int
    """How many of the compared texts are blank in the first output."""
    blank_b: int
    worst: tuple[TextDifference, ...]
    """Those that differ most by their own chrF, the worst first."""
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def segment_positions(segments: Sequence[Segment]) -> tuple[LinePosition, ...]:
    """Return the positions of segments."""
    return tuple(
        LinePosition(recording=s.recording, start=s.start, end=s.end, name=name)
        for s, name in zip(segments, segment_ids(segments), strict=True)
    )


def named_positions(ids: Sequence[str]) -> tuple[LinePosition, ...]:
    """Return the positions of segments of which only the ids are known, `talk1.wav/0003`."""
    return tuple(LinePosition(recording=name.rpartition("/")[0], name=name) for name in ids)


def numbered_positions(count: int) -> tuple[LinePosition, ...]:
    """Return the positions of lines without segments."""
    return tuple(LinePosition(name=f"line {number}") for number in range(1, count + 1))


def recordings_of(output: SystemOutput) -> list[str]:
    """Return the recordings of an output in order, those that are known."""
    return list(dict.fromkeys(place.recording for place in output.places if place.recording))


def pair_up(a: SystemOutput, b: SystemOutput) -> AlignedOutputs:
    """Return the corresponding texts of two outputs, in the order of `a`.

    Lines correspond where every common recording has the same segments, or as many where positions are unknown.
    Otherwise recordings correspond. Raises UserError for outputs without a common recording, and for outputs without
    known recordings that differ in their numbers of lines.
    """
    if not all(place.recording for place in (*a.places, *b.places)):
        return _pair_unnamed(a, b)
    in_a, in_b = _by_recording(a), _by_recording(b)
    both = [recording for recording in in_a if recording in in_b]
    if not both and (in_a or in_b):
        what = f"has no recording in common with {b.label} ({some_of(in_a)} against {some_of(in_b)})"
        raise UserError(a.label, what, "compare outputs for the same recordings")
    only = {"only_a": tuple(r for r in in_a if r not in in_b), "only_b": tuple(r for r in in_b if r not in in_a)}
    rows = [(i, j) for recording in both for i, j in zip(in_a[recording], in_b[recording], strict=False)]
    alike = all(len(in_a[recording]) == len(in_b[recording]) for recording in both)
    if alike and all(_alike(a.places[i], b.places[j]) for i, j in rows):
        rows.sort()
        return AlignedOutputs(
            unit="line",
            places=tuple(a.places[i] if a.places[i].start is not None else b.places[j] for i, j in rows),
            a=tuple(a.lines[i] for i, _ in rows),
            b=tuple(b.lines[j] for _, j in rows),
            **only,
        )
    return AlignedOutputs(
        unit="recording",
        places=tuple(LinePosition(recording=recording) for recording in both),
        a=tuple(_joined(a, in_a[recording]) for recording in both),
        b=tuple(_joined(b, in_b[recording]) for recording in both),
        **only,
    )


def _pair_unnamed(a: SystemOutput, b: SystemOutput) -> AlignedOutputs:
    if len(a.lines) != len(b.lines):
        what = f"has {len(a.lines)} lines and {b.label} has {len(b.lines)}, and their segments are unknown"
        raise UserError(a.label, what, "give their segments with --segments")
    places = tuple(i if i.recording else j for i, j in zip(a.places, b.places, strict=True))
    return AlignedOutputs(unit="line", places=places, a=a.lines, b=b.lines)


def _by_recording(output: SystemOutput) -> dict[str, list[int]]:
    """Return recording -> numbers of its lines, both in the order of the output."""
    numbers: dict[str, list[int]] = {}
    for number, place in enumerate(output.places):
        numbers.setdefault(place.recording, []).append(number)
    return numbers


def _alike(a: LinePosition, b: LinePosition) -> bool:
    known = a.start is not None and b.start is not None
    return not known or (a.start, a.end) == (b.start, b.end)


def _joined(output: SystemOutput, numbers: Sequence[int]) -> str:
    return " ".join(line for number in numbers if (line := output.lines[number]))


def some_of(names: Sequence[str] | dict[str, list[int]], count: int = 3) -> str:
    """Return the first of some names and how many more there are, as messages name them."""
    names = list(names)
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "") or "none"


def compare(pairing: AlignedOutputs, worst: int = WORST) -> Comparison:
    """Return how alike two outputs are, and the `worst` most different texts.

    Recordings are identical where their texts differ in spaces only: each segment boundary adds one, in Chinese too.
    chrF ignores spaces.
    """
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    same = [_key(pairing.unit, a) == _key(pairing.unit, b) for a, b in zip(pairing.a, pairing.b, strict=True)]
    differences = [
        TextDifference(place=place, chrf=round(metric.sentence_score(a, [b]).score, DECIMALS), a=a, b=b)
        for place, a, b, equal in zip(pairing.places, pairing.a, pairing.b, same, strict=True)
        if not equal
    ]
    # Computed even where it is not needed: the metric's signature depends on it.
    together = metric.corpus_score(list(pairing.a) or [""], [list(pairing.b) or [""]]).score
    # Equal outputs score 100 even where all of their lines are blank.
    chrf = (100.0 if all(same) else round(together, DECIMALS)) if same else None
    return Comparison(
        unit=pairing.unit,
        compared=len(same),
        identical=sum(same),
        chrf=chrf,
        signature=metric.get_signature().format(),
        blank_a=sum(not text for text in pairing.a),
        blank_b=sum(not text for text in pairing.b),
        worst=tuple(
            sorted(differences, key=lambda difference: difference.chrf)[: max(worst, 0)]
        ),  # equals keep their order
        only_a=pairing.only_a,
        only_b=pairing.only_b,
    )


def _key(unit: str, text: str) -> str:
    return text if unit == "line" else "".join(text.split())


def summary_cells(comparison: Comparison) -> list[str]:
    """Return identical, chrF and blanks as a table shows them."""
    share = f" ({comparison.identical / comparison.compared:.1%})" if comparison.compared else ""
    return [
        f"{comparison.identical:,}/{comparison.compared:,} {comparison.unit}s{share}",
        "-" if comparison.chrf is None else f"{comparison.chrf:.2f}",
        f"{comparison.blank_a:,} and {comparison.blank_b:,}",
    ]


SUMMARY_HEADINGS = ("identical", "chrF", "blank")


def notes(comparison: Comparison, a: str, b: str) -> list[str]:
    """Return the limits of a comparison of the outputs named a and b, a line each."""
    lines = []
    if comparison.unit == "recording":
        lines.append("segmented differently: whole recordings are compared; comparing lines takes references")
    for name, recordings in ((a, comparison.only_a), (b, comparison.only_b)):
        if recordings:
            lines.append(f"only in {name}, not compared: {some_of(recordings)}")
    return lines


def worst_lines(comparison: Comparison, a: str, b: str) -> list[str]:
    """Return the worst differences as a terminal shows them: place, chrF, both texts."""
    width = max(len(a), len(b)) + 1
    lines = []
    for difference in comparison.worst:
        lines.append(f"  {difference.place}, chrF {difference.chrf:.1f}")
        for name, text in ((a, difference.a), (b, difference.b)):
            lines.append(f"    {name + ':':<{width}} {printable(text, LONGEST_SHOWN) or '(blank)'}")
    left = comparison.compared - comparison.identical - len(comparison.worst)
    if left:
        lines.append(f"  and {left:,} more, which differ less")
    return lines
