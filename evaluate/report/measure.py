"""Read the artifacts of a report's stages from the store into `results`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from evaluate.report.efficiency_table import read_measured
from evaluate.report.results import (
    NOT_COMPUTED,
    LayerSensitivity,
    PairedResult,
    ReportedScore,
    Results,
    SegmentationResult,
    SystemResult,
    TestSetResult,
    loss_score,
)
from evaluate.report.system_plans import SystemPlan
from evaluate.scoring.score import DECIMALS as SCORE_DECIMALS
from evaluate.scoring.score import CometScores, ScoredLine, TestSetScores
from evaluate.scoring.score_files import read_comet_scores, read_testset_scores
from evaluate.scoring.significance import paired_bootstrap
from segment.segmentation_report import read_report
from submission.model.codecs import Codec
from submission.model.families import droppable_parts, family_of
from submission.model.families.tensors import TensorSpec
from submission.model.forecast import Forecast, role_matches, uploaded_bytes
from submission.model.ranking import RANKING
from submission.model.sizes import other_reading
from submission.system.campaign import Campaign, Pair, size_bytes
from submission.system.data_folder import OPEN_TESTSET
from submission.system.pipeline import has_step
from submission.system.plan import expected_model
from submission.system.recipe.quantize_options import QuantizeOptions

NO_REFERENCES = f"{NOT_COMPUTED}: no references"
FILES = "files beside the weights"
FAMILIES = ("mlp", "attn", "embedding", "lm_head", "audio")
"""Groups of roles with a name of their own, besides the parts that a system can do without; the rest is `REST`."""
TIED = "embedding and head"
REST = "norms, projector"


def read_results(
    campaign: Campaign,
    systems: Sequence[SystemPlan],
    uploads: Sequence[SystemPlan],
    segmentations: Sequence[SystemPlan],
    commands: dict[str, str],
    dist: Path,
) -> Results:
    """Return the results of a report; every stage of the plans must be built.

    dist: where the systems' bundles lie, of which speed and memory may have been measured.
    """
    other = other_reading(campaign.size_limit) if campaign.size_limit else None
    limits = {limit: size_bytes(limit) for limit in (campaign.size_limit, other) if limit}
    ranked = next((plan for plan in systems if _is_ranked(plan)), None)
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
        systems=tuple(_with_efficiency(plan, dist) for plan in systems),
        uploads=tuple(_with_efficiency(plan, dist) for plan in uploads),
        paired=tuple(compare_uploads(*uploads)) if len(uploads) == 2 else (),
        segmentations=tuple(read_system(plan) for plan in segmentations),
        layers=layers,
        layers_about=about,
    )


def _with_efficiency(plan: SystemPlan, dist: Path) -> SystemResult:
    return replace(read_system(plan), efficiency=read_measured(dist, plan))


def read_system(plan: SystemPlan) -> SystemResult:
    """Return the measurements of a system."""
    system, store = plan.system, plan.store
    packed = store.need(system.stage("quantize"))
    model = store.need(system.model_stage()) / "model"
    size = uploaded_bytes(model)
    used = [system.model_stage(), *([system.loss_stage()] if plan.loss else [])]
    quantize = system.recipe.quantize
    forecast = expected_model(system, store)
    return SystemResult(
        name=system.recipe.name,
        labelled=plan.labelled,
        description=system.recipe.description,
        size_bytes=size,
        meets_limit=system.campaign.meets_limit(size),
        parameters=_read(packed / "packing_report.json")["parameters"],
        layers=next((str(o.layers) for o in quantize.overrides if isinstance(o.layers, str)), ""),
        calibration=calibration(quantize),
        utterances=quantize.awq.utterances if quantize.awq else None,
        recovered=quantize.recovery is not None,
        bytes_by_role=by_family(forecast) if forecast else {},
        losses=_losses(plan) if plan.loss else {},
        outcomes=tuple(
            [_outcome(plan, pair, name) for pair, name in plan.scored]
            + [
                TestSetResult(pair=p.name, testset=n, scores={}, missing=NO_REFERENCES)
                for p, n in plan.without_references
            ]
        ),
        segmentation_results=tuple(_segmentation(plan, name) for name in plan.testsets),
        stages={stage.id: stage.key for stage in used},
    )


def calibration(quantize: QuantizeOptions) -> str:
    """Return AWQ's calibration set as the paper's Table 5 names it; empty without AWQ."""
    if quantize.awq is None:
        return ""
    pairs = ", ".join(quantize.awq.pairs)
    return f"{pairs} pairs" if quantize.awq.targets else f"source only ({pairs})"


def by_family(forecast: Forecast) -> dict[str, int]:
    """Return group of roles -> bytes, largest groups of a language model first; the sum is the folder's size.

    Groups that the model has not are left out. A weight that is embedding and head counts once, as both.
    """
    family = family_of(forecast.config)
    names = {name: name for name in (*FAMILIES, *droppable_parts(family))}
    if family.tied_weights(forecast.config):
        names["embedding"] = TIED
    sizes = dict.fromkeys((*names.values(), REST), 0)
    for role in forecast.roles:
        sizes[names.get(role.role.partition(".")[0], REST)] += role.size_bytes
    sizes |= {FILES: forecast.header_bytes + forecast.config_bytes + forecast.other_bytes}
    return {group: size for group, size in sizes.items() if size}


def _losses(plan: SystemPlan) -> dict[str, ReportedScore]:
    losses = _read(plan.store.read(plan.system.loss_stage()) / "loss.json")
    return {
        pair.name: loss_score(losses[pair.name]["value"], losses[pair.name]["standard_error"])
        for pair in plan.system.campaign.pairs
    }


def _outcome(plan: SystemPlan, pair: Pair, name: str) -> TestSetResult:
    system, store = plan.system, plan.store
    used = plan.scoring_stages(pair, name)
    scored = read_testset_scores(store.read(used[-1]))
    comet_scores = None
    if name != OPEN_TESTSET:
        used = [system.stage("segment", name), *used]
    comet = plan.comet_stage(pair, name)
    if comet and store.record(comet):
        comet_scores = read_comet_scores(store.read(comet))
        used.append(comet)
    stages = {stage.id: stage.key for stage in (system.model_stage(), *used)}
    return outcome_of(scored, comet_scores, stages)


def compare_uploads(one: SystemPlan, two: SystemPlan) -> Iterator[PairedResult]:
    """Yield the second system's difference from the first on every test set that both are scored on.

    Both are compared line by line with the same references; recordings that they segment themselves are resegmented.
    """
    for pair, name in one.scored:
        if (pair, name) not in two.scored:
            continue
        first, second = (_lines(plan, pair, name) for plan in (one, two))
        outputs = [[line.hypothesis for line in lines] for lines in (first, second)]
        for found in paired_bootstrap(outputs[0], outputs[1], [line.reference for line in first], pair.target):
            yield PairedResult(
                pair=pair.name,
                testset=name,
                metric=found.metric,
                difference=round(found.difference, SCORE_DECIMALS),
                low=round(found.low, SCORE_DECIMALS),
                high=round(found.high, SCORE_DECIMALS),
                p_value=round(found.p_value, SCORE_DECIMALS),
            )


def _lines(plan: SystemPlan, pair: Pair, name: str) -> list[ScoredLine]:
    return read_testset_scores(plan.store.read(plan.scoring_stages(pair, name)[-1])).lines


def outcome_of(scored: TestSetScores, comet: CometScores | None, stages: dict[str, str]) -> TestSetResult:
    """Return the results of one test set; comet: where it was computed, with the reason where it has no score."""
    summary = scored.summary
    known = [field.name for field in fields(ReportedScore)]
    found = [*scored.scores, *(comet.scores if comet else ())]
    scores = [ReportedScore(**{name: getattr(score, name) for name in known}) for score in found]
    reason = (comet.reason if comet else summary.comet) or summary.note
    return TestSetResult(
        pair=summary.pair,
        testset=summary.testset,
        scores={score.metric: score for score in scores},
        missing=f"{NOT_COMPUTED}: {reason}" if reason else NOT_COMPUTED,
        segments=summary.segments,
        blank=summary.flags["blank"],
        stages=stages,
    )


def _segmentation(plan: SystemPlan, name: str) -> SegmentationResult:
    stage = plan.system.stage("segment", name)
    report = read_report(plan.store.read(stage))
    return SegmentationResult(
        testset=name,
        given=plan.system.campaign.testset(name).segmentation == "given",
        segments=report["segments"],
        segment_seconds=report["segment_seconds"],
        speech_seconds=report["speech_seconds"],
        dropped_seconds=report["dropped_speech_seconds"],
        stage=stage.key,
    )


def _is_ranked(plan: SystemPlan) -> bool:
    return has_step(plan.system, "sensitivity") and plan.store.record(plan.system.stage("sensitivity")) is not None


def read_layers(plan: SystemPlan) -> tuple[tuple[LayerSensitivity, ...], dict[str, Any]]:
    """Return the sensitivity of each layer of a system, and which layers the system chose."""
    from submission.model.families import tensors

    system, store = plan.system, plan.store
    stage = system.stage("sensitivity")
    ranking = _read(store.read(stage) / RANKING)
    forecast, override = expected_model(system, store), system.recipe.quantize.ranked
    assert override is not None  # the systems that this is called for, `_is_ranked`
    chosen = (
        changed_layers(tensors(forecast.config), forecast.codecs, override.role, override.codec) if forecast else set()
    )
    layers = tuple(
        LayerSensitivity(
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
