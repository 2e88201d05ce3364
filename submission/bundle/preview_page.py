"""The pre-upload summary as a web page: one file, no script, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from submission.bundle.checks.finding import Finding
from submission.bundle.preview import COLUMNS, MOST_CHARACTERS, OutputPreview, Preview
from submission.text.characters import printable

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --soft: #f2f2ef; --line: #cfcfc8; --bad: #a40000;
  --warn: #7a5200; --good: #1c6b2a; --quiet: #5c5c5c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e4; --paper: #16181a; --soft: #22262a; --line: #41474d;
  --bad: #ff8a80; --warn: #f0bf5a; --good: #7fd08d; --quiet: #a8aeb4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p, ul, ol { margin: .25rem 0; }
ul, ol { padding-left: 1.25rem; }
.error { color: var(--bad); } .warning { color: var(--warn); } .good { color: var(--good); }
.verdict { font-weight: 600; }
.quiet { color: var(--quiet); font-size: .85rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; overflow-wrap: normal; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
pre { background: var(--soft); border: 1px solid var(--line); padding: .75rem; white-space: pre-wrap;
  font-size: .85rem; }
"""


def preview_page(overview: Preview) -> str:
    """Return the summary as an HTML page, self-contained; all untrusted text is escaped and isolated."""
    body = [
        f"<h1>Before the upload: {escape(overview.bundle)}</h1>",
        f"<p>Campaign {escape(overview.campaign)}</p>",
        f'<p class="verdict {_worst(overview.findings)}">{escape(overview.verdict)}</p>',
        "<h2>Size</h2>",
        *(f"<p>{escape(line)}</p>" for line in overview.size),
        *(["<h2>Findings</h2>", _findings(overview.other_findings)] if overview.other_findings else []),
        "<h2>Outputs</h2>",
        _table(overview.outputs),
        '<p class="quiet">Shortest and longest: characters of a line that is not blank.</p>',
        *map(_output, overview.outputs),
        "<h2>Descriptions to paste</h2>",
        *(f"<h3>{escape(pair)}</h3>\n<pre>{escape(text)}</pre>" for pair, text in overview.descriptions.items()),
    ]
    head = (
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Before the upload: {escape(overview.bundle)}</title>\n<style>{STYLE}</style>"
    )
    joined = "\n".join(body)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{joined}\n</body>\n</html>\n'


def _worst(findings: Sequence[Finding]) -> str:
    severities = {finding.severity for finding in findings}
    return "error" if "error" in severities else "warning" if severities else "good"


def _table(outputs: Sequence[OutputPreview]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in COLUMNS)
    rows = "\n".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in output.cells)}</tr>" for output in outputs)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="Outputs">\n<table>\n<tr>{head}</tr>\n{rows}\n'
        "</table>\n</div>"
    )


def _output(output: OutputPreview) -> str:
    figures = "; ".join(map(str, output.figures)) or "not scored"
    lines = "\n".join(
        f'<li><span class="quiet"><bdi>{escape(line.position)}</bdi></span><br>{_line(line.text)}</li>'
        for line in output.first
    )
    return "\n".join(
        [
            f"<h3>{escape(output.pair)}/{escape(output.testset)}</h3>",
            f"<p>{escape(output.facts)}</p>",
            f"<p>{escape(figures)}</p>",
            *([_findings(output.findings)] if output.findings else []),
            f"<ol>\n{lines}\n</ol>",
        ]
    )


def _line(text: str) -> str:
    """Return a line of an output: in a direction of its own, characters that hide or reorder text escaped."""
    return (
        f"<bdi>{escape(printable(text, MOST_CHARACTERS))}</bdi>"
        if text.strip()
        else '<span class="quiet">(blank)</span>'
    )


def _findings(findings: Sequence[Finding]) -> str:
    items = "\n".join(
        f'<li class="{escape(f.severity)}"><b>{escape(f.severity)} {escape(f.code)}</b> '
        f"<bdi>{escape(f.path or '.')}</bdi>: <bdi>{escape(f.what)}</bdi> "
        f'<span class="quiet">{escape(f.fix)}</span></li>'
        for f in findings
    )
    return f"<ul>\n{items}\n</ul>"
