"""Make the paper's tables of the open set: 1 (all systems), 4 (choice of layers), 5 (calibration of AWQ)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean

from evaluate.report.paper import Paper
from evaluate.report.results import LOWER_IS_BETTER, NOT_COMPUTED, ReportedScore, Results, SystemResult, best, overlap
from evaluate.report.table import (
    Cell,
    Column,
    Group,
    Row,
    Table,
    marked,
    metric_column,
    outcome_cells,
    score_cell,
)
from submission.counting import counted
from submission.model.sizes import GB, GIB

SHOWN = ("BLEU", "chrF", "COMET")
"""Metrics of the page; TER is in the files only."""
CHOICES = ("sensitivity", "first", "last", "middle", "random")
"""Ways to choose layers, in the order of the paper's Table 4."""


def size_unit(systems: Sequence[SystemResult]) -> tuple[str, int]:
    """Return the unit of sizes: GiB as in the paper, or MB where all are small."""
    return ("GiB", GIB) if max(s.size_bytes for s in systems) >= GB // 10 else ("MB", 10**6)


def shown_metrics(results: Results, systems: Sequence[SystemResult]) -> list[str]:
    """Return the metrics with columns: COMET only where it was computed or the paper gives it."""
    has_comet = Paper(results.campaign).source or any("COMET" in o.scores for s in systems for o in s.outcomes)
    return [metric for metric in SHOWN if metric != "COMET" or has_comet]


def comet_note(systems: Sequence[SystemResult]) -> list[str]:
    """Return why COMET was not computed where other metrics were; nothing where it was."""
    reasons = [o.missing for s in systems for o in s.outcomes if o.scores and "COMET" not in o.scores]
    return [f"COMET: {reason or NOT_COMPUTED}" for reason in dict.fromkeys(reasons)]


def intervals_note(results: Results) -> str:
    """Return what the small figures, the bold ones and those of the paper are."""
    source = Paper(results.campaign).source
    beside = f" “paper”: {source}." if source else ""
    return (
        f"Small: the 95 % interval. BLEU, chrF: {results.open_testset} eval, gold segments; loss: nats per target "
        f"token on dev. In bold: the best of each column among the rows under one heading.{beside}"
    )


def quality_columns(pairs: Sequence[str], metrics: Sequence[str]) -> list[Column]:
    """Return a column for each metric of every pair, the loss last."""
    return [metric_column(metric, pair) for pair in pairs for metric in (*metrics, "loss")]


def quality_cells(
    results: Results, system: SystemResult, metrics: Sequence[str], paper: Callable[[str, str], float | None]
) -> list[Cell]:
    """Return the cells of a system under `quality_columns`; paper: (pair, metric) -> the paper's figure."""
    cells: list[Cell] = []
    for pair in results.pairs:
        outcome = system.outcome(pair, results.open_testset)
        cells += outcome_cells(outcome, metrics, partial(paper, pair))
        cells.append(score_cell(system.losses.get(pair)))
    return cells


def systems_table(results: Results) -> Table:
    """Return Table 1: every system, those within the size limit apart from the others."""
    systems, paper = results.systems, Paper(results.campaign)
    metrics, (unit, divisor) = shown_metrics(results, systems), size_unit(results.systems)

    def row(system: SystemResult) -> Row:
        size = Cell(value=system.size_bytes / divisor, decimals=3, paper=paper.size_gib(system.name))
        bits = Cell(value=system.bits_per_parameter, decimals=2)
        figures = quality_cells(results, system, metrics, lambda pair, m: paper.system(system.name, pair, m))
        return Row(head=system.name, cells=(size, bits, *figures, Cell(text=system.description)))

    stated = f"the limit of {results.size_limit}"
    kinds = ((f"Within {stated}", True), (f"Over {stated}", False)) if results.size_limit else (("All systems", True),)
    groups = [
        Group(title=title, rows=tuple(row(s) for s in systems if s.meets_limit == meets)) for title, meets in kinds
    ]
    return marked(
        Table(
            id="table-1",
            title="Table 1. All systems",
            caption=_systems_caption(results),
            head="system",
            columns=(
                Column(title=unit, over="size on disk", better="low"),
                Column(title="bits", over="size on disk"),
                *quality_columns(list(results.pairs), metrics),
                Column(title="description", text=True),
            ),
            groups=tuple(group for group in groups if group.rows),
            notes=(
                intervals_note(results),
                "Size: every file of the model folder; bits: size per parameter of the model.",
                *comet_note(systems),
            ),
            command=results.commands.get("systems", ""),
        )
    )


def _systems_caption(results: Results) -> str:
    within = [s for s in results.systems if s.meets_limit]
    text = f"At most {results.size_limit}: {len(within)} of {counted(len(results.systems), 'system')}."
    if results.size_limit is None:
        text = f"{counted(len(within), 'system')}; the campaign states no size limit."
    for pair, language in results.pairs.items():
        scored = [(score, s.name) for s in within if (score := figure(results, s, pair, "BLEU"))]
        if not scored:
            continue
        score, name = max(scored, key=lambda scored: scored[0].value)
        text += f" The best of them into {language}: {name}, {score.value:.1f} BLEU"
        alike = sum(overlap(score, other) is True for other, _ in scored) - 1
        others = {0: "none of the others'", 1: "that of 1 other"}.get(alike, f"those of {alike} others")
        text += f", whose interval overlaps with {others}." if score.low is not None and len(scored) > 1 else "."
    return text


def layers_table(results: Results) -> Table | None:
    """Return Table 4: the choice of layers for the coarser codec; None where no system has one."""
    plain = [s for s in results.systems if not s.calibration and not s.recovered]
    chosen = {choice: [s for s in plain if s.layers == choice] for choice in CHOICES}
    chosen = {choice: systems for choice, systems in chosen.items() if systems}
    if len(chosen) < 2:
        return None
    paper, metrics = Paper(results.campaign), shown_metrics(results, results.systems)
    rows = []
    for choice, systems in chosen.items():
        title = choice if len(systems) == 1 else f"{choice}, mean of {len(systems)}"
        cells = [quality_cells(results, system, metrics, partial(paper.layers, choice)) for system in systems]
        figures = [_mean_cell(column) for column in zip(*cells, strict=True)]
        rows.append(Row(head=title, cells=(*figures, Cell(text=", ".join(s.name for s in systems)))))
    return marked(
        Table(
            id="table-4",
            title="Table 4. Choice of layers for the coarser codec",
            caption=_layers_caption(results, chosen),
            head="layers",
            columns=(*quality_columns(list(results.pairs), metrics), Column(title="systems", text=True)),
            groups=(Group(title="", rows=tuple(rows)),),
            notes=(
                intervals_note(results),
                "For a mean of several random choices, small: the lowest and the highest of them, not an interval.",
                *comet_note(results.systems),
            ),
            command=results.commands.get("systems", ""),
        )
    )


def _mean_cell(cells: Sequence[Cell]) -> Cell:
    """Return the mean of figures with their range; a single one as it is."""
    values = [cell.value for cell in cells if cell.value is not None]
    if len(cells) == 1 or len(values) < len(cells):
        return cells[0]
    paper = cells[0].paper
    return Cell(value=mean(values), decimals=cells[0].decimals, low=min(values), high=max(values), paper=paper)


def _layers_caption(results: Results, chosen: dict[str, list[SystemResult]]) -> str:
    parts = []
    for metric in ("loss", "BLEU"):
        for pair in results.pairs:
            means = {c: _mean(results, systems, pair, metric) for c, systems in chosen.items()}
            known = {choice: value for choice, value in means.items() if value is not None}
            if known:
                value = best(metric, list(known.values()))
                names = [c for c, v in known.items() if v == value]
                word = "lowest loss" if metric in LOWER_IS_BETTER else "highest BLEU"
                parts.append(f"{word} {pair}: {', '.join(names)} ({value:.{3 if metric == 'loss' else 1}f})")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if parts else ""


def _mean(results: Results, systems: Sequence[SystemResult], pair: str, metric: str) -> float | None:
    scores = [figure(results, system, pair, metric) for system in systems]
    return None if None in scores else mean(s.value for s in scores if s)


def figure(results: Results, system: SystemResult, pair: str, metric: str) -> ReportedScore | None:
    """Return a system's figure on the open set, or its loss on dev; None where it was not computed."""
    if metric == "loss":
        return system.losses.get(pair)
    outcome = system.outcome(pair, results.open_testset)
    return outcome.scores.get(metric) if outcome else None


def calibration_table(results: Results) -> Table | None:
    """Return Table 5: the calibration sets of AWQ; None where no system uses AWQ."""
    packed = [s for s in results.systems if not s.recovered]
    calibrated = [s for s in packed if s.calibration]
    if not calibrated:
        return None
    metrics = shown_metrics(results, results.systems)
    choices = {s.layers for s in calibrated}
    without = [s for s in packed if not s.calibration and s.layers in choices and s.layers]
    rows = []
    for system in (*without, *calibrated):
        cells = quality_cells(results, system, metrics, lambda pair, metric: None)
        if system.utterances is None:
            count = Cell(text="–")
        else:
            count = Cell(value=system.utterances, decimals=0) if system.utterances else Cell(text="all")
        rows.append(Row(head=system.calibration or "none", cells=(count, *cells, Cell(text=system.name))))
    return marked(
        Table(
            id="table-5",
            title="Table 5. Calibration set of AWQ",
            caption=_calibration_caption(results, without, calibrated),
            head="calibration set",
            columns=(
                Column(title="utterances"),
                *quality_columns(list(results.pairs), metrics),
                Column(title="system", text=True),
            ),
            groups=(Group(title="", rows=tuple(rows)),),
            notes=(intervals_note(results), *comet_note(results.systems)),
            command=results.commands.get("systems", ""),
        )
    )


def _calibration_caption(results: Results, without: Sequence[SystemResult], calibrated: Sequence[SystemResult]) -> str:
    parts = []
    for pair in results.pairs:
        scores = [score for s in calibrated if (score := figure(results, s, pair, "BLEU"))]
        if not scores:
            continue
        low, high = min(s.value for s in scores), max(s.value for s in scores)
        text = f"{pair}: {low:.1f} to {high:.1f} BLEU over {len(scores)} sets"
        base = figure(results, without[0], pair, "BLEU") if without else None
        if base:
            alike = sum(overlap(base, score) is True for score in scores)
            text += f", {base.value:.1f} without AWQ"
            text += f"; {alike} of {len(scores)} intervals overlap with that" if base.low is not None else ""
        parts.append(text)
    return f"{'. '.join(parts)}." if parts else ""
