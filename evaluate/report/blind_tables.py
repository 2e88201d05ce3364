"""The tables of the blind sets: 6 (primary and contrastive), and the methods of segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from evaluate.report.paper import Paper
from evaluate.report.results import Results, SegmentationResult, SystemResult
from evaluate.report.table import Cell, Column, Group, Row, Table, marked, metric_column, outcome_cells
from evaluate.report.tables import comet_note, shown_metrics

GOLD = "gold"
"""The method that the others are held against; it is no candidate for the best."""
SIGNIFICANT = 0.05
"""p-value below which two uploads count as told apart; of twenty test sets one is by chance."""
ABSENT = Cell(missing="–: not a test set of this pair")


def uploads_table(results: Results) -> Table | None:
    """Return Table 6: what is uploaded, on every blind set; None where nothing was measured."""
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
                    cells += outcome_cells(outcome, [metric], lambda m, f=figure: f) if has else [ABSENT]
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
        return f"{len(results.uploads)} systems, each scored on the test sets that have references."
    one, two = results.uploads
    found = [paired for paired in results.paired if paired.metric == "BLEU"]
    if not found:
        return "No blind set has references, so nothing is scored."
    behind = sum(paired.difference < 0 for paired in found)
    told_apart = [paired for paired in found if paired.p_value < SIGNIFICANT]
    caption = f"{one.name} is ahead of {two.name} in BLEU on {behind} of {len(found)} test sets and pairs. "
    if not told_apart:
        return f"{caption}A paired bootstrap tells them apart on none (p < {SIGNIFICANT})."
    named = ", ".join(
        f"{paired.pair}/{paired.testset} ({paired.difference:+.1f} for {two.name}, p {paired.p_value:.3f})"
        for paired in told_apart
    )
    return f"{caption}A paired bootstrap tells them apart (p < {SIGNIFICANT}) on {len(told_apart)}: {named}."


def segmentation_table(results: Results) -> Table | None:
    """Return the methods of segmentation: segments, dropped speech, scores, for each test set and together."""
    methods = results.segmentations
    if not methods:
        return None
    metrics = shown_metrics(results, methods)
    free = [t for t in results.testsets if not any(c.given for m in methods for c in m.cuts if c.testset == t)]
    given = [t for t in results.testsets if t not in free]
    groups = [_method_group(results, testset, metrics) for testset in free]
    groups += [_given_group(results, testset, metrics) for testset in given]
    groups.append(_together(results, free, metrics))
    return marked(
        Table(
            id="segmentation",
            title="Segmentation methods",
            caption=_segmentation_caption(results, free),
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
                "Small: the 95 % interval. Every row is translated by the same model. Speech is what silero-vad hears; "
                "dropped is what of it lies in no segment. Gold: the segments of the references. In bold: the best of "
                "the others.",
                "The last rows are sums, and plain means of the scores, over the sets that are cut by a method.",
                *comet_note(methods),
            ),
            command=results.commands.get("segmentations", ""),
        )
    )


def _cut_of(method: SystemResult, testset: str) -> SegmentationResult | None:
    return next((cut for cut in method.cuts if cut.testset == testset), None)


def _cuts_of_all(method: SystemResult, testsets: Sequence[str]) -> list[SegmentationResult]:
    """Return a method's cuts of several test sets, none where it lacks one: a sum over fewer would compare nothing."""
    cuts = [cut for testset in testsets if (cut := _cut_of(method, testset))]
    return cuts if len(cuts) == len(testsets) else []


def _cut_cells(cuts: Sequence[SegmentationResult]) -> list[Cell]:
    """Return segments, seconds in them, seconds of speech, dropped share, over test sets."""
    if not cuts:
        return [Cell(missing="not computed: no gold segments")] * 4
    speech, dropped = sum(c.speech_seconds for c in cuts), sum(c.dropped_seconds for c in cuts)
    share = Cell(value=100 * dropped / speech) if speech else Cell(missing="–: no speech is heard")
    seconds = [Cell(value=sum(c.segment_seconds for c in cuts)), Cell(value=speech)]
    return [Cell(value=sum(c.segments for c in cuts), decimals=0), *seconds, share]


def _method_row(results: Results, method: SystemResult, head: str, testset: str, metrics: Sequence[str]) -> Row:
    cut = _cut_of(method, testset)
    cells = _cut_cells([cut] if cut else [])
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


def _together(results: Results, free: Sequence[str], metrics: Sequence[str]) -> Group:
    rows = []
    for method in results.segmentations:
        cells = _cut_cells(_cuts_of_all(method, free))
        for pair in results.pairs:
            for metric in metrics:
                value = mean_score(results, method, pair, metric, free)
                cells.append(Cell(missing="not computed: no scores") if value is None else Cell(value=value))
        rows.append(Row(head=method.name, cells=tuple(cells), compared=method.name != GOLD))
    return Group(title="together", rows=tuple(rows))


def mean_score(results: Results, method: SystemResult, pair: str, metric: str, testsets: Sequence[str]) -> float | None:
    """Return the mean of a metric over those of the test sets that the pair has; None where one was not computed."""
    outcomes = [method.outcome(pair, testset) for testset in testsets if testset in results.testsets_of[pair]]
    scores = [outcome.scores.get(metric) if outcome else None for outcome in outcomes]
    return None if not scores or None in scores else mean(score.value for score in scores if score)


def _segmentation_caption(results: Results, free: Sequence[str]) -> str:
    told = []
    for method in results.segmentations:
        cuts = _cuts_of_all(method, free)
        speech = sum(cut.speech_seconds for cut in cuts)
        means = [mean_score(results, method, pair, "BLEU", free) for pair in results.pairs]
        if not speech:
            continue
        share = sum(cut.dropped_seconds for cut in cuts) / speech
        scores = "" if None in means else f", {mean(m for m in means if m is not None):.1f} BLEU"
        told.append(f"{method.name} drops {share:.1%} of the speech{scores}")
    return f"Over {len(free)} test sets and {len(results.pairs)} pairs: {'; '.join(told)}." if told else ""
