"""Reading what is built: artifacts of the store -> `results`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from evaluate.report.results import (
    NOT_COMPUTED,
    Cut,
    Layer,
    Measured,
    Outcome,
    Paired,
    Results,
    Score,
    loss_score,
)
from evaluate.report.system_plans import Work
from evaluate.scoring.score import DECIMALS as SCORE_DECIMALS
from evaluate.scoring.score import LINES_FILE
from evaluate.scoring.significance import paired_bootstrap
from segment.report import read_report
from submission.model.codecs import Codec
from submission.model.families.tensors import TensorSpec
from submission.model.forecast import Forecast, role_matches
from submission.model.ranking import RANKING
from submission.model.sizes import other_reading
from submission.store.digests import files_below
from submission.system.campaign import Campaign, Pair, size_bytes
from submission.system.data_folder import OPEN_TESTSET
from submission.system.plan import expected_model
from submission.system.recipe import QuantizeOptions

NO_REFERENCES = f"{NOT_COMPUTED}: no references"
FILES = "files beside the weights"
FAMILIES = ("mlp", "attn", "embedding", "lm_head", "audio")
"""Families of roles that are told apart by name; the rest is `norms, projector`."""
REST = "norms, projector"


def read_results(
    campaign: Campaign,
    systems: Sequence[Work],
    uploads: Sequence[Work],
    segmentations: Sequence[Work],
    commands: dict[str, str],
) -> Results:
    """Return everything that a report says; every stage of the works must be built."""
    other = other_reading(campaign.size_limit)
    limits = {limit: size_bytes(limit) for limit in (campaign.size_limit, other) if limit}
    ranked = next((work for work in systems if _is_ranked(work)), None)
    layers, about = read_layers(ranked) if ranked else ((), {})
    return Results(
        campaign=campaign.name,
        edition=campaign.edition,
        miniature=campaign.made_here,
        size_limit=campaign.size_limit,
        limits=limits,
        pairs={pair.name: pair.target_language for pair in campaign.pairs},
        testsets=tuple(testset.name for testset in campaign.testsets),
        testsets_of={pair.name: pair.testsets for pair in campaign.pairs},
        open_testset=OPEN_TESTSET,
        commands=commands,
        systems=tuple(read_system(work) for work in systems),
        uploads=tuple(read_system(work) for work in uploads),
        paired=tuple(compare_uploads(*uploads)) if len(uploads) == 2 else (),
        segmentations=tuple(read_system(work) for work in segmentations),
        layers=layers,
        layers_about=about,
    )


def read_system(work: Work) -> Measured:
    """Return what was measured of a system."""
    system, store = work.system, work.store
    packed = store.need(system.stage("quantize"))
    size = sum(path.stat().st_size for path in files_below(packed / "model"))
    used = [system.stage("quantize"), *([system.loss_stage()] if work.loss else [])]
    quantize = system.recipe.quantize
    cast = expected_model(system, store)
    return Measured(
        name=system.recipe.name,
        description=system.recipe.description,
        size_bytes=size,
        meets_limit=size <= system.campaign.size_limit_bytes,
        parameters=_read(packed / "report.json")["parameters"],
        layers=next((str(o.layers) for o in quantize.overrides if isinstance(o.layers, str)), ""),
        calibration=calibration(quantize),
        utterances=quantize.awq.utterances if quantize.awq else None,
        bytes_by_role=by_family(cast) if cast else {},
        losses=_losses(work) if work.loss else {},
        outcomes=tuple(
            [_outcome(work, pair, name) for pair, name in work.cells]
            + [Outcome(pair=p.name, testset=n, scores={}, missing=NO_REFERENCES) for p, n in work.without_references]
        ),
        cuts=tuple(_cut(work, name) for name in work.testsets),
        stages={stage.id: stage.key for stage in used},
    )


def calibration(quantize: QuantizeOptions) -> str:
    """Return what AWQ is calibrated on in the words of the paper's Table 5; empty without AWQ."""
    if quantize.awq is None:
        return ""
    pairs = ", ".join(quantize.awq.pairs)
    return f"{pairs} pairs" if quantize.awq.targets else f"source only ({pairs})"


def by_family(cast: Forecast) -> dict[str, int]:
    """Return family of roles -> bytes, largest families of a language model first; the sum is the folder's size."""
    sizes = dict.fromkeys((*FAMILIES, REST), 0)
    for role in cast.roles:
        family = role.role.partition(".")[0]
        sizes[family if family in FAMILIES else REST] += role.size_bytes
    return sizes | {FILES: cast.header_bytes + cast.config_bytes + cast.other_bytes}


def _losses(work: Work) -> dict[str, Score]:
    losses = _read(work.store.need(work.system.loss_stage()) / "loss.json")
    return {
        pair.name: loss_score(losses[pair.name]["value"], losses[pair.name]["standard_error"])
        for pair in work.system.campaign.pairs
    }


def _outcome(work: Work, pair: Pair, name: str) -> Outcome:
    system, store = work.system, work.store
    used = work.cell_stages(pair, name)
    record = _read(store.need(used[-1]) / "score.json")
    if name != OPEN_TESTSET:
        used = [system.stage("segment", name), *used]
    comet = work.comet_stage(pair, name)
    if comet and store.record(comet):
        figures = _read(store.folder(comet) / "comet.json")
        record["scores"] += figures["scores"]
        record["testset"]["comet"] = figures["reason"]
        used.append(comet)
    stages = {stage.id: stage.key for stage in (system.stage("quantize"), *used)}
    return outcome_of(record, pair.name, name, stages)


def compare_uploads(one: Work, two: Work) -> Iterator[Paired]:
    """Yield the second system's difference from the first on every test set that both are scored on.

    Both answer the same reference lines: recordings that they cut differently are resegmented along these.
    """
    for pair, name in one.cells:
        if (pair, name) not in two.cells:
            continue
        first, second = (_lines(work, pair, name) for work in (one, two))
        answers = [[line["hypothesis"] for line in lines] for lines in (first, second)]
        for found in paired_bootstrap(*answers, [line["reference"] for line in first], pair.target):
            yield Paired(
                pair=pair.name,
                testset=name,
                metric=found.metric,
                difference=round(found.difference, SCORE_DECIMALS),
                low=round(found.low, SCORE_DECIMALS),
                high=round(found.high, SCORE_DECIMALS),
                p_value=round(found.p_value, SCORE_DECIMALS),
            )


def _lines(work: Work, pair: Pair, name: str) -> list[dict[str, Any]]:
    path = work.store.need(work.cell_stages(pair, name)[-1]) / LINES_FILE
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def outcome_of(record: dict[str, Any], pair: str, testset: str, stages: dict[str, str]) -> Outcome:
    """Return what a score.json says of one test set."""
    about = record["testset"]
    known = [field.name for field in fields(Score)]
    scores = [Score(**{name: score[name] for name in known if name in score}) for score in record["scores"]]
    reason = about.get("comet") or about["note"]
    return Outcome(
        pair=pair,
        testset=testset,
        scores={score.metric: score for score in scores},
        missing=f"{NOT_COMPUTED}: {reason}" if reason else NOT_COMPUTED,
        segments=about["segments"],
        blank=about["flags"]["blank"],
        stages=stages,
    )


def _cut(work: Work, name: str) -> Cut:
    stage = work.system.stage("segment", name)
    report = read_report(work.store.need(stage))
    return Cut(
        testset=name,
        given=work.system.campaign.testset(name).segmentation == "given",
        segments=report["segments"],
        segment_seconds=report["segment_seconds"],
        speech_seconds=report["speech_seconds"],
        dropped_seconds=report["dropped_speech_seconds"],
        stage=stage.key,
    )


def _is_ranked(work: Work) -> bool:
    ranked = work.system.recipe.quantize.ranked
    return ranked is not None and work.store.record(work.system.stage("sensitivity")) is not None


def read_layers(work: Work) -> tuple[tuple[Layer, ...], dict[str, Any]]:
    """Return what the sensitivity analysis of a system found, and which layers the system took."""
    from submission.model.families import tensors

    system, store = work.system, work.store
    stage = system.stage("sensitivity")
    ranking = _read(store.need(stage) / RANKING)
    cast, override = expected_model(system, store), system.recipe.quantize.ranked
    chosen = changed_layers(tensors(cast.config), cast.codecs, override.role, override.codec) if cast else set()
    layers = tuple(
        Layer(
            layer=entry["layer"],
            value=entry["mean"]["value"],
            standard_error=entry["mean"]["standard_error"],
            chosen=entry["layer"] in chosen,
        )
        for entry in sorted(ranking["layers"], key=lambda entry: entry["layer"])
    )
    about = {"role": ranking["role"], "codec": override.codec.name, "stage": stage.key, "system": system.recipe.name}
    return layers, about


def changed_layers(specs: Sequence[TensorSpec], codecs: dict[str, Codec], role: str, codec: Codec) -> set[int]:
    """Return the layers in which every weight of a role has a codec."""
    members: dict[int, list[bool]] = {}
    for spec in specs:
        if spec.layer is not None and spec.packable and role_matches(spec.role, role):
            members.setdefault(spec.layer, []).append(codecs.get(spec.name) == codec)
    return {layer for layer, same in members.items() if all(same)}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
