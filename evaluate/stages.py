"""The stages decode, score, comet and loss: each returns its built artifact, building it where it is missing."""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from submission.errors import UserError
from submission.store.digests import canonical_json, write_text
from submission.store.launch import launched, obtain_together
from submission.store.store import Store
from submission.system.campaign import Pair
from submission.system.system import OPEN_TESTSET, System

Load = Callable[[], Any]
"""Gives (model, processor); called when the first stage needs them."""


def loader(system: System, store: Store, device: str = "auto") -> Load:
    """Return what loads the packed model of a system, once."""
    packed = store.need(system.stage("quantize"))

    def load() -> Any:
        from evaluate.decoding.model_loading import load_on

        return load_on(packed / "model", system.recipe.decode.dtype, device)

    return functools.cache(load)


def decoded(system: System, store: Store, pair: Pair, name: str, load: Load) -> Path | None:
    """Return the hypotheses.jsonl of the stage decode:<pair>/<NAME>; None in every launched process but the first."""
    data = system.data_path(store)
    cut = None if name == OPEN_TESTSET else store.need(system.stage("segment", name)) / "segments.yaml"
    make = functools.partial(_decode, system, load, pair, name, data / system.testset_part(name), cut)
    folder = obtain_together(store, system.stage("decode", f"{pair.name}/{name}"), make)
    return folder and folder / "hypotheses.jsonl"


def _decode(system: System, load: Load, pair: Pair, name: str, folder: Path, cut: Path | None, out: Path) -> None:
    """Decode the recordings of a folder; cut: the system's segments, None for the gold ones of ACL 60/60."""
    from evaluate.decoding.audio_files import readable_in_pieces
    from evaluate.decoding.decode import decode as decode_segments
    from evaluate.scoring.references import gold_segments
    from segment.testset import read_testset
    from submission.runtime.prompt import render_prompt
    from submission.text.segments import read_segments

    with tempfile.TemporaryDirectory(prefix="recordings-") as aside:
        if cut is None:
            segments, recordings = gold_segments(folder)
        else:
            segments = read_segments(cut)
            recordings = readable_in_pieces(read_testset(folder), segments, Path(aside))
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
    """Return the scores.json of the stage score, which gathers every test set; every decoding must be built."""
    chosen = system.pairs_and_testsets()
    for pair, name in chosen:  # all of them, before the first is scored
        store.need(system.stage("decode", f"{pair.name}/{name}"))
    cells = [scored_cell(system, store, pair, name) for pair, name in chosen]

    def make(out: Path) -> None:
        from evaluate.scoring.score import gather
        from evaluate.scoring.score_files import read_testset_scores

        record = gather(read_testset_scores(cell.parent) for cell in cells)
        write_text(out / "scores.json", canonical_json(record))

    return store.obtain(system.stage("score"), make) / "scores.json"


def scored_cell(system: System, store: Store, pair: Pair, name: str) -> Path:
    """Return the score.json of the stage score:<pair>/<NAME>: {"scores": [Score, …], "testset": TestSetSummary}.

    Beside it lies lines.jsonl: a reference line a line, with its recording, its transcript and what answers it.
    The test set must be decoded; where it has no references, `scores` is empty and the summary's note says so.
    """
    part = f"{pair.name}/{name}"
    hypotheses = store.need(system.stage("decode", part)) / "hypotheses.jsonl"

    def make(out: Path) -> None:
        from evaluate.scoring.score import score_testset
        from evaluate.scoring.score_files import write_testset_scores

        write_testset_scores(out, score_testset(with_references(system, store, pair, name, hypotheses)))

    return store.obtain(system.stage("score", part), make) / "score.json"


def comet_loader(folder: Path, digest: str) -> Load:
    """Return what loads a COMET checkpoint, once; in the score environment."""

    def load() -> Any:
        from evaluate.scoring.comet import load as load_comet

        return load_comet(folder, digest)

    return functools.cache(load)


def comet_cells(system: System, store: Store, folder: Path, load: Load) -> dict[str, Path]:
    """Return `<pair>/<NAME>` -> the comet.json of every test set of a system that is scored, by a checkpoint's folder.

    Raises UserError, naming the command, where none is scored.
    """
    digest, parts = system.comet_digest(folder), [f"{pair.name}/{name}" for pair, name in system.pairs_and_testsets()]
    cells = {part: store.folder(stage) for part in parts if store.record(stage := system.stage("score", part))}
    if not cells:
        store.need(system.stage("score"))
    if any(store.record(system.comet_stage(digest, part)) is None for part in cells):
        load()  # what is wrong with it is said before the first test set is scored

    def make(cell: Path, out: Path) -> None:
        from evaluate.scoring.comet_stage import score_with_comet

        score_with_comet(load(), cell, out)

    return {
        part: store.obtain(system.comet_stage(digest, part), functools.partial(make, cell)) / "comet.json"
        for part, cell in cells.items()
    }


def comet_gathered(system: System, store: Store, folder: Path, cells: dict[str, Path]) -> Path | None:
    """Return the scores.json of the stage comet: that of score with COMET's figures; None unless all is scored.

    cells: as `comet_cells` gives them.
    """
    if store.record(system.stage("score")) is None or len(cells) < len(system.pairs_and_testsets()):
        return None
    plain, digest = store.need(system.stage("score")) / "scores.json", system.comet_digest(folder)

    def make(out: Path) -> None:
        from evaluate.scoring.score import with_comet
        from evaluate.scoring.score_files import read_comet_scores

        merged = with_comet(_read(plain), [read_comet_scores(path.parent) for path in cells.values()], digest)
        write_text(out / "scores.json", canonical_json(merged))

    return store.obtain(system.comet_stage(digest), make) / "scores.json"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def with_references(system: System, store: Store, pair: Pair, name: str, hypotheses: Path) -> Any:
    """Return a decoded test set with its references."""
    from evaluate.scoring.references import find_gold_references, find_references
    from evaluate.scoring.score import DecodedTestSet

    data = system.data_path(store)
    folder, testset = data / system.reference_part(name), data / system.testset_part(name)
    gold = name == OPEN_TESTSET
    references = find_gold_references(folder, pair.target) if gold else find_references(folder, pair.name, testset)
    return DecodedTestSet(
        testset=name,
        pair=pair.name,
        language=pair.target,
        hypotheses=hypotheses,
        references=references,
        given=system.stage("score", f"{pair.name}/{name}").options["given"],
    )


def has_references(system: System, data: Path, pair: Pair, name: str) -> bool:
    """Say whether there are references of a test set for a pair, without reading them."""
    from evaluate.scoring.references import gold_text, reference_text

    folder = data / system.reference_part(name)
    found = gold_text(folder, pair.target) if name == OPEN_TESTSET else reference_text(folder, pair.name)
    return found is not None


def lost(system: System, store: Store, load: Load) -> Path:
    """Return the loss.json of the stage loss: teacher-forced cross-entropy on the dev set, pair by pair."""
    corpus, data = store.need(system.stage("corpus")), system.data_path(store)
    checkpoint = store.need(system.stage("merge"))

    def make(out: Path) -> None:
        from evaluate.decoding.dev_loss import measure, read_dev
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
