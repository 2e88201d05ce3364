"""Plan, bundle, check and summarise a submission: python -m submission <verb>. Standard library only."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from submission.cli import add_system_arguments, open_system, run
from submission.digest import canonical_json


def plan(args: argparse.Namespace) -> None:
    """Print a system's stages: built or missing, their keys and bytes."""
    from submission.plan import plan_rows, plan_text

    system, store = open_system(args)
    print(canonical_json(plan_rows(system, store)) if args.json else plan_text(system, store), end="")


def begin(args: argparse.Namespace) -> None:
    """Begin a build: print the plan, refuse where inputs are missing, start the journal anew."""
    from submission.plan import plan_text

    system, store = open_system(args)
    print(plan_text(system, store), flush=True)
    if not system.makes_data:
        system.data_path(store)
    store.begin_journal()


def bundle(args: argparse.Namespace) -> None:
    """Assemble the bundle of a built system."""
    from submission.bundle import bundle as assemble

    system, store = open_system(args)
    stages = {stage.id: stage for stage in system.stages()}
    records = {name: store.record(stage) for name, stage in stages.items() if store.need(stage)}
    out = assemble(
        args.dist / system.name,
        campaign=system.campaign,
        recipe=system.recipe,
        model=store.need(stages["quantize"]) / "model",
        hypotheses={
            (pair.name, name): store.need(stages[f"decode:{pair.name}/{name}"]) / "hypotheses.jsonl"
            for pair in system.campaign.pairs
            for name in pair.testsets
        },
        segments={t.name: store.need(stages[f"segment:{t.name}"]) / "segments.yaml" for t in system.campaign.testsets},
        scores=store.need(stages["score"]) / "scores.json",
        stages={name: stage.key for name, stage in stages.items()},
        inputs=system.external_inputs(),
        provenance={k: v for record in records.values() for k, v in record["provenance"]["versions"].items()},
    )
    print(out)


def verify(args: argparse.Namespace) -> int:
    """Check a bundle as an organiser would; exit 0 clean, 1 findings, 2 could not check."""
    from submission.checks import exit_status, findings_json, report
    from submission.checks import verify as check

    findings = check(args.bundle, args.campaign)
    print(findings_json(findings) if args.json else report(args.bundle, args.campaign, findings), end="")
    return exit_status(findings)


def archive(args: argparse.Namespace) -> None:
    """Pack a bundle without errors into one deterministic .tar for upload, its SHA-256 beside it."""
    from submission.archive import archive as pack

    folder = args.bundle.resolve()
    out = args.out or folder.with_name(f"{folder.name}.tar")
    print(f"{pack(folder, out, args.campaign)}  {out}")


def summary(args: argparse.Namespace) -> int:
    """Verify a system's bundle and print what the build made: sizes, scores, seconds; exit 1 on findings."""
    from submission.checks import verify as check
    from submission.checks.finding import exit_status
    from submission.summary import summary as summarise

    system, store = open_system(args)
    folder = args.dist / system.name
    findings = check(folder, args.campaign)
    journal, seconds = store.read_journal()
    text = summarise(
        campaign=system.campaign,
        recipe=system.recipe,
        model=store.need(system.stage("quantize")) / "model",
        scores=json.loads((store.need(system.stage("score")) / "scores.json").read_text(encoding="utf-8")),
        journal=journal,
        seconds=seconds,
        bundle=folder,
        findings=findings,
    )
    print(text, end="")
    return exit_status(findings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m submission", description=__doc__)
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for function in (plan, begin, bundle, verify, archive, summary):
        text = (function.__doc__ or "").strip()
        verb = verbs.add_parser(function.__name__, help=text, description=text)
        verb.set_defaults(verb=function)
        if function not in (verify, archive):
            add_system_arguments(verb)
        if function in (bundle, summary):
            verb.add_argument(
                "--dist",
                type=Path,
                default=Path("dist"),
                metavar="DIR",
                help="where bundles lie (default: %(default)s)",
            )
        if function in (verify, archive):
            verb.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
            verb.add_argument(
                "--campaign",
                metavar="C",
                help="campaign to check against, a name in submission/campaigns/ or a TOML file (default: the one "
                "that BUNDLE names)",
            )
        if function is archive:
            verb.add_argument("--out", type=Path, metavar="FILE", help="the archive (default: BUNDLE.tar)")
        if function in (plan, verify):
            verb.add_argument("--json", action="store_true", help="print JSON for machines")
    return parser


if __name__ == "__main__":
    sys.exit(run(_parser()))
