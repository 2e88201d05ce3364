"""The summary at the end of a build: size against the limit, scores, seconds of each stage, the bundle."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from submission.bundle.checks.finding import Finding, verdict
from submission.bundle.front import front_text
from submission.model.sizes import GB, GIB
from submission.store.digests import files_below
from submission.store.records import StageUse
from submission.system.campaign import FOLDER as CAMPAIGNS
from submission.system.campaign import Campaign, read_campaign
from submission.system.recipe.recipe import Recipe
from submission.text_table import aligned

METRICS = ("BLEU", "chrF", "TER", "COMET")
SESSIONS = ("primary", "contrastive")
"""Recipes that a session of nox is named after."""
Row = Sequence[str]


def summary(
    *,
    campaign: Campaign,
    recipe: Recipe,
    requested: str,
    scores: Mapping[str, Any],
    journal: Iterable[StageUse],
    seconds: float | None,
    bundle: Path,
    findings: Sequence[Finding],
) -> str:
    """Return the summary of a build as text of at most 100 columns (but for paths longer than that).

    requested: the recipe as it was named on the command line; scores: what scores.json holds; journal: the uses of
    stages in this build, as the store records them; seconds: since the build began, None where unknown; findings:
    what `verify` found in the bundle.
    """
    size = sum(path.stat().st_size for path in files_below(bundle / "model"))
    sections = [
        f"{campaign.edition}: {recipe.name} system",
        _sizes(size, campaign),
        _scores(scores),
        "" if campaign.size_limit else front_text(bundle.parent, campaign.name),
        _stages(list(journal), seconds),
        _bundle(bundle, findings),
    ]
    if campaign.made_here:
        sections.append(_miniature(campaign, requested))
    return "\n" + "\n\n".join(section for section in sections if section) + "\n"


def _sizes(size: int, campaign: Campaign) -> str:
    rows = [("", "bytes", "GB", "GiB"), ("packed model", *_units(size))]
    verdict = "the campaign states no limit"
    if (limit := campaign.size_limit_bytes) is not None:
        margin = "under" if size <= limit else "over"
        verdict = f"{margin} the limit"
        rows += [(f"limit ({campaign.size_limit})", *_units(limit)), (margin, *_units(abs(limit - size)))]
    return f"Size (every file of the model folder counts): {verdict}\n{aligned(rows, indent=2)}"


def _units(size: int) -> Row:
    """Return bytes, GB and GiB; six decimals, so that the 3 MB of the miniature are not 0.003."""
    return f"{size:,}", f"{size / GB:.6f}", f"{size / GIB:.6f}"


def _scores(scores: Mapping[str, Any]) -> str:
    values = {(s["pair"], s["testset"], s["metric"]): s["value"] for s in scores["scores"]}
    testsets = sorted(scores["testsets"], key=lambda t: (t["pair"], t["testset"]))
    rows = [("pair", "test set", "segments", "blank", *METRICS, "")]
    for record in testsets:
        pair, name = record["pair"], record["testset"]
        figures = [f"{values[pair, name, m]:.1f}" if (pair, name, m) in values else "-" for m in METRICS]
        counts = f"{record['segments']:,}", f"{record['flags']['blank']:,}"
        rows.append((pair, name, *counts, *figures, record["note"]))
    return f"Outputs\n{aligned(rows, left=(0, 1, 6), indent=2)}"


def _stages(journal: list[StageUse], seconds: float | None) -> str:
    """Show each stage in the order of its first use, its parts (eleven test sets) together."""
    if not journal:
        return ""
    groups: dict[str, list[StageUse]] = {}
    for use in journal:
        groups.setdefault(use.stage, []).append(use)
    rows: list[Row] = [("stage", "state", "seconds", "peak MiB", "bytes")]
    rows += [_stage_row(name, uses) for name, uses in groups.items()]
    rows.append(_stage_row("total", journal))
    whole = "" if seconds is None else f"\n  The whole build took {seconds:,.0f} s, starting its programs included."
    return f"Stages\n{aligned(rows, left=(0, 1), indent=2)}{whole}"


def _stage_row(name: str, uses: Sequence[StageUse]) -> Row:
    """Return a row of the stages; the peak memory is that of what this build built."""
    built = [use for use in uses if use.status == "built"]
    counts = (("built", len(built)), ("cached", len(uses) - len(built)))
    return (
        name,
        ", ".join(state if len(uses) == 1 else f"{count} {state}" for state, count in counts if count),
        f"{sum(use.seconds for use in uses):,.1f}",
        f"{max(use.peak_bytes for use in built) / 2**20:,.0f}" if built else "-",
        f"{sum(use.bytes for use in uses):,}",
    )


def _bundle(bundle: Path, findings: Sequence[Finding]) -> str:
    lines = [f"Bundle: {bundle}", verdict(findings)]
    word = shlex.quote(str(bundle))  # the name of an own recipe may hold a blank
    lines += [f"  {f.severity} {f.code} {f.path or '.'}: {f.what}"[:100] for f in findings if f.severity == "error"]
    if findings:
        lines.append(f"All findings, and how to fix them: python -m submission verify {word}")
    lines.append(f"Preview before the upload: python -m submission preview {word}")
    return "\n".join(lines)


def _miniature(campaign: Campaign, requested: str) -> str:
    """Return what a miniature is, and how the same system is built for the edition whose base model has its family."""
    shipped = (read_campaign(path.stem) for path in sorted(CAMPAIGNS.glob("*.toml")))
    alike = (c.name for c in shipped if not c.made_here and c.model.architecture == campaign.model.architecture)
    session = f"build_{requested}" if requested in SESSIONS else "build_primary"
    recipe = "" if requested in SESSIONS else f" --recipe {shlex.quote(requested)}"
    commands = [f"  nox -s {session} -- --campaign {name}{recipe} --data DIR" for name in alike]
    lines = ["This is the miniature: the scores are those of a tiny model on synthetic speech."]
    lines += ["The competition system is built by", *commands] if commands else []
    return "\n".join(lines)
