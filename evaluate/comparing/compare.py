"""Two sides, each with one output or many: what belongs together is compared and shown in one table."""

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
from evaluate.comparing.paired import Paired, compare_with_references, paired_heading, paired_rows
from evaluate.scoring.references import references_of
from submission.errors import UserError
from submission.store.digests import canonical_json
from submission.text_table import aligned


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two outputs of one pair and test set."""

    name: str
    """`en-de/ACL`, as far as it is known."""
    a: str
    """What is compared: a path."""
    b: str
    comparison: Comparison
    paired: Paired | None
    """Both against the references; None where none were given for them."""


def compare_sides(
    a: Path,
    b: Path,
    segments: Path | None,
    pair: str | None,
    testset: str | None,
    worst: int,
    references: Path | None = None,
) -> list[Compared]:
    """Return the comparison of every output of `a` with its counterpart in `b`.

    segments: what the lines of text files belong to; pair, testset: only these; worst: how many differences to keep
    of each; references: the folder of the translations to hold both against. Raises UserError where a side has no
    outputs, nothing has a counterpart, and no output has references though a folder of them is given.
    """
    sides = [of_names(find_outputs(path, segments), pair, testset) for path in (a, b)]
    compared = []
    for name, one, other in match(*sides):
        named, of_testset = one.pair or other.pair or pair or "", one.testset or other.testset or testset or ""
        if references and not named:
            raise UserError("--references", "nothing says which pair the outputs are of", "name it with --pair")
        found = references_of(references, named, of_testset) if references else None
        compared.append(
            Compared(
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


def sides_json(compared: Sequence[Compared]) -> str:
    """Return comparisons for machines; positions are samples at 16 kHz."""
    return canonical_json([asdict(one) for one in compared])


def sides_text(compared: Sequence[Compared]) -> str:
    """Return a table of comparisons, and below it, for each that has any, the worst differences."""
    rows = [("output", *SUMMARY_HEADINGS)]
    rows += [(one.name or "-", *summary_cells(one.comparison)) for one in compared]
    lines = [aligned(rows), f"chrF: A against B as reference, {compared[0].comparison.signature}"]
    for one in compared:
        said = notes(one.comparison, "A", "B")
        if said or one.comparison.worst or one.paired:
            lines += ["", f"{one.name}: A {one.a}, B {one.b}".removeprefix(": "), *said]
        if one.paired:
            lines += [paired_heading(one.paired), aligned(paired_rows(one.paired), indent=2)]
        lines += worst_lines(one.comparison, "A", "B")
    if any(one.paired for one in compared):
        lines += ["", "p: how often chance alone makes a difference as large (paired bootstrap, 1,000 resamples)"]
    return "\n".join(lines) + "\n"
