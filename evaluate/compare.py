"""Two sides, each with one output or many: what belongs together is compared and shown in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluate.comparison import SUMMARY_HEADINGS, Comparison, compare, notes, pair_up, summary_cells, worst_lines
from evaluate.outputs import find_outputs, match, of_names
from submission.digest import canonical_json
from submission.tabular import aligned


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two outputs of one pair and test set."""

    name: str
    """`en-de/ACL`, as far as it is known."""
    a: str
    """What is compared: a path."""
    b: str
    comparison: Comparison


def compare_sides(
    a: Path, b: Path, segments: Path | None, pair: str | None, testset: str | None, worst: int
) -> list[Compared]:
    """Return the comparison of every output of `a` with its counterpart in `b`.

    segments: what the lines of text files belong to; pair, testset: only these; worst: how many differences to keep
    of each. Raises UserError where a side has no outputs or nothing has a counterpart.
    """
    sides = [of_names(find_outputs(path, segments), pair, testset) for path in (a, b)]
    return [
        Compared(
            name=name,
            a=one.output.label,
            b=other.output.label,
            comparison=compare(pair_up(one.output, other.output), worst),
        )
        for name, one, other in match(*sides)
    ]


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
        if said or one.comparison.worst:
            lines += ["", f"{one.name}: A {one.a}, B {one.b}".removeprefix(": "), *said]
            lines += worst_lines(one.comparison, "A", "B")
    return "\n".join(lines) + "\n"
