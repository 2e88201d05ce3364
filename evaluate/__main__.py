"""Decode and score a system, report on several, translate a folder of recordings, re-run a bundle."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluate.recordings.commands import add_device, add_folder_verbs
from submission.benchmarking import add_bench_arguments, run_benches
from submission.bundle.efficiency import BATCH_SIZES
from submission.cli import (
    add_comet_argument,
    add_system_arguments,
    add_verb,
    add_verbs,
    open_system,
    open_systems,
    run,
)
from submission.counting import counted
from submission.errors import UserError
from submission.system.pipeline import REPORT_SEGMENTATIONS, REPORT_SYSTEMS, REPORT_UPLOADS
from submission.system.recipe.decoding_options import MOST_BATCH

if TYPE_CHECKING:
    from submission.store.store import Store
    from submission.system.system import System


def decode(args: argparse.Namespace) -> None:
    """Translate the test sets with a system's packed model.

    Builds the stages decode:<pair>/<NAME>. Started by `torchrun` or `accelerate launch`, every process decodes its
    share; the result is that of one process.
    """
    from evaluate import system_stages

    system, store = open_system(args)
    chosen = system_stages.chosen(system, args.pair, args.testset)
    system.data_path(store)
    load = system_stages.shared_model(args.device)
    for pair, name in chosen:
        system_stages.decoded(system, store, pair, name, load)


def score(args: argparse.Namespace) -> None:
    """Compute BLEU, chrF and TER against references, and print them; builds the stage score."""
    from evaluate import system_stages

    text = system_stages.scored(*open_system(args)).read_text(encoding="utf-8")
    if args.json:
        print(text, end="")
    else:
        from evaluate.scoring.score_table import table

        print(table(json.loads(text)))


def comet(args: argparse.Namespace) -> None:
    """Compute COMET of a scored system, or of every system of a list.

    Builds the stages comet with a checkpoint on this machine, in the score environment: `nox -s score` takes the same
    arguments. With --report, of every system that a report with these arguments measures: `nox -s score -- report`. Of
    a system with only some test sets scored, these are computed.
    """
    from evaluate import system_stages
    from evaluate.scoring.score_table import table

    args.recipe = args.recipe or (REPORT_SYSTEMS if args.report else "primary")
    names = [name for lists in _parts(args).values() for name in lists] if args.report else [args.recipe]
    opened = _open_all(args, names)
    folder = args.comet or opened[0][0].comet_model()
    if folder is None:
        get = "hf download Unbabel/wmt22-comet-da --local-dir DIR"
        raise UserError("--comet", "no COMET checkpoint is named, and the data folder has none", f"{get}; --comet DIR")
    opened[0][0].comet_digest(folder)  # refused before anything is loaded
    load = system_stages.shared_comet()
    for number, (system, store) in enumerate(opened, 1):
        testsets = system_stages.comet_testsets(system, store, folder, load)
        if (merged := system_stages.comet_gathered(system, store, folder, testsets)) is not None:
            print(table(json.loads(merged.read_text(encoding="utf-8"))))
            continue
        scored = counted(len(testsets), "scored test set")
        print(f"comet: system {number} of {len(opened)}, {system.recipe.name}: {scored}", file=sys.stderr, flush=True)


def report(args: argparse.Namespace) -> None:
    """Write a campaign's report: tables of systems, quality against size, segmentation methods, on one page.

    First prints what is to be built. Every figure is a stage of the store, so that a killed run resumes and a finished
    one is read. Models must be packed (`python -m quantize pack --recipe ablation`). The page is written with its
    pictures, and as Markdown, CSV and JSON.
    """
    from evaluate.report import build_report
    from evaluate.report.terminal_summary import summary_text
    from submission.store.launch import launched

    if launched().processes > 1:
        fix = "share the decoding of one system, `evaluate decode`, or start one process"
        raise UserError("report", "several processes, and nothing here is shared between them", fix)
    opened = {part: _open_all(args, lists) for part, lists in _parts(args).items()}
    plan = build_report.plan_report(build_report.ReportRequest(**opened, comet=args.comet))
    if args.plan:
        return
    results = build_report.build_results(
        plan, args.device, dict.fromkeys(opened, build_report.command_line(args)), args.dist
    )
    out = args.out or args.dist / f"{results.campaign}-{Path(args.recipe).stem}"
    written = build_report.write_report(out, results)
    print(summary_text(results, build_report.tables_of(results)))
    print(f"written: {out}/{written[0]} and {', '.join(written[1:])}")


def bench(args: argparse.Namespace) -> int:
    """Measure speed and memory of packed inference beside plain inference.

    `step` is one decode step of Qwen2-Audio-7B at full size. `decode` runs the system's checkpoint and packed model,
    which must be built; `memory` and `gpu` write a model of that size, 4 GiB, beside --out. Ratios hold on any machine,
    seconds on this one; let nothing else run. Exit status 1 where a bar is missed.
    """
    from evaluate.bench import benches

    return run_benches(benches(*open_system(args), args.only), args.only, args.out)


def gpu_check(args: argparse.Namespace) -> int:
    """Check and measure on one GPU what a campaign does there.

    Takes random weights and at most eight minutes. Writes gpu_check.md and gpu_check.json. Exit status 0 without a GPU,
    which is said, and 1 where a part failed.
    """
    import torch

    from evaluate.bench.gpu_check import gpu_check as check

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    record = check(args.out, card)
    print((args.out / "gpu_check.md").read_text(encoding="utf-8"), end="")
    return int(not all(part["passed"] for part in record["parts"]))


def efficiency(args: argparse.Namespace) -> int:
    """Measure a bundle's speed and memory on this machine, and write the figures into it.

    They go into efficiency.json and the descriptions, for each batch size. Segments are the bundle's own of the
    recordings in --audio, as `rerun` takes them. Let nothing else run. Exit status 0: done, 1: the bundle has errors,
    2: the command failed.
    """
    from evaluate.efficiency.measure_bundle import EfficiencyRequest, measure_bundle
    from submission.bundle.checks import exit_status, report, verify
    from submission.bundle.efficiency import efficiency_lines

    findings = verify(args.bundle, args.campaign)
    if exit_status(findings):
        print(report(args.bundle, args.campaign, findings), end="")
        return 1
    request = EfficiencyRequest(
        bundle=args.bundle,
        campaign=args.campaign,
        pair=args.pair,
        audio=args.audio,
        testset=args.testset,
        batch_sizes=tuple(args.batch_size or BATCH_SIZES),
        segments=args.segments,
        runs=args.runs,
        device=args.device,
    )
    print(*efficiency_lines(measure_bundle(request)), f"written: {args.bundle}", sep="\n")
    return 0


def rehearse(args: argparse.Namespace) -> None:
    """Run a whole campaign on random weights and synthetic speech.

    Both systems, from corpora in published layouts to archives, three times: from nothing, from the store, and with a
    SIGKILL in every step. Prints each command's time and memory, beside a forecast of the same step at full size.
    """
    from evaluate.rehearsal.rehearsal_text import rehearsal_text
    from evaluate.rehearsal.rehearse import rehearse as run_rehearsal
    from submission.store.digests import canonical_json, write_text

    record = run_rehearsal(args.out, args.width, args.layers, args.vocabulary, kills=not args.no_kills)
    text = rehearsal_text(record)
    write_text(args.out / "rehearsal.json", canonical_json(record))
    write_text(args.out / "rehearsal.txt", f"{text}\n")
    print(text)


def _parts(args: argparse.Namespace) -> dict[str, Sequence[str]]:
    """Return field of ReportRequest -> the recipes and lists that are measured for it."""
    parts: dict[str, dict[str, Sequence[str]]] = {
        "systems": {"systems": [args.recipe], "also": args.also},
        "uploads": {"uploads": args.upload or REPORT_UPLOADS},
        "segmentations": {"segmentations": [args.segmentation]},
    }
    return {
        field: names for part, lists in parts.items() if part in (args.only or parts) for field, names in lists.items()
    }


def _open_all(args: argparse.Namespace, names: Sequence[str]) -> list[tuple[System, Store]]:
    """Return every system of several recipes and lists."""
    return [opened for name in names for opened in open_systems(argparse.Namespace(**vars(args) | {"recipe": name}))]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; the namespace's `verb` is the function to call."""
    parser = argparse.ArgumentParser(prog="python -m evaluate", description=__doc__)
    verbs = add_verbs(parser)

    verb = add_verb(verbs, decode)
    add_system_arguments(verb)
    verb.add_argument("--pair", action="append", default=[], metavar="P", help="only this pair, en-de; repeatable")
    verb.add_argument("--testset", action="append", default=[], metavar="T", help="only this test set; repeatable")
    add_device(verb)

    verb = add_verb(verbs, score)
    add_system_arguments(verb)
    verb.add_argument("--json", action="store_true", help="print scores.json instead of the table")

    verb = add_verb(verbs, comet)
    add_system_arguments(verb, None, f"primary; with --report: {REPORT_SYSTEMS}")
    add_comet_argument(verb)
    verb.add_argument("--report", action="store_true", help="every system that a report measures, not one alone")
    _add_parts(verb, "contents of the report, with --report")

    verb = add_verb(verbs, report)
    add_system_arguments(verb, REPORT_SYSTEMS)
    group = _add_parts(verb, "contents of the report")
    group.add_argument("--plan", action="store_true", help="print what would be built, and stop")
    group.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: dist/<campaign>-<list>)")
    measured = "where bundles are, whose efficiency.json is read (default: %(default)s)"
    group.add_argument("--dist", type=Path, default=Path("dist"), metavar="DIR", help=measured)
    add_comet_argument(verb)
    add_device(verb)

    verb = add_verb(verbs, bench)
    add_bench_arguments(verb, "step, decode, memory, kernels or gpu", "evaluate")
    add_system_arguments(verb)
    _add_rehearsal(add_verb(verbs, rehearse))
    verb = add_verb(verbs, gpu_check)
    where = "folder of gpu_check.md and gpu_check.json (default: %(default)s)"
    verb.add_argument("--out", type=Path, default=Path("build/gpu_check"), metavar="DIR", help=where)
    _add_efficiency(add_verb(verbs, efficiency))
    add_folder_verbs(verbs)
    return parser


def _add_efficiency(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder, which is written to")
    parser.add_argument("--audio", type=Path, required=True, metavar="DIR", help="recordings, found at any depth")
    parser.add_argument("--testset", metavar="T", help="the bundle's test set with these recordings")
    parser.add_argument("--campaign", metavar="C", help="campaign to check against (default: the one that it names)")
    parser.add_argument("--pair", default="", metavar="P", help="language pair, en-de (default: the first)")
    sizes = f"segments in a batch; repeatable (default: {', '.join(map(str, BATCH_SIZES))})"
    parser.add_argument("--batch-size", type=_positive, action="append", metavar="N", help=sizes)
    most = "most segments, evenly over their lengths (default: %(default)s)"
    parser.add_argument("--segments", type=_positive, default=256, metavar="N", help=most)
    parser.add_argument(
        "--runs", type=_positive, default=3, metavar="N", help="measurements of each batch size (default: %(default)s)"
    )
    add_device(parser)


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= MOST_BATCH:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {MOST_BATCH:,}, got {text!r}")
    return int(text)


def _add_rehearsal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vocabulary", type=Path, required=True, metavar="FILE", help="qwen.tiktoken; nox -s rehearse names it"
    )
    parser.add_argument("--layers", type=int, default=4, metavar="N", help="layers of decoder and encoder (default: 4)")
    widths = "of the model; full: as published, which takes tens of gigabytes of memory (default: narrow)"
    parser.add_argument("--width", choices=("narrow", "full"), default="narrow", help=widths)
    out = "working folder, emptied first (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path("build/rehearsal-campaign"), metavar="DIR", help=out)
    parser.add_argument("--no-kills", action="store_true", help="leave out the third run, which kills every command")


def _add_parts(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """Add the arguments by which a report's systems are chosen, and return their group."""
    group = parser.add_argument_group(title)
    group.add_argument("--also", action="append", default=[], metavar="R", help="one more recipe or list; repeatable")
    group.add_argument(
        "--upload",
        action="append",
        default=[],
        metavar="R",
        help=f"a recipe for the table of blind sets; repeatable (default: {' and '.join(REPORT_UPLOADS)})",
    )
    group.add_argument(
        "--segmentation",
        default=REPORT_SEGMENTATIONS,
        metavar="R",
        help="a list of recipes that segment differently (default: %(default)s)",
    )
    group.add_argument(
        "--only",
        action="append",
        default=[],
        choices=("systems", "uploads", "segmentations"),
        help="only this part; repeatable",
    )
    return group


if __name__ == "__main__":
    sys.exit(run(make_parser()))
