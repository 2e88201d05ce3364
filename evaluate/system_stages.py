"""Building the stages of a system that evaluation owns: each is found built, or built."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluate.stages import Load, comet, decode, loss, score
from submission.errors import UserError
from submission.store.launch import build_together
from submission.store.store import Store
from submission.system.campaign import Pair
from submission.system.data_folder import OPEN_TESTSET, reference_part
from submission.system.system import System


def shared_model(device: str = "auto") -> Load:
    """Return what loads a model on a device when the first stage needs it, and gives the same one to the next."""

    @functools.lru_cache(maxsize=1)
    def load(folder: Path, dtype: str) -> Any:
        from evaluate.decoding.model_loading import load_on

        return load_on(folder, dtype, device)

    return load


def decoded(system: System, store: Store, pair: Pair, name: str, load: Load) -> Path | None:
    """Return the hypotheses.jsonl of the stage decode:<pair>/<NAME>; None in every launched process but the first."""
    stage = system.stage("decode", f"{pair.name}/{name}")
    folder = build_together(store, stage, functools.partial(decode, load=load, label=stage.id))
    return folder and folder / "hypotheses.jsonl"


def scored(system: System, store: Store) -> Path:
    """Return the scores.json of the stage score, which gathers every test set; every decoding must be built."""
    chosen = system.pairs_and_testsets()
    for pair, name in chosen:  # all of them, before the first is scored
        store.need(system.stage("decode", f"{pair.name}/{name}"))
    for pair, name in chosen:
        scored_testset(system, store, pair, name)
    return store.build(system.stage("score"), score) / "scores.json"


def scored_testset(system: System, store: Store, pair: Pair, name: str) -> Path:
    """Return the score.json of the stage score:<pair>/<NAME>: {"scores": [Score, …], "testset": TestSetSummary}.

    Beside it lies lines.jsonl: a reference line a line, with its recording, its transcript and the compared line of the
    output.
    The test set must be decoded; where it has no references, `scores` is empty and the summary's note gives the reason.
    Where Unicode forms cost matches this is printed, also when the scores are cached.
    """
    stage = system.stage("score", f"{pair.name}/{name}")
    folder = store.build(stage, score)
    source = stage.inputs["references"]
    there = source.stage is None or store.record(source.stage) is not None  # data of the miniature may be removed
    file = reference_file(store.locate(source), pair, name) if there else None
    if note := scored_form_note(folder, file):
        print(f"{stage.id}: {note}", file=sys.stderr, flush=True)
    return folder / "score.json"


def scored_form_note(folder: Path, references: Path | None) -> str:
    """Return what Unicode forms cost a scored test set, from its compared lines; "" where nothing."""
    from evaluate.scoring.score_files import LINES_FILE, read_lines
    from evaluate.scoring.unicode_form import form_note

    lines = read_lines(folder / LINES_FILE)
    name = str(references or "its references")
    compared = {name: [line.reference for line in lines], "its output": [line.hypothesis for line in lines]}
    return form_note(compared)


def lost(system: System, store: Store, load: Load) -> Path:
    """Return the loss.json of the stage loss: teacher-forced cross-entropy on the dev set, pair by pair."""
    return store.build(system.loss_stage(), functools.partial(loss, load=load)) / "loss.json"


def shared_comet() -> Load:
    """Return what loads a COMET checkpoint, once; in the score environment."""

    @functools.cache
    def load(folder: Path, digest: str) -> Any:
        from evaluate.scoring.comet import load as load_comet

        return load_comet(folder, digest)

    return load


def comet_testsets(system: System, store: Store, folder: Path, load: Callable[[Path, str], Any]) -> dict[str, Path]:
    """Return `<pair>/<NAME>` -> the comet.json of every test set of a system that is scored, by a checkpoint's folder.

    Raises UserError, naming the command, where none is scored.
    """
    parts = [f"{pair.name}/{name}" for pair, name in system.pairs_and_testsets()]
    stages = {part: system.comet_stage(folder, part) for part in parts if store.record(system.stage("score", part))}
    if not stages:
        store.need(system.stage("score"))
    if any(store.record(stage) is None for stage in stages.values()):
        load(folder, system.comet_digest(folder))  # refused before the first test set is scored
    work = functools.partial(comet, load=load)
    return {part: store.build(stage, work) / "comet.json" for part, stage in stages.items()}


def comet_gathered(system: System, store: Store, folder: Path, testsets: dict[str, Path]) -> Path | None:
    """Return the scores.json of the stage comet: that of score with COMET's figures; None unless all is scored.

    testsets: as `comet_testsets` gives them.
    """
    if store.record(system.stage("score")) is None or len(testsets) < len(system.pairs_and_testsets()):
        return None
    return store.build(system.comet_stage(folder), comet) / "scores.json"


def has_references(data: Path, pair: Pair, name: str) -> bool:
    """Return whether there are references of a test set for a pair, without reading them."""
    return reference_file(data / reference_part(name), pair, name) is not None


def reference_file(folder: Path, pair: Pair, name: str) -> Path | None:
    """Return the file of a test set's references for a pair in their folder; None where there is none."""
    from evaluate.scoring.references import gold_text, reference_text

    return gold_text(folder, pair.target) if name == OPEN_TESTSET else reference_text(folder, pair.name)


def chosen(system: System, pairs: Sequence[str], testsets: Sequence[str]) -> list[tuple[Pair, str]]:
    """Return the (pair, test set) that are requested, all where nothing is.

    Raises UserError for unknown names, and for a test set that none of the requested pairs has.
    """
    everything = system.pairs_and_testsets()
    for option, requested, known in (
        ("--pair", pairs, {pair.name for pair, _ in everything}),
        ("--testset", testsets, {name for _, name in everything}),
    ):
        if unknown := sorted(set(requested) - known):
            raise UserError(option, f"unknown: {', '.join(unknown)}", f"choose from {', '.join(sorted(known))}")
    of_pairs = [(pair, name) for pair, name in everything if pair.name in pairs or not pairs]
    names = list(dict.fromkeys(name for _, name in of_pairs))
    if absent := sorted(set(testsets) - set(names)):
        what = f"{' and '.join(dict.fromkeys(pairs))} has no {', '.join(absent)}"
        raise UserError("--testset", what, f"choose from {', '.join(names)}")
    return [(pair, name) for pair, name in of_pairs if name in testsets or not testsets]
