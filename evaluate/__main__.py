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
from submission.system import OPEN_TESTSET, System


def decode(args: argparse.Namespace) -> None:
    """Build the stages decode:<pair>/<NAME> of a system with one model, loaded when the first of them needs it."""
    system, store = open_system(args)
    chosen = _chosen(system, args.pair, args.testset)
    data, packed = system.data_path(store), store.need(system.stage("quantize"))
    load = functools.cache(lambda: _load(packed / "model", system.recipe.decode.dtype, args.device))
    for pair, name in chosen:
        stage = system.stage("decode", f"{pair.name}/{name}")
        cut = None if name == OPEN_TESTSET else store.need(system.stage("segment", name)) / "segments.yaml"
        folder = data / system.testset_part(name)
        store.obtain(stage, functools.partial(_decode, system, load, pair, name, folder, cut), resume=True)


def _load(folder: Path, dtype: str, device: str) -> Any:
    import torch

    from submission.runtime.loading import load_model

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_model(folder, dtype, device)


def _decode(
    system: System, load: Callable[[], Any], pair: Pair, name: str, folder: Path, cut: Path | None, out: Path
) -> None:
    """Decode the recordings of a folder; cut: the system's segments, None for the gold ones of ACL 60/60."""
    from evaluate.decode import decode as decode_segments
    from evaluate.references import gold_segments
    from segment.testset import read_testset
    from submission.runtime.prompt import render_prompt
    from submission.segments import read_segments

    if cut is None:
        segments, recordings = gold_segments(folder)
    else:
        segments = read_segments(cut)
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
    """Return the (pair, test set) that are asked for, all where nothing is.

    Raises UserError for unknown names, and for a test set that none of the pairs that are asked for has.
    """
    everything = system.pairs_and_testsets()
    for option, asked, known in (
        ("--pair", pairs, {pair.name for pair, _ in everything}),
        ("--testset", testsets, {name for _, name in everything}),
    ):
        if unknown := sorted(set(asked) - known):
            raise UserError(option, f"unknown: {', '.join(unknown)}", f"choose from {', '.join(sorted(known))}")
    of_pairs = [(pair, name) for pair, name in everything if pair.name in pairs or not pairs]
    names = list(dict.fromkeys(name for _, name in of_pairs))
    if absent := sorted(set(testsets) - set(names)):
        what = f"{' and '.join(dict.fromkeys(pairs))} has no {', '.join(absent)}"
        raise UserError("--testset", what, f"choose from {', '.join(names)}")
    return [(pair, name) for pair, name in of_pairs if name in testsets or not testsets]


def score(args: argparse.Namespace) -> None:
    """Build the stage score of a system and print its figures."""
    system, store = open_system(args)
    data = system.data_path(store)
    hypotheses = {
        (pair, name): store.need(system.stage("decode", f"{pair.name}/{name}")) / "hypotheses.jsonl"
        for pair, name in system.pairs_and_testsets()
    }

    def make(out: Path) -> None:
        from evaluate.score import score_testset, write_scores
        from submission.progress import progress

        testsets = _decoded(system, data, hypotheses)
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


def _decoded(system: System, data: Path, hypotheses: dict[tuple[Pair, str], Path]) -> list[Any]:
    """Return every decoded test set with its references."""
    from evaluate.references import find_gold_references, find_references
    from evaluate.score import Decoded

    result = []
    for (pair, name), path in hypotheses.items():
        folder, testset = data / system.reference_part(name), data / system.testset_part(name)
        gold = name == OPEN_TESTSET
        references = find_gold_references(folder, pair.target) if gold else find_references(folder, pair.name, testset)
        result.append(
            Decoded(
                testset=name,
                pair=pair.name,
                language=pair.target,
                hypotheses=path,
                references=references,
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
