"""The stage functions of evaluation: decoding, scoring, COMET, and the loss on the dev set."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from submission.store.digests import canonical_json, write_text
from submission.store.launch import launched
from submission.store.store import StageFunction

Options = dict[str, Any]
Inputs = dict[str, Path]
Load = Callable[[Path, str], Any]
"""(folder of a model, dtype) -> (model, processor)."""


def _load_here(folder: Path, dtype: str) -> Any:
    from evaluate.decoding.model_loading import load_on

    return load_on(folder, dtype, "auto")


def decode(options: Options, inputs: Inputs, out: Path, *, load: Load = _load_here, label: str = "decode") -> None:
    """Write hypotheses.jsonl of a test set; without `segments` among the inputs its segments are ACL 60/60's own.

    load: gives the model, which several stages share; label: of the progress line.
    """
    from evaluate.decoding.audio_files import readable_in_pieces
    from evaluate.decoding.decode import decode as decode_segments
    from evaluate.scoring.references import gold_segments
    from segment.testset import read_testset
    from submission.runtime.prompt import render_prompt
    from submission.system.recipe.decoding_options import DecodeOptions
    from submission.system.schema import parse_options
    from submission.text.segments import read_segments

    with tempfile.TemporaryDirectory(prefix="recordings-") as aside:
        if "segments" in inputs:
            segments = read_segments(inputs["segments"] / "segments.yaml")
            recordings = readable_in_pieces(read_testset(inputs["audio"]), segments, Path(aside))
        else:
            segments, recordings = gold_segments(inputs["audio"])
        model, processor = load(inputs["model"] / "model", options["dtype"])
        outcome = decode_segments(
            model,
            processor,
            segments,
            recordings,
            render_prompt(options["prompt"], options["target_language"]),
            parse_options(DecodeOptions, options),
            out / "hypotheses.jsonl",
            end_token=options["end_token"],
            label=label,
        )
    if launched().rank == 0:
        print(f"{label}: {outcome}", file=sys.stderr, flush=True)


def score(options: Options, inputs: Inputs, out: Path) -> None:
    """Write score.json and lines.jsonl of one test set and pair; without a pair, scores.json of all that are inputs."""
    from evaluate.scoring.score import gather, score_testset
    from evaluate.scoring.score_files import read_testset_scores, write_testset_scores

    if options:
        write_testset_scores(out, score_testset(with_references(options, inputs)))
    else:
        record = gather(read_testset_scores(folder) for folder in inputs.values())
        write_text(out / "scores.json", canonical_json(record))


def with_references(options: Options, inputs: Inputs) -> Any:
    """Return a decoded test set with its references, from options and inputs of its stage score."""
    from evaluate.scoring.references import find_gold_references, find_references
    from evaluate.scoring.score import DecodedTestSet

    folder, pair = inputs["references"], options["pair"]
    if options["gold"]:
        references = find_gold_references(folder, options["target"])
    else:
        references = find_references(folder, pair, inputs["audio"])
    return DecodedTestSet(
        testset=options["testset"],
        pair=pair,
        language=options["target"],
        hypotheses=inputs["decode"] / "hypotheses.jsonl",
        references=references,
        given=options["given"] and not _was_split(inputs),
    )


def _was_split(inputs: Inputs) -> bool:
    """Return whether given segments were split, so that lines are no longer those of the references."""
    from segment.segmentation_report import read_report

    return "segments" in inputs and bool(read_report(inputs["segments"]).get("split"))


def _load_comet_here(folder: Path, digest: str) -> Any:
    from evaluate.scoring.comet import load

    return load(folder, digest)


def comet(options: Options, inputs: Inputs, out: Path, *, load: Load = _load_comet_here) -> None:
    """Write comet.json of a scored test set; with `score` among the inputs, scores.json of all with COMET's figures.

    load: (folder, digest) -> the checkpoint's model, which several stages share.
    """
    if "score" in inputs:
        from evaluate.scoring.score import with_comet
        from evaluate.scoring.score_files import read_comet_scores

        figures = [read_comet_scores(folder) for name, folder in inputs.items() if name not in ("score", "model")]
        merged = with_comet(_read(inputs["score"] / "scores.json"), figures, options["model_sha256"])
        write_text(out / "scores.json", canonical_json(merged))
    else:
        from evaluate.scoring.comet_stage import score_with_comet

        score_with_comet(load(inputs["model"], options["model_sha256"]), inputs["lines"], out)


def loss(options: Options, inputs: Inputs, out: Path, *, load: Load = _load_here) -> None:
    """Write loss.json: teacher-forced cross-entropy on the dev set, pair by pair; load: as for `decode`."""
    from evaluate.decoding.dev_loss import measure, read_dev
    from submission.runtime.prompt import render_prompt

    prompts = {code: render_prompt(options["prompt"], name) for code, name in options["languages"].items()}
    examples = read_dev(
        inputs["corpus"], inputs["data"], inputs["checkpoint"], tuple(prompts.items()), options["end_token"]
    )
    model, processor = load(inputs["model"] / "model", options["dtype"])
    measure(model, processor, examples, options["pairs"], out / "loss.json")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


STAGES: dict[str, StageFunction] = {"decode": decode, "score": score, "comet": comet, "loss": loss}
"""Stage -> the function that builds it."""
