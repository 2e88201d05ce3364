"""Make the tables of the blind sets: Table 6 (primary and contrastive), and the methods of segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from evaluate.report.open_set_tables import comet_note, shown_metrics
from evaluate.report.paper import Paper
from evaluate.report.results import Results, SegmentationResult, SystemResult
from evaluate.report.table import Cell, Column, Group, Row, Table, marked, metric_column, outcome_cells
from submission.counting import counted

GOLD = "gold"
"""The reference method, not compared with the others."""
SIGNIFICANT = 0.05
"""p-value below which two uploads differ significantly; of twenty test sets one does by chance."""
ABSENT = Cell(missing="–: not a test set of this pair")


def uploads_table(results: Results) -> Table | None:
    """Return Table 6: the uploads on every blind set; None where nothing was measured."""
    systems = results.uploads
    if not systems:
        return None
    paper = Paper(results.campaign)
    groups = []
    for pair in results.pairs:
        for metric in shown_metrics(results, systems):
            rows = []
            for system in systems:
                cells = []
                for testset in results.testsets:
                    outcome = system.outcome(pair, testset)
                    figure = paper.upload(system.name, pair, metric, testset)
                    has = testset in results.testsets_of[pair]
                    cells += outcome_cells(outcome, [metric], {metric: figure}.get) if has else [ABSENT]
                rows.append(Row(head=system.name, cells=tuple(cells)))
            groups.append(Group(title=f"{pair}, {metric}", rows=tuple(rows)))
    return marked(
        Table(
            id="table-6",
            title="Table 6. The blind test sets",
            caption=_uploads_caption(results),
            head="system",
            columns=tuple(Column(title=testset, better="high") for testset in results.testsets),
            groups=tuple(groups),
            notes=(
                "Small: the 95 % interval. Hypotheses of sets that the system segments itself are resegmented along "
                "the references. In bold: the better one. –: not a test set of that pair.",
                *_paper_note(paper),
                *comet_note(systems),
            ),
            command=results.commands.get("uploads", ""),
        )
    )


def _paper_note(paper: Paper) -> list[str]:
    return [f"“paper”: {paper.source}."] if paper.source else []


def _uploads_caption(results: Results) -> str:
    if len(results.uploads) != 2:
        return f"{counted(len(results.uploads), 'system')}, each scored on the test sets that have references."
    one, two = results.uploads
    found = [paired for paired in results.paired if paired.metric == "BLEU"]
    if not found:
        return "No blind set has references, so nothing is scored."
    behind = sum(paired.difference < 0 for paired in found)
    significant = [paired for paired in found if paired.p_value < SIGNIFICANT]
    caption = f"{one.name} is ahead of {two.name} in BLEU on {behind} of {len(found)} test sets and pairs. "
    if not significant:
        return f"{caption}By a paired bootstrap they differ significantly (p < {SIGNIFICANT}) on none."
    named = ", ".join(
        f"{paired.pair}/{paired.testset} ({paired.difference:+.1f} for {two.name}, p {paired.p_value:.3f})"
        for paired in significant
    )
    return (
        f"{caption}By a paired bootstrap they differ significantly (p < {SIGNIFICANT}) on {len(significant)}: {named}."
    )


def segmentation_table(results: Results) -> Table | None:
    """Return the table of segmentation methods: segments, dropped speech, scores, for each test set and in total."""
    methods = results.segmentations
    if not methods:
        return None
    metrics = shown_metrics(results, methods)
    given = {one.testset for method in methods for one in method.segmentation_results if one.given}
    own = [testset for testset in results.testsets if testset not in given]
    groups = [_method_group(results, testset, metrics) for testset in own]
    groups += [_given_group(results, testset, metrics) for testset in results.testsets if testset in given]
    groups.append(_total_group(results, own, metrics))
    return marked(
        Table(
            id="segmentation",
            title="Segmentation methods",
            caption=_segmentation_caption(results, own),
            head="method",
            columns=(
                Column(title="segments"),
                Column(title="seconds", over="in segments"),
                Column(title="seconds", over="speech"),
                Column(title="dropped %", over="speech", better="low"),
                *(metric_column(metric, pair) for pair in results.pairs for metric in metrics),
            ),
            groups=tuple(group for group in groups if group.rows),
            notes=(
                "Small: the 95 % interval. Every row is translated by the same model. Speech is what silero-vad finds; "
                "dropped is the part outside all segments. Gold: the segments of the references. In bold: the best of "
                "the others.",
                "The last rows are sums, and means of the scores, over the sets without given segments.",
                *comet_note(methods),
            ),
            command=results.commands.get("segmentations", ""),
        )
    )


def _segmentation_of(method: SystemResult, testset: str) -> SegmentationResult | None:
    return next((one for one in method.segmentation_results if one.testset == testset), None)


def _segmentations_of_all(method: SystemResult, testsets: Sequence[str]) -> list[SegmentationResult]:
    """Return a method's segmentations of all test sets; none where one is missing, for totals to be comparable."""
    found = [one for testset in testsets if (one := _segmentation_of(method, testset))]
    return found if len(found) == len(testsets) else []


def _segmentation_cells(found: Sequence[SegmentationResult]) -> list[Cell]:
    """Return segments, seconds in them, seconds of speech, dropped share, over test sets."""
    if not found:
        return [Cell(missing="not computed: no gold segments")] * 4
    speech, dropped = sum(c.speech_seconds for c in found), sum(c.dropped_seconds for c in found)
    share = Cell(value=100 * dropped / speech) if speech else Cell(missing="–: no speech found")
    seconds = [Cell(value=sum(c.segment_seconds for c in found)), Cell(value=speech)]
    return [Cell(value=sum(c.segments for c in found), decimals=0), *seconds, share]


def _method_row(results: Results, method: SystemResult, head: str, testset: str, metrics: Sequence[str]) -> Row:
    one = _segmentation_of(method, testset)
    cells = _segmentation_cells([one] if one else [])
    for pair, testsets in results.testsets_of.items():
        cells += (
            outcome_cells(method.outcome(pair, testset), metrics) if testset in testsets else [ABSENT] * len(metrics)
        )
    return Row(head=head, cells=tuple(cells), compared=method.name != GOLD)


def _method_group(results: Results, testset: str, metrics: Sequence[str]) -> Group:
    rows = [_method_row(results, method, method.name, testset, metrics) for method in results.segmentations]
    return Group(title=testset, rows=tuple(rows))


def _given_group(results: Results, testset: str, metrics: Sequence[str]) -> Group:
    rows = (_method_row(results, results.segmentations[0], "given", testset, metrics),)
    return Group(title=f"{testset}: segments as given, the same for every method", rows=rows)


def _total_group(results: Results, own: Sequence[str], metrics: Sequence[str]) -> Group:
    rows = []
    for method in results.segmentations:
        cells = _segmentation_cells(_segmentations_of_all(method, own))
        for pair in results.pairs:
            for metric in metrics:
                value = mean_score(results, method, pair, metric, own)
                cells.append(Cell(missing="not computed: no scores") if value is None else Cell(value=value))
        rows.append(Row(head=method.name, cells=tuple(cells), compared=method.name != GOLD))
    return Group(title="total", rows=tuple(rows))


def mean_score(results: Results, method: SystemResult, pair: str, metric: str, testsets: Sequence[str]) -> float | None:
    """Return the mean of a metric over those of the test sets that the pair has; None where one was not computed."""
    outcomes = [method.outcome(pair, testset) for testset in testsets if testset in results.testsets_of[pair]]
    scores = [outcome.scores.get(metric) if outcome else None for outcome in outcomes]
    return None if not scores or None in scores else mean(score.value for score in scores if score)


def _segmentation_caption(results: Results, own: Sequence[str]) -> str:
    parts = []
    for method in results.segmentations:
        segmentation_results = _segmentations_of_all(method, own)
        speech = sum(one.speech_seconds for one in segmentation_results)
        means = [mean_score(results, method, pair, "BLEU", own) for pair in results.pairs]
        if not speech:
            continue
        share = sum(one.dropped_seconds for one in segmentation_results) / speech
        scores = "" if None in means else f", {mean(m for m in means if m is not None):.1f} BLEU"
        parts.append(f"{method.name} drops {share:.1%} of the speech{scores}")
    return (
        f"Over {counted(len(own), 'test set')} and {counted(len(results.pairs), 'pair')}: {'; '.join(parts)}."
        if parts
        else ""
    )
