"""Plan, bundle, check, preview, archive and package a submission; needs the standard library only."""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from submission.cli import (
    ShowVersion,
    add_comet_argument,
    add_system_arguments,
    add_verb,
    add_verbs,
    open_system,
    run,
    select,
)
from submission.errors import UserError
from submission.store.damage import DamagedArtifact
from submission.store.digests import canonical_json
from submission.store.records import ArtifactRecord
from submission.store.store import Stage, Store
from submission.system.pipeline import (
    LAST_OF_MODEL,
    REPORT_COMMAND,
    REPORT_SYSTEMS,
    REPORTED,
    STEPS,
    step_commands,
)
from submission.system.system import System

if TYPE_CHECKING:
    from submission.cli import Verbs


def plan(args: argparse.Namespace) -> None:
    """Print a system's stages: built or missing, their keys and bytes."""
    from submission.system.plan import plan_rows, plan_text

    system, store = open_system(args)
    print(canonical_json(plan_rows(system, store)) if args.json else plan_text(system, store), end="")


def steps(args: argparse.Namespace) -> None:
    """Print the commands that build a system, or the systems of a list, in order.

    One a line; a step that several systems share is printed once.
    """
    names = [step.name for step in STEPS]
    if names.index(args.first) > names.index(last := LAST_OF_MODEL if args.report else args.until):
        raise UserError(f"--from {args.first}", f"is a step after {last}, the last", "exchange the two, or name others")
    also = [f"frontier@{target}" for target in args.targets.split(",")] if args.targets else []
    recipes = [args.recipe or "primary", *also]
    if args.report:
        recipes = [args.recipe or REPORT_SYSTEMS, *REPORTED[1:], *also]
    passed = {"--dist": args.dist, "--comet": args.comet}
    options = {name: [str(value)] for name, value in passed.items() if value is not None}
    selections = [select(args, recipe) for recipe in recipes]
    commands = step_commands(
        selections,
        first=args.first,
        last=last,
        options=options | ({"--allow-missing": []} if args.allow_missing else {}),
    )
    if args.report:
        words = "".join(f" --also {shlex.quote(recipe)}" for recipe in also)
        commands.append(f"python -m {REPORT_COMMAND} {selections[0].arguments}{words}")
    print(*commands, sep="\n")


def begin(args: argparse.Namespace) -> None:
    """Begin a build: print the plan, refuse where inputs are missing, and empty the journal of stages."""
    from submission.system.plan import plan_text

    system, store = open_system(args)
    print(plan_text(system, store), flush=True)
    if not system.makes_data:
        system.data_path(store)
    store.begin_journal()


def _scoring(args: argparse.Namespace, system: System, store: Store) -> Stage:
    """Return the stage whose scores.json counts: with COMET where that is computed, or requested by --comet."""
    folder = args.comet or system.comet_model()
    if folder is not None:
        stage = system.comet_stage(folder)
        if args.comet or store.record(stage):
            return stage
    return system.stage("score")


def _record(store: Store, stage: Stage) -> ArtifactRecord:
    """Return the record of an artifact; UserError where it is not built."""
    store.need(stage)
    record = store.record(stage)
    assert record is not None
    return record


def bundle(args: argparse.Namespace) -> None:
    """Assemble the bundle of a built system."""
    from submission.bundle.bundle import bundle as assemble

    system, store = open_system(args)
    stages = {stage.id: stage for stage in system.stages()}
    scoring, model = _scoring(args, system, store), system.model_stage()
    wanted = [*stages.values(), scoring]
    records = {name: _record(store, stage) for name, stage in stages.items()}
    # What is parsed is compared with its record before, what is only copied while it is copied.
    store.check(replace(model.artifact, path=Path("model/config.json")), wanted)
    hypotheses = {
        (pair.name, name): store.read(stages[f"decode:{pair.name}/{name}"], wanted) / "hypotheses.jsonl"
        for pair in system.campaign.pairs
        for name in pair.testsets
    }
    segments = {t.name: store.read(stages[f"segment:{t.name}"], wanted) for t in system.campaign.testsets}
    try:
        out = assemble(
            args.dist / system.name,
            campaign=system.campaign,
            recipe=system.recipe,
            model=store.need(model) / "model",
            hypotheses=hypotheses,
            segments={name: folder / "segments.yaml" for name, folder in segments.items()},
            scores=store.need(scoring) / "scores.json",
            segmenter=system.classifier_path(store),
            artifacts={
                **{store.folder(stage): records[name].files for name, stage in stages.items()},
                store.need(scoring): _record(store, scoring).files,
            },
            stages={name: stage.key for name, stage in stages.items()} | {scoring.id: scoring.key},
            inputs=system.external_inputs(),
            provenance={k: v for record in records.values() for k, v in record.provenance.versions.items()},
        )
    except DamagedArtifact as error:
        store.refuse_damaged(error, wanted)
    print(out)


def verify(args: argparse.Namespace) -> int:
    """Check bundles as an organiser would, and print every finding.

    Several bundles are checked each by itself, and then as one upload, which has exactly one primary. Of a package,
    every file beside its bundle is compared with what this version writes. Exit status 0: no errors, 1: errors, 2:
    could not check.
    """
    from submission.bundle.checks import exit_status, findings_json, report, verify_upload_set
    from submission.bundle.checks import verify as check
    from submission.bundle.checks.report import upload_set_report
    from submission.package.contents import BUNDLE
    from submission.package.package_checks import is_package, package_findings
    from submission.text.characters import printable

    _any_script()
    beside = {folder / BUNDLE: package_findings(folder) for folder in args.bundles if is_package(folder)}
    args.bundles = [folder / BUNDLE if is_package(folder) else folder for folder in args.bundles]
    found = {folder: [*beside.get(folder, []), *check(folder, args.campaign, args.base)] for folder in args.bundles}
    of_set = verify_upload_set(args.bundles, args.campaign) if len(args.bundles) > 1 else []
    findings = [*chain.from_iterable(found.values()), *of_set]
    if len(args.bundles) == 1:
        text = findings_json(findings) if args.json else report(args.bundles[0], args.campaign, findings, args.base)
        print(text, end="")
    elif args.json:
        print(findings_json({**{printable(str(f), 4_096): some for f, some in found.items()}, "": of_set}), end="")
    else:
        print(*(report(folder, args.campaign, some, args.base) for folder, some in found.items()), sep="\n")
        print(upload_set_report(args.bundles, of_set), end="")
    return exit_status(findings)


def _any_script() -> None:
    """Print what the terminal's encoding lacks as escapes, so that names and texts in any script can be printed."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def archive(args: argparse.Namespace) -> None:
    """Pack a bundle into one .tar for upload, with its SHA-256 beside it; refuse one with errors."""
    from submission.bundle.archive import archive as pack

    folder = args.bundle.resolve()
    out = args.out or folder.with_name(f"{folder.name}.tar")
    print(f"{pack(folder, out, args.campaign)}  {out}")


def package(args: argparse.Namespace) -> None:
    """Write a package for organisers: a bundle, and what translates with it on any machine.

    It holds setup.sh, run.sh, their requirements, a Dockerfile, a README and the part of this program that they need.
    A bundle with errors is refused.
    """
    from submission.model.sizes import size_text
    from submission.package.package import package as write_package
    from submission.package.package_checks import ENDING

    folder = args.bundle.resolve()
    out = args.out or folder.with_name(f"{folder.name}{ENDING}")
    size = write_package(folder, out, args.campaign)
    print(f"package: {out}, {size_text(size)}")


def preview(args: argparse.Namespace) -> int:
    """Show what a bundle uploads: first lines, lengths, sizes, names, description.

    Exit status 1 where the bundle has errors.
    """
    from submission.bundle.checks import exit_status
    from submission.bundle.preview import preview as gather
    from submission.bundle.preview import preview_text
    from submission.bundle.preview_page import preview_page
    from submission.store.digests import write_text

    _any_script()
    seen = gather(args.bundle, args.campaign)
    if args.html is None:
        print(preview_text(seen), end="")
    elif args.html.resolve().is_relative_to(args.bundle.resolve()):
        raise UserError(str(args.html), "lies in the bundle", "name a file beside the bundle")
    else:
        write_text(args.html, preview_page(seen))
        print(f"{seen.verdict}\n{args.html}")
    return exit_status(seen.findings)


def summary(args: argparse.Namespace) -> int:
    """Verify a system's bundle and print what the build made: sizes, scores, seconds.

    Exit status 1 where the bundle has errors.
    """
    from submission.bundle.checks import verify as check
    from submission.bundle.checks.finding import exit_status
    from submission.bundle.summary import summary as summarise

    system, store = open_system(args)
    folder = args.dist / system.name
    findings = check(folder, args.campaign)
    journal, seconds = store.read_journal()
    text = summarise(
        campaign=system.campaign,
        recipe=system.recipe,
        requested=args.recipe,
        scores=json.loads((store.read(_scoring(args, system, store)) / "scores.json").read_text(encoding="utf-8")),
        journal=journal,
        seconds=seconds,
        bundle=folder,
        findings=findings,
    )
    print(text, end="")
    return exit_status(findings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m submission", description=__doc__)
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="print the version and exit")
    verbs = add_verbs(parser)
    _add_verbs_of_systems(verbs)
    _add_verbs_of_bundles(verbs)
    return parser


def _add_verbs_of_systems(verbs: Verbs) -> None:
    for function in (plan, steps, begin, bundle, summary):
        verb = add_verb(verbs, function)
        if function is steps:
            add_system_arguments(verb, None, f"primary, or {REPORT_SYSTEMS} with --report")
        else:
            add_system_arguments(verb)
        if function in (steps, bundle, summary):
            add_comet_argument(verb)
            dist = "where bundles are (default: dist)"
            verb.add_argument("--dist", type=Path, default=Path("dist"), metavar="DIR", help=dist)
        if function is plan:
            _add_json(verb)
        if function is steps:
            _add_steps(verb)


def _add_verbs_of_bundles(verbs: Verbs) -> None:
    verb = add_verb(verbs, verify)
    bundles = "a bundle's folder; several are one upload"
    verb.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help=bundles)
    _add_campaign(verb)
    base = "folder of the base model, to compare configuration, tokenizer and processor with (the miniature's ships)"
    verb.add_argument("--base", type=Path, metavar="DIR", help=base)
    _add_json(verb)

    for function in (archive, package, preview):
        verb = add_verb(verbs, function)
        verb.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
        if function is archive:
            verb.add_argument("--out", type=Path, metavar="FILE", help="the archive (default: BUNDLE.tar)")
        elif function is package:
            verb.add_argument("--out", type=Path, metavar="DIR", help="the package (default: BUNDLE-package)")
        else:
            verb.add_argument("--html", type=Path, metavar="FILE", help="write a web page instead of printing text")
        _add_campaign(verb)


def _add_steps(parser: argparse.ArgumentParser) -> None:
    names = [step.name for step in STEPS]
    parser.set_defaults(dist=None)
    parser.add_argument(
        "--from", dest="first", choices=names, default=names[0], metavar="STEP", help="the first step (default: begin)"
    )
    parser.add_argument(
        "--until", choices=names, default=names[-1], metavar="STEP", help=f"the last of the steps {', '.join(names)}"
    )
    parser.add_argument(
        "--report", action="store_true", help="print the commands that make the report, its models included"
    )
    parser.add_argument("--allow-missing", action="store_true", help="build without recordings that FILE_ORDER names")
    targets = "such as 2.5GB,3GB: build the recipe frontier at each of these sizes too"
    parser.add_argument("--targets", default="", metavar="SIZES", help=targets)


def _add_campaign(parser: argparse.ArgumentParser) -> None:
    known = "a name in submission/campaigns/ or a TOML file (default: the one that BUNDLE names)"
    parser.add_argument("--campaign", metavar="C", help=f"campaign to check against, {known}")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


if __name__ == "__main__":
    sys.exit(run(_parser()))
