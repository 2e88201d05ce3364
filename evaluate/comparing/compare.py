"""Compare the outputs of two sides, one or many each: match them, compare each match, print one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluate.comparing.comparison import (
    SUMMARY_HEADINGS,
    Comparison,
    compare,
    notes,
    pair_up,
    summary_cells,
    worst_lines,
)
from evaluate.comparing.outputs import find_outputs, match, of_names
from evaluate.comparing.paired import ReferenceComparison, compare_with_references, paired_heading, paired_rows
from evaluate.scoring.references import references_of
from evaluate.scoring.unicode_form import UnicodeForm
from submission.errors import UserError
from submission.store.digests import canonical_json
from submission.text_table import aligned


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputComparison:
    """Two outputs of one pair and test set."""

    name: str
    """`en-de/ACL`, as far as known."""
    a: str
    """Path of the output."""
    b: str
    comparison: Comparison
    paired: ReferenceComparison | None
    """Both against the references; None where none were given for them."""


def compare_sides(
    a: Path,
    b: Path,
    segments: Path | None,
    pair: str | None,
    testset: str | None,
    worst: int,
    references: Path | None = None,
    form: UnicodeForm = "",
) -> list[OutputComparison]:
    """Return the comparison of every output of `a` with its counterpart in `b`.

    segments: the YAML with the segments of text files; pair, testset: only these; worst: how many differences to keep
    of each; references: the folder of references to score both against, form: in which Unicode form. Raises UserError
    where a side has no outputs, no output has a counterpart, or no output has references though a folder is given.
    """
    sides = [of_names(find_outputs(path, segments), pair, testset) for path in (a, b)]
    compared = []
    for name, one, other in match(*sides):
        named, of_testset = one.pair or other.pair or pair or "", one.testset or other.testset or testset or ""
        if references and not named:
            raise UserError("--references", "the pair of the outputs is unknown", "name it with --pair")
        found = references_of(references, named, of_testset, form) if references else None
        compared.append(
            OutputComparison(
                name=name,
                a=one.output.label,
                b=other.output.label,
                comparison=compare(pair_up(one.output, other.output), worst),
                paired=compare_with_references(one.output, other.output, found, named) if found else None,
            )
        )
    if references and not any(one.paired for one in compared):
        names = ", ".join(one.name or one.a for one in compared[:4])
        what, fix = f"holds no references for {names}", "name the folder of <pair>.txt, or of <TESTSET>/<pair>.txt"
        raise UserError(f"--references {references}", what, fix)
    return compared


def sides_json(compared: Sequence[OutputComparison]) -> str:
    """Return comparisons for machines; positions are samples at 16 kHz."""
    return canonical_json([asdict(one) for one in compared])


def sides_text(compared: Sequence[OutputComparison]) -> str:
    """Return a table of comparisons, and below it, for each that has any, the worst differences."""
    rows: list[tuple[str, ...]] = [("output", *SUMMARY_HEADINGS)]
    rows += [(one.name or "-", *summary_cells(one.comparison)) for one in compared]
    lines = [aligned(rows), f"chrF: A against B as reference, {compared[0].comparison.signature}"]
    for one in compared:
        limits = notes(one.comparison, "A", "B")
        if limits or one.comparison.worst or one.paired:
            lines += ["", f"{one.name}: A {one.a}, B {one.b}".removeprefix(": "), *limits]
        if one.paired:
            lines += [paired_heading(one.paired), aligned(paired_rows(one.paired), indent=2)]
            lines += [f"  {one.paired.note}"] if one.paired.note else []
        lines += worst_lines(one.comparison, "A", "B")
    if any(one.paired for one in compared):
        lines += ["", "p: two-sided p-value of the difference (paired bootstrap, 1,000 resamples)"]
    return "\n".join(lines) + "\n"
