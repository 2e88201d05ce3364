"""The page of one translated folder: its figures, its recordings, where the lines lie, and which to look at first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluate.decoding.hypotheses import Hypothesis
from evaluate.report.pages.html import SOURCES, document
from evaluate.report.pictures.colours import LIGHT
from evaluate.report.pictures.svg import STYLE, Picture, save
from evaluate.report.results import LOWER_IS_BETTER
from evaluate.report.table import DECIMALS, Cell, Column, Group, Row, Table
from evaluate.scoring.metrics import make_metrics
from evaluate.scoring.score import Line, Score
from submission.store.digests import write_text
from submission.text.characters import printable
from submission.text.segments import SAMPLE_RATE, Segment

PAGE = "report.html"
MOST_DRAWN = 24
"""Recordings in a picture."""
MOST_ROWS = 60
"""Recordings in the table."""
MOST_FLAGGED = 20
WORST = 10
LONGEST_NAME = 36
KINDS = (("translated", "blue"), ("flagged", "orange"), ("blank", "grey"))
"""What a segment's bar is coloured by; a blank one is blank, whatever else it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderResult:
    """A translated folder."""

    report: Mapping[str, Any]
    """report.json."""
    segments: tuple[Segment, ...]
    hypotheses: tuple[Hypothesis, ...]
    """One a segment."""
    scores: tuple[Score, ...]
    """None where there are no references."""
    lines: tuple[Line, ...]
    """What was compared, in the order of the references."""
    language: str
    """Target language, `de`."""

    @property
    def recordings(self) -> list[str]:
        """Every recording that was there, in order."""
        return [recording["name"] for recording in self.report["run"]["recordings"]]


def write_page(out: Path, result: FolderResult) -> list[str]:
    """Write report.html and its pictures into a folder; return the names of the files."""
    quality = recording_quality(result)
    for ending in ("svg", "png"):  # an earlier run may have had references
        (out / f"quality.{ending}").unlink(missing_ok=True)
    with matplotlib.rc_context(STYLE):
        pictures = [_draw_lines(result, out)]
        if len(quality) > 1:
            pictures.append(_draw_quality(result, quality, out))
    tables = [*_score_tables(result), _recordings_table(result, quality), *_worst_tables(result)]
    title = f"Translation, {result.report['pair']}"
    page = document(title, _facts(result), pictures, tables, _sources(result), "The same figures: report.json.")
    write_text(out / PAGE, page)
    return [PAGE, *(f"{picture.name}.{ending}" for picture in pictures for ending in ("svg", "png"))]


def recording_quality(result: FolderResult) -> dict[str, float]:
    """Return recording -> chrF of its reference lines."""
    metric = make_metrics(result.language)["chrF"]
    lines: dict[str, list[Line]] = {}
    for line in result.lines:
        lines.setdefault(line.recording, []).append(line)
    return {
        recording: metric.corpus_score([one.hypothesis for one in of], [[one.reference for one in of]]).score
        for recording, of in lines.items()
    }


def _kind(hypothesis: Hypothesis) -> str:
    if not hypothesis.text:
        return "blank"
    return "flagged" if hypothesis.flags else "translated"


# --- pictures ---


def _draw_lines(result: FolderResult, out: Path) -> Picture:
    """Draw where the segments of each recording lie, and what became of them."""
    drawn = result.recordings[:MOST_DRAWN]
    figure = Figure(figsize=(8, 1.4 + 0.3 * len(drawn)), layout="constrained")
    axes = figure.add_subplot()
    for kind, colour in KINDS:
        for row, recording in enumerate(drawn):
            bars = [
                (segment.start / SAMPLE_RATE, segment.seconds)
                for segment, hypothesis in zip(result.segments, result.hypotheses, strict=True)
                if segment.recording == recording and _kind(hypothesis) == kind
            ]
            axes.broken_barh(bars, (row - 0.36, 0.72), facecolors=LIGHT[colour], edgecolors=LIGHT["paper"], lw=0.4)
        axes.barh([0], [0], color=LIGHT[colour], label=kind)
    _name_rows(axes, drawn)
    axes.set_xlabel("seconds of the recording")
    figure.legend(loc="outside lower center", ncols=len(KINDS))
    counts = {kind: sum(_kind(hypothesis) == kind for hypothesis in result.hypotheses) for kind, _ in KINDS}
    told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    reading = f"Segments: {len(result.segments):,} ({told}); recordings: {len(result.recordings):,}."
    if len(drawn) < len(result.recordings):
        reading += f" The first {len(drawn)} recordings are drawn."
    return Picture(name="lines", title="Where the lines lie", reading=reading, svg=save(figure, out / "lines"))


def _draw_quality(result: FolderResult, quality: Mapping[str, float], out: Path) -> Picture:
    """Draw the chrF of each recording, the lowest first."""
    ordered = sorted(quality.items(), key=lambda item: item[1])
    drawn = ordered[:MOST_DRAWN]
    together = next(score.value for score in result.scores if score.metric == "chrF")
    figure = Figure(figsize=(8, 1.2 + 0.3 * len(drawn)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(drawn)), [value for _, value in drawn], color=LIGHT["blue"], height=0.72)
    axes.axvline(together, color=LIGHT["muted"], linewidth=1, linestyle=(0, (4, 3)), label=f"all: {together:.1f}")
    _name_rows(axes, [name for name, _ in drawn])
    axes.set_xlabel("chrF")
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower center")
    (low, least), (high, most) = ordered[0], ordered[-1]
    reading = f"From {least:.1f} ({low}) to {most:.1f} ({high}); all lines together {together:.1f}."
    if len(drawn) < len(ordered):
        reading += f" The {len(drawn)} lowest are drawn."
    svg = save(figure, out / "quality")
    return Picture(name="quality", title="chrF of each recording", reading=reading, svg=svg)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.tick_params(axis="y", colors=LIGHT["ink"], length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _short(name: str) -> str:
    """Return a name with its middle left out where it is long: names of one folder often begin alike."""
    name = printable(name, 1000)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 :]}"


# --- tables ---


def _score_tables(result: FolderResult) -> list[Table]:
    if not result.scores:
        return []
    first = result.scores[0]
    others = [printable(name, 80) for name in result.report["references_not_asked_for"]]
    rows = tuple(
        Row(
            head=f"{score.metric}{' (less is better)' if score.metric in LOWER_IS_BETTER else ''}",
            cells=(
                Cell(value=score.value, decimals=DECIMALS[score.metric], low=score.low, high=score.high),
                Cell(text=score.signature),
            ),
        )
        for score in result.scores
    )
    how = "cut anew along the references" if first.resegmented else "line by line"
    return [
        Table(
            id="scores",
            title="Scores",
            reading=f"{first.segments:,} hypotheses against {first.references:,} reference lines, {how}.",
            head="metric",
            columns=(Column(title="value"), Column(title="signature", text=True)),
            groups=(Group(title="", rows=rows),),
            notes=(
                "Small: the 95 % bootstrap interval over the reference lines.",
                *([f"With references, but not here, so not scored: {', '.join(others)}."] if others else []),
            ),
        )
    ]


def _recordings_table(result: FolderResult, quality: Mapping[str, float]) -> Table:
    rows = []
    for name in result.recordings[:MOST_ROWS]:
        own = [n for n, segment in enumerate(result.segments) if segment.recording == name]
        kinds = [_kind(result.hypotheses[n]) for n in own]
        cells = [
            Cell(value=len(own), decimals=0),
            Cell(value=sum(result.segments[n].seconds for n in own), decimals=1),
            Cell(value=kinds.count("blank"), decimals=0),
            Cell(value=kinds.count("flagged"), decimals=0),
        ]
        if quality:
            cells.append(Cell(value=quality.get(name), missing="not computed: no reference line"))
        rows.append(Row(head=printable(name, 80), cells=tuple(cells)))
    titles = ["segments", "seconds in segments", "blank", "flagged", *(["chrF"] if quality else [])]
    left = len(result.recordings) - len(rows)
    silent = result.report["recordings_without_segments"]
    return Table(
        id="recordings",
        title="Recordings",
        reading=f"Recordings without a segment: {len(silent):,}.",
        head="recording",
        columns=tuple(Column(title=title) for title in titles),
        groups=(Group(title="", rows=tuple(rows)),),
        notes=(f"{left:,} more are in report.json.",) if left else (),
    )


def _worst_tables(result: FolderResult) -> list[Table]:
    """Return the lines to look at first: the furthest from their references, and those that a rule flags."""
    tables = []
    if result.lines:
        metric = make_metrics(result.language)["chrF"]
        scored = [(metric.sentence_score(one.hypothesis, [one.reference]).score, one) for one in result.lines]
        worst = sorted(scored, key=lambda item: item[0])[:WORST]
        rows = [
            Row(head=printable(one.recording, 80), cells=(Cell(value=value), *map(_text, (one.reference, one.hypothesis))))
            for value, one in worst
        ]
        columns = (Column(title="chrF"), Column(title="reference", text=True), Column(title="translation", text=True))
        tables.append(
            Table(
                id="worst",
                title="Furthest from their references",
                reading=f"The {len(rows)} reference lines that the translation answers worst, by chrF.",
                head="recording",
                columns=columns,
                groups=(Group(title="", rows=tuple(rows)),),
            )
        )
    flagged = [
        (segment, hypothesis)
        for segment, hypothesis in zip(result.segments, result.hypotheses, strict=True)
        if hypothesis.flags
    ]
    if flagged:
        rows = [
            Row(
                head=f"{printable(segment.recording, 80)} {_seconds(segment.start)}-{_seconds(segment.end)} s",
                cells=(Cell(text=", ".join(hypothesis.flags)), _text(hypothesis.text)),
            )
            for segment, hypothesis in flagged[:MOST_FLAGGED]
        ]
        left = len(flagged) - len(rows)
        tables.append(
            Table(
                id="flagged",
                title="Flagged",
                reading=f"Lines that look wrong by themselves: {len(flagged):,}.",
                head="segment",
                columns=(Column(title="flags", text=True), Column(title="translation", text=True)),
                groups=(Group(title="", rows=tuple(rows)),),
                notes=(
                    "docs/decoding.md says what the flags mean.",
                    *([f"{left:,} more are in hypotheses.jsonl."] if left else []),
                ),
            )
        )
    return tables


def _seconds(samples: int) -> str:
    return f"{samples / SAMPLE_RATE:.2f}"


def _text(text: str) -> Cell:
    return Cell(text=printable(text, 400) or "(blank)")


# --- above and below ---


def _facts(result: FolderResult) -> str:
    report = result.report
    cards = [
        ("recordings", f"{report['recordings']:,}", ""),
        ("segments", f"{report['segments']:,}", f"{report['segment_seconds']:,.1f} s"),
    ]
    cards += [
        (score.metric, f"{score.value:.{DECIMALS[score.metric]}f}", f"95 %: {score.low:.1f}–{score.high:.1f}")
        for score in result.scores
    ]
    body = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(small)}</small></dd></div>\n"
        for name, value, small in cards
    )
    return f'<dl class="facts">\n{body}</dl>\n'


def _sources(result: FolderResult) -> str:
    """Return what the figures rest on: digests of everything that went in, and the libraries."""
    run = result.report["run"]
    segments = json.dumps(run["segments"], ensure_ascii=False, sort_keys=True)
    told = [("model, SHA-256", run["model_sha256"]), ("prompt", run["prompt"]), ("segments", segments)]
    if result.scores:
        first = result.scores[0]
        told += [("references, SHA-256", first.data_sha256), ("hypotheses.jsonl, SHA-256", first.hypotheses_sha256)]
    told += [("recording " + printable(one["name"], 80), one["sha256"]) for one in run["recordings"][:MOST_ROWS]]
    told += [(f"version of {name}", str(version)) for name, version in sorted(result.report["versions"].items())]
    rows = "".join(f"<li>{escape(name)}: <code>{escape(value)}</code></li>\n" for name, value in told)
    about = "run.json holds all that the lines depend on; report.json these figures and the versions of the libraries."
    return f'<h2 id="{SOURCES[0]}">{SOURCES[1]}</h2>\n<p>{escape(about)}</p>\n<ul>\n{rows}</ul>\n'
