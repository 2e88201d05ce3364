"""The pre-upload summary: everything that a bundle uploads, on one page, for a last check before the deadline.

Everything comes from the bundle itself, read as untrusted input: bounded, strict, no link followed. `preview` gathers
it once; `preview_text` shows it in a terminal and `submission.bundle.preview_page` in a browser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from submission.bundle.checks import verify
from submission.bundle.checks.claims.descriptions import read_description
from submission.bundle.checks.claims.scores import readable_records
from submission.bundle.checks.finding import Finding, verdict
from submission.bundle.checks.outputs.texts import BOM, is_blank, lines_of, read_output, read_segments_of
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.location import chosen_campaign
from submission.bundle.untrusted.strict_json import Unreadable
from submission.model.sizes import against_limit
from submission.system.campaign import Campaign
from submission.text.characters import printable
from submission.text.segments import SAMPLE_RATE, Segment
from submission.text_table import aligned

FIRST_LINES = 3
MOST_FIGURES = 8
MOST_CHARACTERS = 160
"""Characters of a line; the file holds all of it."""
UNKNOWN = "?"


def _clock(samples: int) -> str:
    """Return a position as minutes and seconds, `12:03.4`."""
    minutes, tenths = divmod(round(samples * 10 / SAMPLE_RATE), 600)
    return f"{minutes}:{tenths / 10:04.1f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewLine:
    """One line of an output and the speech that it translates."""

    text: str
    """As in the file, any character included."""
    segment: Segment | None
    """None where the segments cannot be read, or are fewer than the lines."""

    @property
    def position(self) -> str:
        """Recording and times, `talk1.wav 0:12.3–0:20.0`."""
        if self.segment is None:
            return UNKNOWN
        return f"{printable(self.segment.recording, 60)} {_clock(self.segment.start)}–{_clock(self.segment.end)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewScore:
    """One score of an output, with its confidence interval where there is one."""

    metric: str
    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" ({self.low:.1f}–{self.high:.1f})"
        return f"{printable(self.metric, 20)} {self.value:.1f}{interval}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPreview:
    """Figures of the output of a pair and test set; None where they cannot be read."""

    pair: str
    testset: str
    lines: int | None
    blanks: int | None
    shortest: int | None
    """Characters of the shortest line that is not blank."""
    longest: int | None
    seconds: float | None
    """Of all its segments together."""
    rate: float | None
    """Characters per second of audio; a value far from other test sets' means missing or repeated text."""
    first: tuple[PreviewLine, ...]
    figures: tuple[PreviewScore, ...]
    findings: tuple[Finding, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row in a table, by the columns of COLUMNS."""
        counts = (_count(n) for n in (self.lines, self.blanks, self.shortest, self.longest))
        audio = UNKNOWN if self.seconds is None else f"{self.seconds:,.1f}"
        rate = UNKNOWN if self.rate is None else f"{self.rate:.1f}"
        return (self.pair, self.testset, *counts, audio, rate, str(len(self.findings)))

    @property
    def facts(self) -> str:
        """The same as a sentence, for narrow screens."""
        lines, blanks, shortest, longest, audio, rate, _ = self.cells[2:]
        return f"{lines} lines, {blanks} blank; {shortest} to {longest} characters; {audio} s of audio, {rate} chars/s"


COLUMNS = ("pair", "test set", "lines", "blank", "shortest", "longest", "audio s", "chars/s", "findings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Everything that is shown of a bundle before it is uploaded."""

    bundle: str
    campaign: str
    size: tuple[str, ...]
    """Lines that compare the model folder with the limit, in bytes, GB and GiB."""
    verdict: str
    outputs: tuple[OutputPreview, ...]
    descriptions: dict[str, str]
    """Pair -> the fields to paste; a pair without readable ones is left out."""
    other_findings: tuple[Finding, ...]
    """Those that belong to no output."""
    findings: tuple[Finding, ...]


def preview(folder: Path, campaign: str | None = None) -> Preview:
    """Return the pre-upload summary of a bundle, good or broken, with everything that `verify` finds in it.

    campaign: as for `verify`. Raises UserError where there is no folder, or no campaign to compare it with.
    """
    findings = verify(folder, campaign)
    view = BundleView(folder, chosen_campaign(folder, campaign))
    figures = _figures(view)
    outputs = tuple(
        _output(view, pair.name, name, figures, findings) for pair in view.campaign.pairs for name in pair.testsets
    )
    belonging = {finding for output in outputs for finding in output.findings}
    return Preview(
        bundle=printable(str(folder), 4_096),
        campaign=f"{view.campaign.name} ({view.campaign.edition})",
        size=_size(view, view.campaign),
        verdict=verdict(findings),
        outputs=outputs,
        descriptions=dict(_descriptions(view)),
        other_findings=tuple(finding for finding in findings if finding not in belonging),
        findings=tuple(findings),
    )


def _output(
    view: BundleView,
    pair: str,
    testset: str,
    figures: Mapping[tuple[str, str], Sequence[PreviewScore]],
    findings: Sequence[Finding],
) -> OutputPreview:
    path, segments_path = f"{pair}/{testset}.txt", f"segments/{testset}.yaml"
    lines, segments = _lines(view, path), _segments(view, testset)
    lengths = [len(line) for line in lines or () if not is_blank(line)]
    seconds = None if segments is None else sum(segment.seconds for segment in segments)
    return OutputPreview(
        pair=pair,
        testset=testset,
        lines=None if lines is None else len(lines),
        blanks=None if lines is None else len(lines) - len(lengths),
        shortest=min(lengths, default=None),
        longest=max(lengths, default=None),
        seconds=seconds,
        rate=sum(lengths) / seconds if seconds and lines is not None else None,
        first=tuple(
            PreviewLine(text=text, segment=segments[i] if segments and i < len(segments) else None)
            for i, text in enumerate((lines or [])[:FIRST_LINES])
        ),
        figures=tuple(figures.get((pair, testset), ())[:MOST_FIGURES]),
        findings=tuple(finding for finding in findings if finding.path in (path, segments_path)),
    )


def _lines(view: BundleView, path: str) -> list[str] | None:
    """Return the lines of an output; bytes that are not UTF-8 become U+FFFD (reported as TXT02)."""
    try:
        return lines_of(read_output(view, path).decode("utf-8", errors="replace").removeprefix(BOM))
    except Unreadable:
        return None


def _segments(view: BundleView, testset: str) -> list[Segment] | None:
    try:
        return read_segments_of(view, testset)
    except Unreadable:
        return None


def _figures(view: BundleView) -> dict[tuple[str, str], list[PreviewScore]]:
    """Return (pair, test set) -> its scores; what is not a number is left out (reported as SCO04)."""
    figures: dict[tuple[str, str], list[PreviewScore]] = {}
    for key, record in readable_records(view):
        value, low, high = (_number(record.get(name)) for name in ("value", "low", "high"))
        if key == "scores" and value is not None:
            figure = PreviewScore(metric=str(record.get("metric")), value=value, low=low, high=high)
            figures.setdefault((str(record.get("pair")), str(record.get("testset"))), []).append(figure)
    return figures


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) >= 1e9:
        return None
    return float(value)


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def _descriptions(view: BundleView) -> Iterator[tuple[str, str]]:
    for pair in view.campaign.pairs:
        try:
            text = read_description(view, pair.name)
        except Unreadable:
            continue
        yield pair.name, "".join(f"{printable(line, 4_096)}\n" for line in lines_of(text))


def _size(view: BundleView, campaign: Campaign) -> tuple[str, ...]:
    if view.overfull or view.unlisted or not view.under("model"):
        return ("model folder: unknown",)
    return tuple(against_limit(view.model_bytes, campaign.size_limit))


# --- as text ---


def preview_text(overview: Preview) -> str:
    """Return the summary as text for a terminal; characters that hide or reorder text are escaped."""
    parts = [
        "\n".join([f"bundle: {overview.bundle}", f"campaign: {overview.campaign}", *overview.size, overview.verdict]),
        *([_findings_text(overview.other_findings)] if overview.other_findings else []),
        aligned([COLUMNS, *(output.cells for output in overview.outputs)], left=(0, 1)),
        *map(_output_text, overview.outputs),
        *(f"Description to paste, {pair}:\n\n{text.rstrip()}" for pair, text in overview.descriptions.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _output_text(output: OutputPreview) -> str:
    head = f"{output.pair}/{output.testset}"
    figures = "; ".join(map(str, output.figures)) or "not scored"
    rows = [f"  {line.position}\n    {printable(line.text, MOST_CHARACTERS) or '(blank)'}" for line in output.first]
    findings = [_findings_text(output.findings)] if output.findings else []
    return "\n".join([f"{head}: {figures}", *findings, *rows])


def _findings_text(findings: Sequence[Finding]) -> str:
    return "\n".join(f"  {f.severity} {f.code} {f.path or '.'}: {f.what}" for f in findings)
