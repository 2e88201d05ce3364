"""The stages of this room: decoding, scoring, and the loss on the dev set. Each is found built, or built."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from submission.campaign import Pair
from submission.errors import UserError
from submission.launch import launched, obtain_together
from submission.store import Store
from submission.system import OPEN_TESTSET, System

Load = Callable[[], Any]
"""Gives (model, processor); called when the first stage needs them."""


def loader(system: System, store: Store, device: str = "auto") -> Load:
    """Return what loads the packed model of a system, once."""
    packed = store.need(system.stage("quantize"))
    return functools.cache(lambda: _load(packed / "model", system.recipe.decode.dtype, device))


def _load(folder: Path, dtype: str, device: str) -> Any:
    import torch

    from submission.runtime.loading import load_model

    if device == "auto":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    return load_model(folder, dtype, device)


def decoded(system: System, store: Store, pair: Pair, name: str, load: Load) -> Path | None:
    """Return the hypotheses.jsonl of the stage decode:<pair>/<NAME>; None in every launched process but the first."""
    data = system.data_path(store)
    cut = None if name == OPEN_TESTSET else store.need(system.stage("segment", name)) / "segments.yaml"
    make = functools.partial(_decode, system, load, pair, name, data / system.testset_part(name), cut)
    folder = obtain_together(store, system.stage("decode", f"{pair.name}/{name}"), make)
    return folder and folder / "hypotheses.jsonl"


def _decode(system: System, load: Load, pair: Pair, name: str, folder: Path, cut: Path | None, out: Path) -> None:
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
    if launched().rank == 0:
        print(f"decode:{pair.name}/{name}: {outcome}", file=sys.stderr, flush=True)


def scored(system: System, store: Store) -> Path:
    """Return the scores.json of the stage score; every decoding must be built."""
    chosen = [(pair, name) for pair, name in system.pairs_and_testsets()]
    hypotheses = [
        store.need(system.stage("decode", f"{pair.name}/{name}")) / "hypotheses.jsonl" for pair, name in chosen
    ]

    def make(out: Path) -> None:
        from evaluate.score import score_testset, write_scores
        from submission.progress import progress

        testsets = [
            with_references(system, store, pair, name, path)
            for (pair, name), path in zip(chosen, hypotheses, strict=True)
        ]
        results = []
        with progress("score", len(testsets), "test sets") as tick:
            for testset in testsets:
                results.append(score_testset(testset))
                tick(1)
        write_scores(out / "scores.json", [s for scores, _ in results for s in scores], [t for _, t in results])

    return store.obtain(system.stage("score"), make) / "scores.json"


def with_references(system: System, store: Store, pair: Pair, name: str, hypotheses: Path) -> Any:
    """Return a decoded test set with its references."""
    from evaluate.references import find_gold_references, find_references
    from evaluate.score import Decoded

    data = system.data_path(store)
    folder, testset = data / system.reference_part(name), data / system.testset_part(name)
    gold = name == OPEN_TESTSET
    references = find_gold_references(folder, pair.target) if gold else find_references(folder, pair.name, testset)
    return Decoded(
        testset=name,
        pair=pair.name,
        language=pair.target,
        hypotheses=hypotheses,
        references=references,
        given=gold or system.campaign.testset(name).segmentation == "given",
    )


def lost(system: System, store: Store, load: Load) -> Path:
    """Return the loss.json of the stage loss: teacher-forced cross-entropy on the dev set, pair by pair."""
    corpus, data = store.need(system.stage("corpus")), system.data_path(store)
    checkpoint = store.need(system.stage("merge"))

    def make(out: Path) -> None:
        from evaluate.loss import measure, read_dev
        from submission.runtime.prompt import render_prompt

        model, processor = load()
        prompts = {p.target: render_prompt(system.campaign.prompt, p.target_language) for p in system.campaign.pairs}
        examples = read_dev(corpus, data, checkpoint, tuple(prompts.items()), system.campaign.model.end_token)
        pairs = {pair.name: pair.target for pair in system.campaign.pairs}
        measure(model, processor, examples, pairs, out / "loss.json")

    return store.obtain(system.loss_stage(), make) / "loss.json"


def chosen(system: System, pairs: Sequence[str], testsets: Sequence[str]) -> list[tuple[Pair, str]]:
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
