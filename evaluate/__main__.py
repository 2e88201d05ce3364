"""`python -m evaluate`: decode the test sets of a system, and score what was decoded."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from submission.campaign import Pair
from submission.cli import add_system_arguments, open_system, run
from submission.errors import UserError
from submission.store import Store
from submission.system import OPEN_TESTSET, System


def decode(args: argparse.Namespace) -> None:
    """Build the stages decode:<pair>/<NAME> of a system with one model, loaded when the first of them needs it."""
    system, store = open_system(args)
    load = functools.cache(lambda: _load(system, store, args.device))
    for pair, name in _chosen(system, args.pair, args.testset):
        stage = system.stage("decode", f"{pair.name}/{name}")
        store.obtain(stage, functools.partial(_decode, system, store, load, pair, name), resume=True)


def _load(system: System, store: Store, device: str) -> Any:
    import torch

    from submission.runtime.loading import load_model

    folder = store.need(system.stage("quantize")) / "model"
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_model(folder, system.recipe.decode.dtype, device)


def _decode(system: System, store: Store, load: Callable[[], Any], pair: Pair, name: str, out: Path) -> None:
    from evaluate.decode import decode as decode_segments
    from evaluate.references import gold_segments
    from segment.testset import read_testset
    from submission.runtime.prompt import render_prompt
    from submission.segments import read_segments

    folder = system.data_path(store) / system.testset_part(name)
    if name == OPEN_TESTSET:
        segments, recordings = gold_segments(folder)
    else:
        segments = read_segments(store.need(system.stage("segment", name)) / "segments.yaml")
        recordings = {recording.name: recording.path for recording in read_testset(folder).recordings}
    model, processor = load()
    outcome = decode_segments(
        model,
        processor,
        segments,
        recordings,
        render_prompt(system.campaign.prompt, pair.target_language),
        system.recipe.decode,
        out / "hypotheses.jsonl",
        end_token=system.campaign.model.end_token,
        label=f"decode:{pair.name}/{name}",
    )
    print(f"decode:{pair.name}/{name}: {outcome}", file=sys.stderr, flush=True)


def _chosen(system: System, pairs: list[str], testsets: list[str]) -> list[tuple[Pair, str]]:
    """Return the (pair, test set) that are asked for, all where nothing is; UserError for unknown names."""
    everything = system.pairs_and_testsets()
    for option, asked, known in (
        ("--pair", pairs, {pair.name for pair, _ in everything}),
        ("--testset", testsets, {name for _, name in everything}),
    ):
        if unknown := sorted(set(asked) - known):
            raise UserError(option, f"unknown: {', '.join(unknown)}", f"choose from {', '.join(sorted(known))}")
    return [
        (pair, name)
        for pair, name in everything
        if (pair.name in pairs or not pairs) and (name in testsets or not testsets)
    ]


def score(args: argparse.Namespace) -> None:
    """Build the stage score of a system and print its figures."""
    system, store = open_system(args)

    def make(out: Path) -> None:
        from evaluate.score import score_testset, write_scores
        from submission.progress import progress

        testsets = _decoded(system, store)
        results = []
        with progress("score", len(testsets), "test sets") as tick:
            for decoded in testsets:
                results.append(score_testset(decoded))
                tick(1)
        write_scores(out / "scores.json", [s for scores, _ in results for s in scores], [t for _, t in results])

    text = (store.obtain(system.stage("score"), make) / "scores.json").read_text(encoding="utf-8")
    if args.json:
        print(text, end="")
    else:
        from evaluate.table import table

        print(table(json.loads(text)))


def _decoded(system: System, store: Store) -> list[Any]:
    """Return every decoded test set with its references; UserError names a stage that is not built."""
    from evaluate.references import find_gold_references, find_references
    from evaluate.score import Decoded

    data = system.data_path(store)
    result = []
    for pair, name in system.pairs_and_testsets():
        folder = data / system.reference_part(name)
        gold = name == OPEN_TESTSET
        result.append(
            Decoded(
                testset=name,
                pair=pair.name,
                language=pair.target,
                hypotheses=store.need(system.stage("decode", f"{pair.name}/{name}")) / "hypotheses.jsonl",
                references=find_gold_references(folder, pair.target) if gold else find_references(folder, pair.name),
                given=gold or system.campaign.testset(name).segmentation == "given",
            )
        )
    return result


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluate", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    one = verbs.add_parser("decode", help="translate the test sets with the packed model", description=decode.__doc__)
    add_system_arguments(one)
    one.add_argument("--pair", action="append", default=[], metavar="P", help="only this pair, en-de; repeatable")
    one.add_argument("--testset", action="append", default=[], metavar="T", help="only this test set; repeatable")
    one.add_argument("--device", default="auto", help="where the model runs (default: cuda if there is one, or cpu)")
    one.set_defaults(verb=decode)

    two = verbs.add_parser("score", help="BLEU and chrF where there are references", description=score.__doc__)
    add_system_arguments(two)
    two.add_argument("--json", action="store_true", help="print scores.json in place of the table")
    two.set_defaults(verb=score)
    return parser


if __name__ == "__main__":
    sys.exit(run(make_parser()))
