"""Tables as values: columns, groups of rows, cells with their intervals; `pages` and `exports` format them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from evaluate.report.results import LOWER_IS_BETTER, NOT_COMPUTED, ReportedScore, TestSetResult

DECIMALS = {"BLEU": 1, "chrF": 1, "TER": 1, "COMET": 1, "loss": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell: a text, or a figure with its interval, or the reason why there is none."""

    text: str = ""
    value: float | None = None
    decimals: int = 1
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    """The paper's figure for the same."""
    missing: str = ""
    """Why there is no figure: `not computed: no references`."""
    best: bool = False

    @property
    def shown(self) -> str:
        """The cell's main text."""
        if self.value is not None:
            return f"{self.value:,.{self.decimals}f}"
        return self.text or self.missing.partition(":")[0]

    @property
    def beside(self) -> str:
        """`paper 24.4`, empty where the paper has no figure; it gives two decimals at most."""
        return "" if self.paper is None else f"paper {self.paper:.{min(self.decimals, 2)}f}"

    @property
    def interval(self) -> str:
        """`22.1–26.4`, empty where there is no interval."""
        if self.low is None or self.high is None:
            return ""
        return f"{self.low:.{self.decimals}f}–{self.high:.{self.decimals}f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Heading and kind of a column."""

    title: str
    over: str = ""
    """Common heading of neighbouring columns: a pair."""
    text: bool = False
    """Whether its cells are texts, aligned left, and not numbers."""
    better: str = ""
    """`high` or `low`: which of its figures is marked as best; empty for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: its heading, and a cell for each column."""

    head: str
    cells: tuple[Cell, ...]
    compared: bool = True
    """Whether it takes part in marking the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows under one heading; the best figures are marked among them."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the report."""

    id: str
    title: str
    caption: str
    """A summary of its figures, computed from them."""
    head: str
    """Heading of the first column, which holds the rows' headings."""
    columns: tuple[Column, ...]
    """All but the first."""
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()
    command: str = ""
    """The command that makes it."""

    @property
    def column_groups(self) -> list[tuple[str, list[Column]]]:
        """Neighbouring columns by their common heading, which is empty for none."""
        return [(over, list(columns)) for over, columns in groupby(self.columns, key=lambda column: column.over)]


def marked(table: Table) -> Table:
    """Return the table with the best figures of each column marked, group by group; ties are all marked."""
    return replace(table, groups=tuple(_marked_group(group, table.columns) for group in table.groups))


def _marked_group(group: Group, columns: Sequence[Column]) -> Group:
    compared = [row for row in group.rows if row.compared]
    if len(compared) < 2:
        return group
    best = [_best_shown([row.cells[n] for row in compared], column.better) for n, column in enumerate(columns)]
    return replace(group, rows=tuple(_marked_row(row, best) if row.compared else row for row in group.rows))


def _best_shown(cells: Sequence[Cell], better: str) -> str | None:
    """Return the shown text of the best cell; None where none is marked."""
    choose: Callable[..., Cell] | None = {"high": max, "low": min}.get(better)
    known = [cell for cell in cells if cell.value is not None]
    return choose(known, key=lambda cell: cell.value).shown if choose and known else None


def _marked_row(row: Row, best: Sequence[str | None]) -> Row:
    cells = zip(row.cells, best, strict=True)
    return replace(row, cells=tuple(replace(c, best=c.value is not None and c.shown == most) for c, most in cells))


def score_cell(score: ReportedScore | None, missing: str = NOT_COMPUTED, paper: float | None = None) -> Cell:
    """Return the cell of a figure."""
    if score is None:
        return Cell(missing=missing, paper=paper)
    decimals = DECIMALS[score.metric]
    return Cell(value=score.value, decimals=decimals, low=score.low, high=score.high, paper=paper)


def outcome_cells(
    outcome: TestSetResult | None, metrics: Sequence[str], paper: Callable[[str], float | None] = lambda metric: None
) -> list[Cell]:
    """Return a cell for each metric of a test set; paper: metric -> the paper's figure."""
    if outcome is None:
        return [Cell(missing=f"{NOT_COMPUTED}: not requested", paper=paper(metric)) for metric in metrics]
    return [score_cell(outcome.scores.get(metric), outcome.missing, paper(metric)) for metric in metrics]


def metric_column(metric: str, over: str) -> Column:
    """Return the column of a metric."""
    return Column(title=metric, over=over, better="low" if metric in LOWER_IS_BETTER else "high")
