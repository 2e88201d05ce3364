"""Two outputs held against references: which is better, by how much, and whether that is chance.

Each output is brought to one line for each line of the references, as `evaluate.scoring.score` does it: line by line where its
segments are the references' own, and otherwise cut anew along the references, recording by recording.
"""

from __future__ import annotations

from dataclasses import dataclass

from evaluate.comparing.comparison import Output
from evaluate.scoring.reference_alignment import fitted
from evaluate.scoring.references import References
from evaluate.scoring.resegmentation import resegment_recordings
from evaluate.scoring.significance import Difference, paired_bootstrap


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """What two outputs are worth against the same references."""

    references: str
    """The file."""
    lines: int
    """Reference lines, which is what is compared."""
    by_line: tuple[bool, bool]
    """Of either output, whether its segments are the references' own; if not it was cut anew."""
    differences: tuple[Difference, ...]
    """One a metric; the first system is A."""


def compare_with_references(a: Output, b: Output, references: References, pair: str) -> Paired:
    """Return what two outputs are worth; UserError where one does not belong to the references."""
    language = pair.rpartition("-")[2]
    first, own_a = _answers(a, references, language)
    second, own_b = _answers(b, references, language)
    return Paired(
        references=str(references.path),
        lines=len(references.lines),
        by_line=(own_a, own_b),
        differences=tuple(paired_bootstrap(first, second, references.lines, language)),
    )


def _answers(output: Output, references: References, language: str) -> tuple[list[str], bool]:
    """Return a line of the output for each reference line, in their order, and whether they are its own lines."""
    fit, own = fitted(references, output.places, output.label)
    lines = list(output.lines)
    if not own:
        texts: dict[str, list[str]] = {}
        for place, line in zip(output.places, output.lines, strict=True):
            texts.setdefault(place.recording, []).append(line)
        pairs = list(zip(fit.recordings, fit.lines, strict=True))
        lines = resegment_recordings(texts, pairs, language, output.label)
    answers = dict(zip(fit.numbers, lines, strict=True))
    return [answers[number] for number in references.numbers], own


def paired_heading(paired: Paired) -> str:
    """Return what was compared, for a terminal; the figures are `paired_rows`."""
    cut = [name for name, own in zip(("A", "B"), paired.by_line, strict=True) if not own]
    how = f"{' and '.join(cut)} cut anew along them" if cut else "line by line"
    return f"against {paired.lines:,} lines of {paired.references}, {how}:"


def paired_rows(paired: Paired) -> list[tuple[str, ...]]:
    """Return a table: a metric, both figures, their difference with its interval, and how likely chance makes one."""
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
