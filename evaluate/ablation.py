"""What each step of compression does to size and quality: every system of a list, measured alike, in one table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluate import stages
from evaluate.score import score_testset
from submission.digest import canonical_json, files_below, write_text
from submission.sizes import GB, GIB
from submission.store import Store
from submission.system import OPEN_TESTSET, System
from submission.tabular import aligned

TITLE = "ACL 60/60: BLEU and chrF on eval (gold segments); loss, nats per target token ± standard error, on dev"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What a system makes of one pair."""

    bleu: float
    chrf: float
    loss: float
    loss_standard_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system of the table."""

    system: str
    description: str
    size_bytes: int
    """Every file of the model folder."""
    meets_limit: bool
    bits_per_parameter: float
    pairs: dict[str, Quality]
    stages: dict[str, str]
    """Key of every stage that a figure comes from, by its id."""


def measure_system(system: System, store: Store, load: stages.Load) -> Row:
    """Return the row of a packed system, from the store or measured now."""
    packed = store.need(system.stage("quantize"))
    losses = json.loads(stages.lost(system, store, load).read_text(encoding="utf-8"))
    pairs, used = {}, [system.stage("quantize"), system.loss_stage()]
    for pair in system.campaign.pairs:
        hypotheses = stages.decoded(system, store, pair, OPEN_TESTSET, load)
        used.append(system.stage("decode", f"{pair.name}/{OPEN_TESTSET}"))
        cell = score_testset(stages.with_references(system, store, pair, OPEN_TESTSET, hypotheses))
        figures = {score.metric: score.value for score in cell.scores}
        pairs[pair.name] = Quality(
            bleu=figures["BLEU"],
            chrf=figures["chrF"],
            loss=losses[pair.name]["value"],
            loss_standard_error=losses[pair.name]["standard_error"],
        )
    size = sum(path.stat().st_size for path in files_below(packed / "model"))
    report = json.loads((packed / "report.json").read_text(encoding="utf-8"))
    return Row(
        system=system.recipe.name,
        description=system.recipe.description,
        size_bytes=size,
        meets_limit=size <= system.campaign.size_limit_bytes,
        bits_per_parameter=8 * size / report["parameters"],
        pairs=pairs,
        stages={stage.id: stage.key for stage in used},
    )


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table as texts, its headings first."""
    unit, name = (GIB, "GiB") if max(row.size_bytes for row in rows) >= GB // 10 else (10**6, "MB")
    pairs = list(rows[0].pairs)
    figures = [f"{figure} {pair}" for pair in pairs for figure in ("BLEU", "chrF", "loss")]
    table = [["system", name, "bits", "fits", *figures, "what it is"]]
    for row in rows:
        shown = [row.system, f"{row.size_bytes / unit:.3f}", f"{row.bits_per_parameter:.2f}"]
        shown.append("yes" if row.meets_limit else "no")
        for pair in pairs:
            q = row.pairs[pair]
            shown += [f"{q.bleu:.1f}", f"{q.chrf:.1f}", f"{q.loss:.3f} ± {q.loss_standard_error:.3f}"]
        table.append([*shown, row.description])
    return table


def render(rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    table = cells(rows)
    return f"{TITLE}\n{aligned(table, left=(0, len(table[0]) - 1))}"


def render_markdown(rows: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    head, *body = cells(rows)
    rule = ["---", *["---:"] * (len(head) - 2), "---"]
    lines = [f"| {' | '.join(line)} |" for line in (head, rule, *body)]
    return "\n".join([TITLE, "", *lines]) + "\n"


def render_csv(rows: Sequence[Row]) -> str:
    """Return every figure unrounded, one system a line."""
    text = io.StringIO()
    pairs = list(rows[0].pairs)
    names = [f"{pair}.{figure}" for pair in pairs for figure in ("bleu", "chrf", "loss", "loss_standard_error")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["system", "size_bytes", "bits_per_parameter", "meets_limit", *names, "description"])
    for row in rows:
        figures = [value for pair in pairs for value in asdict(row.pairs[pair]).values()]
        facts = [row.system, row.size_bytes, f"{row.bits_per_parameter:.4f}", row.meets_limit]
        writer.writerow([*facts, *figures, row.description])
    return text.getvalue()


def write_ablation(out: Path, rows: Sequence[Row]) -> None:
    """Write ablation.md, ablation.csv and ablation.json (with the keys of the stages) into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "ablation.md", render_markdown(rows))
    write_text(out / "ablation.csv", render_csv(rows))
    write_text(out / "ablation.json", canonical_json([asdict(row) for row in rows]))
