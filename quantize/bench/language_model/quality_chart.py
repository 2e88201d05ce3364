"""Draw the increase of loss against the bits of a weight, from the rows of `bench_lm`.

    python -m quantize.bench.language_model.quality_chart docs/images/language-model.jsonl --out language-model.png

The whole model and its linears alone are panels beside each other; a method that stands at several sizes is a line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from submission.errors import UserError

LINEARS, RECOVER = "linears:", "recover:"
TITLE = "SmolLM2-135M-Instruct: loss on WikiText-2 against size"
DOTS_PER_INCH = 150
MARGIN_BITS = 0.25
STYLES = {
    "paper": ("paper's recipe (HQQ)", "#D55E00", "s"),
    "awq": ("paper's recipe + AWQ", "#E69F00", "D"),
    "gptq": ("GPTQ (llm-compressor)", "#CC79A7", "^"),
    "feedback": ("error feedback", "#56B4E9", "o"),
    "trellis": ("error feedback, trellis", "#0072B2", "o"),
    "recover:paper": ("paper's recipe, recovered", "#D55E00", "s"),
    "recover:trellis": ("trellis, recovered", "#009E73", "o"),
}
"""Method of a row -> its label, its colour (Okabe and Ito 2008: apart without colour vision too) and its marker."""


def draw_rows(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write the picture as PNG; the same rows give the same bytes. UserError for a method that has no style."""
    panels: dict[str, dict[str, list[Mapping[str, Any]]]] = {"whole model": {}, "linears alone": {}}
    for row in rows:
        method = row["row"].replace(LINEARS, "").partition("@")[0]
        if method not in STYLES:
            raise UserError("quality_chart", f"row {row['row']!r} has no colour", f"known: {', '.join(STYLES)}")
        panels["linears alone" if LINEARS in row["row"] else "whole model"].setdefault(method, []).append(row)
    settings: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 10, "axes.titlelocation": "left"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(9.5, 4.8), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, width_ratios=[3, 1])
        for each, (title, methods) in zip(axes, panels.items(), strict=True):
            _draw_panel(each, title, methods)
        axes[0].set_ylabel("increase of cross-entropy, nats a token (log scale)")
        entries = {
            label: handle for each in axes for handle, label in zip(*each.get_legend_handles_labels(), strict=True)
        }
        figure.suptitle(TITLE, x=0.01, ha="left")
        figure.legend(entries.values(), entries, frameon=False, loc="outside lower center", ncols=4, fontsize=9)
        figure.savefig(out, dpi=DOTS_PER_INCH, metadata={"Software": None})


def _draw_panel(axes: Axes, title: str, methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for method, (label, colour, marker) in STYLES.items():
        rows = sorted(methods.get(method, ()), key=lambda row: row["bits"])
        if rows:
            bits, increases, errors = ([row[key] for row in rows] for key in ("bits", "increase", "increase_error"))
            look: dict[str, Any] = {"color": colour, "marker": marker, "capsize": 2}
            look |= {"markerfacecolor": "none"} if method == f"{RECOVER}paper" else {}
            axes.errorbar(bits, increases, yerr=errors, label=label, **look)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    ends = [row["bits"] for rows in methods.values() for row in rows] or [0.0]
    axes.set_xlim(min(ends) - MARGIN_BITS, max(ends) + MARGIN_BITS)
    axes.set_title(title)
    axes.set_xlabel("bits a weight")
    axes.grid(visible=True, which="major", alpha=0.35)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw the rows of a file."""
    parser = argparse.ArgumentParser(prog="python -m quantize.bench.language_model.quality_chart", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("rows", type=Path, help="JSON lines, as bench_lm writes them")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()]
    draw_rows(rows, options.out)


if __name__ == "__main__":
    main()
