"""Compare two outputs by their scores against references: the difference, its interval and its p-value.

Each output gets one line for each reference line, as in `evaluate.scoring.score`: line by line where its
segments are those of the references, and otherwise resegmented along the references, recording by recording.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from evaluate.comparing.comparison import SystemOutput
from evaluate.scoring.reference_alignment import align_references
from evaluate.scoring.references import References
from evaluate.scoring.resegmentation import resegment_recordings
from evaluate.scoring.significance import PairedDifference, paired_bootstrap
from evaluate.scoring.unicode_form import form_note, in_form, with_form


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceComparison:
    """The scores of two outputs against the same references."""

    references: str
    """The file."""
    lines: int
    """Number of reference lines; each is compared with one line of either output."""
    by_line: tuple[bool, bool]
    """Of either output, whether its segments are those of the references; if not, it was resegmented."""
    differences: tuple[PairedDifference, ...]
    """One a metric; the first system is A."""
    note: str
    """What the Unicode forms of outputs and references cost; empty where nothing."""


def compare_with_references(a: SystemOutput, b: SystemOutput, references: References, pair: str) -> ReferenceComparison:
    """Return the comparison; UserError where an output does not match the references."""
    language = pair.rpartition("-")[2]
    first, own_a = _aligned_lines(a, references, language)
    second, own_b = _aligned_lines(b, references, language)
    differences = paired_bootstrap(first, second, references.lines, language)
    return ReferenceComparison(
        references=str(references.path),
        lines=len(references.lines),
        by_line=(own_a, own_b),
        differences=tuple(replace(d, signature=with_form(d.signature, references.form)) for d in differences),
        note=form_note({str(references.path): references.lines, a.label: first, b.label: second}),
    )


def _aligned_lines(output: SystemOutput, references: References, language: str) -> tuple[list[str], bool]:
    """Return a line of the output for each reference line, in their order, and whether no resegmentation was needed."""
    fit, own = align_references(references, output.places, output.label)
    lines = in_form(output.lines, references.form)
    if not own:
        texts: dict[str, list[str]] = {}
        for place, line in zip(output.places, lines, strict=True):
            texts.setdefault(place.recording, []).append(line)
        pairs = list(zip(fit.recordings, fit.lines, strict=True))
        lines = resegment_recordings(texts, pairs, language, output.label)
    lines_of = dict(zip(fit.numbers, lines, strict=True))
    return [lines_of[number] for number in references.numbers], own


def paired_heading(paired: ReferenceComparison) -> str:
    """Return the heading of the comparison for a terminal; the scores are `paired_rows`."""
    resegmented = [name for name, own in zip(("A", "B"), paired.by_line, strict=True) if not own]
    how = f"{' and '.join(resegmented)} resegmented along them" if resegmented else "line by line"
    form = ", compared in NFC" if any("|unicode:" in one.signature for one in paired.differences) else ""
    return f"against {paired.lines:,} lines of {paired.references}, {how}{form}:"


def paired_rows(paired: ReferenceComparison) -> list[tuple[str, ...]]:
    """Return the rows of a table: metric, both scores, their difference with its interval, p-value."""
    rows: list[tuple[str, ...]] = [("", "A", "B", "B - A", "95 % of it", "p")]
    rows += [
        (
            one.metric,
            f"{one.first:.2f}",
            f"{one.second:.2f}",
            f"{one.difference:+.2f}",
            f"{one.low:+.2f} to {one.high:+.2f}",
            f"{one.p_value:.3f}",
        )
        for one in paired.differences
    ]
    return rows
