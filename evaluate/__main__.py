"""`python -m evaluate`: decode the test sets of a system, score what was decoded, compare many systems."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from submission.cli import add_system_arguments, open_system, open_systems, run


def decode(args: argparse.Namespace) -> None:
    """Build the stages decode:<pair>/<NAME> of a system with one model, loaded when the first of them needs it.

    Started by `torchrun` or `accelerate launch`, every process decodes its share; the result is that of one process.
    """
    from evaluate import stages

    system, store = open_system(args)
    chosen = stages.chosen(system, args.pair, args.testset)
    load = stages.loader(system, store, args.device)
    for pair, name in chosen:
        stages.decoded(system, store, pair, name, load)


def score(args: argparse.Namespace) -> None:
    """Build the stage score of a system and print its figures."""
    from evaluate import stages

    text = stages.scored(*open_system(args)).read_text(encoding="utf-8")
    if args.json:
        print(text, end="")
    else:
        from evaluate.table import table

        print(table(json.loads(text)))


def ablate(args: argparse.Namespace) -> None:
    """Measure every packed system of a list on ACL 60/60 (BLEU and chrF on eval, cross-entropy on dev) in one table.

    Each system's figures are stages of the store, so that a killed run goes on and a finished one is read. The table
    is printed, and written as Markdown, CSV and JSON.
    """
    from evaluate import stages
    from evaluate.ablation import measure_system, render, write_ablation
    from submission.errors import UserError
    from submission.launch import launched

    if launched().processes > 1:
        fix = "share the decoding of one system, `evaluate decode`, or start one process"
        raise UserError("ablate", "several processes, and nothing here is shared between them", fix)
    systems = open_systems(args)
    for system, store in systems:
        store.need(system.stage("quantize"))  # all of them, before the first hour of work
    rows = [measure_system(system, store, stages.loader(system, store, args.device)) for system, store in systems]
    out = args.out or Path("dist") / f"{systems[0][0].campaign.name}-{Path(args.recipe).stem}"
    write_ablation(out, rows)
    print(render(rows))
    print(f"written: {out}/ablation.md, .csv, .json")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluate", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    one = verbs.add_parser("decode", help="translate the test sets with the packed model", description=decode.__doc__)
    add_system_arguments(one)
    one.add_argument("--pair", action="append", default=[], metavar="P", help="only this pair, en-de; repeatable")
    one.add_argument("--testset", action="append", default=[], metavar="T", help="only this test set; repeatable")
    _add_device(one)
    one.set_defaults(verb=decode)

    two = verbs.add_parser("score", help="BLEU and chrF where there are references", description=score.__doc__)
    add_system_arguments(two)
    two.add_argument("--json", action="store_true", help="print scores.json in place of the table")
    two.set_defaults(verb=score)

    three = verbs.add_parser("ablate", help="every system of a list in one table", description=ablate.__doc__)
    add_system_arguments(three)
    three.set_defaults(recipe="ablation", verb=ablate)
    three.add_argument("--out", type=Path, metavar="DIR", help="where the table goes (default: dist/<campaign>-<list>)")
    _add_device(three)
    return parser


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="where the model runs (default: cuda if there is one, or cpu)")


if __name__ == "__main__":
    sys.exit(run(make_parser()))
