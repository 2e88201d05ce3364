"""The stages of a system: options, inputs and order, from which their keys follow.

    data ─► corpus ─► finetune ─► merge ─► sensitivity ─► awq ─► quantize ─┐
      └───► segment:<NAME> ────────────────────────────────────────────────┴─► decode:<pair>/<NAME> ─┐
                                                            score ◄── score:<pair>/<NAME> ◄──────────┘

Between merge and quantize, systems with a byte target have calibrate and allocate in place of sensitivity and awq;
after quantize, systems with recovery have recover, whose model takes the place of the packed one.
A stage's function receives exactly the options and inputs that stand here. A key covers a stage's options and its
inputs' keys. corpus, finetune and merge stand in later keys by the content of what they made, once it is made, and by
their own key until then: a corpus that is sampled again with the same result, or a base model that is downloaded again,
trains nothing again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submission.store.input_files import InputDigests
from submission.store.store import Input, Stage
from submission.system.campaign import Campaign, Pair, TestSet
from submission.system.data_folder import (
    CLASSIFIER,
    DEV_FOLDER,
    OPEN_TESTSET,
    SHIPPED_FILES,
    reference_part,
    shipped_models,
    testset_part,
)
from submission.system.model_size import target_bytes
from submission.system.pipeline import has_step, stage_command
from submission.system.recipe.quantize_options import QuantizeOptions
from submission.system.revisions import REPORTS, REVISIONS

if TYPE_CHECKING:
    from submission.system.system import System

DATA_SEED = 2026
"""Seed of the miniature's data."""


def make_stage(name: str, arguments: str, options: dict[str, Any], inputs: dict[str, Input], part: str = "") -> Stage:
    """Return a stage with its revision and its command; arguments: how a command line names the system."""
    return Stage(
        name=name,
        part=part,
        revision=REVISIONS[name],
        options=options,
        inputs=inputs,
        reports=REPORTS.get(name),
        command=f"python -m {stage_command(name)} {arguments}".rstrip(),
    )


def data_stage(campaign: Campaign, arguments: str, digests: InputDigests) -> Stage:
    """Return the stage that makes the miniature's data folder."""
    shipped = {
        name: Input(digest=digests.digest(folder, SHIPPED_FILES[name]), path=folder)
        for name, folder in shipped_models(campaign).items()
        if folder.is_dir()
    }
    return make_stage("data", arguments, {"model": campaign.model.name, "seed": DATA_SEED}, shipped)


def build_stages(system: System) -> Iterator[Stage]:
    """Yield every stage of a build in order."""
    if system.data.stage is not None:
        yield system.data.stage
    corpus = _corpus(system)
    base = system.data.part(f"models/{system.campaign.model.name}")
    trained = system.recipe.corpus.trained_languages(_target_languages(system.campaign))
    finetune = make_stage(
        "finetune",
        system.arguments,
        {
            **asdict(system.recipe.finetune),
            **_prompt(system.campaign),
            "base_name": system.campaign.model.name,
            "languages": trained,
        },
        {"base": base, "corpus": system.content(corpus), "data": system.data.named_audio()},
    )
    merge = make_stage("merge", system.arguments, {}, {"base": base, "finetune": system.content(finetune)})
    yield from (corpus, finetune, merge)
    quantization = list(_quantization(system, merge, corpus))
    yield from quantization
    yield from _evaluation(system, quantization[-1])


def _corpus(system: System) -> Stage:
    campaign, options = system.campaign, asdict(system.recipe.corpus.scaled())
    for name in ("languages", "scale", "quotas"):  # names in the prompt do not matter, the others are in the numbers
        del options[name]
    languages = _target_languages(campaign)
    return make_stage(
        "corpus",
        system.arguments,
        {
            **options,
            "trained_languages": sorted(system.recipe.corpus.trained_languages(languages)),
            "dev_languages": sorted(languages),
            "window_seconds": campaign.model.window_seconds,
        },
        {"data": _utterance_audio(system)},
    )


def _utterance_audio(system: System) -> Input:
    """Return the data folder as far as utterances are sampled from it: the training corpora and ACL 60/60 dev."""
    return system.data.whole([*(source.part for source in system.recipe.corpus.sources), DEV_FOLDER])


def _quantization(system: System, merge: Stage, corpus: Stage) -> Iterator[Stage]:
    """Yield sensitivity, awq, calibrate and allocate where the system has them, packing, and recovery if it has it."""
    quantize, inputs = system.recipe.quantize, {"merge": system.content(merge)}
    utterances = {"corpus": system.content(corpus), "data": system.data.named_audio()}
    prompts = {**_prompt(system.campaign), "languages": _pair_languages(system.campaign)}
    packed = _packing_options(quantize)
    if has_step(system, "sensitivity"):
        assert quantize.ranked is not None
        swapped = {"role": quantize.ranked.role, "codec": quantize.ranked.codec.to_dict()}
        rules = {name: packed[name] for name in ("solver", "codecs")}
        options = {**rules, **swapped, **prompts, "dtype": system.recipe.decode.dtype}
        sensitivity = make_stage("sensitivity", system.arguments, options, inputs | utterances)
        yield sensitivity
        inputs["sensitivity"] = sensitivity.artifact
    if any(override.count == "fit" for override in quantize.overrides):
        packed["limit"] = system.campaign.size_limit_bytes
    if has_step(system, "awq"):
        assert quantize.awq is not None
        options = {**packed, "awq": asdict(quantize.awq), **prompts}
        awq = make_stage("awq", system.arguments, options, inputs | utterances)
        yield awq
        inputs["awq"] = awq.artifact
    if has_step(system, "calibrate"):
        assert quantize.moments is not None
        options = {"moments": asdict(quantize.moments), **prompts}
        calibrate = make_stage("calibrate", system.arguments, options, inputs | utterances)
        yield calibrate
        inputs["calibrate"] = calibrate.artifact
    if has_step(system, "allocate"):
        options = {**packed, "target_bytes": target_bytes(system)}
        allocate = make_stage("allocate", system.arguments, options, dict(inputs))
        yield allocate
        inputs["allocate"] = allocate.artifact
    pack = make_stage("quantize", system.arguments, packed, inputs)
    yield pack
    if has_step(system, "recover"):
        assert quantize.recovery is not None
        options = {"recovery": asdict(quantize.recovery), **prompts}
        tuned = {"quantize": pack.artifact, "merge": system.content(merge)}
        yield make_stage("recover", system.arguments, options, tuned | utterances)


def _packing_options(quantize: QuantizeOptions) -> dict[str, Any]:
    dropped = {"drop": list(quantize.drop)} if quantize.drop else {}
    return dropped | {
        "solver": quantize.solver,
        "codecs": {rule: codec.to_dict() for rule, codec in quantize.codecs.items()},
        "overrides": [asdict(override) | {"codec": override.codec.to_dict()} for override in quantize.overrides],
    }


def _evaluation(system: System, quantize: Stage) -> Iterator[Stage]:
    """Yield segmentation, decoding and scoring; segments are shared by pairs, recipes and models."""
    segments = {testset.name: _segmentation(system, testset) for testset in system.campaign.testsets}
    yield from segments.values()
    scores = []
    for pair, testset in system.pairs_and_testsets():
        part = f"{pair.name}/{testset}"
        inputs = {"model": quantize.artifact, "audio": system.data.part(testset_part(testset))}
        if testset in segments:
            inputs["segments"] = segments[testset].artifact
        options = {
            **asdict(system.recipe.decode),
            **_prompt(system.campaign),
            "target_language": pair.target_language,
        }
        decode = make_stage("decode", system.arguments, options, inputs, part)
        yield decode
        scores.append(_score(system, pair, testset, decode))
    yield from scores
    yield make_stage("score", system.arguments, {}, {stage.part: stage.artifact for stage in scores})


def _segmentation(system: System, testset: TestSet) -> Stage:
    """Return the segmentation of a test set; its options are those that the method reads."""
    recipe = system.recipe.segment
    options: dict[str, Any] = {
        "segmentation": testset.segmentation,
        "channels": testset.channels,
        "window_seconds": system.campaign.model.window_seconds,
    }
    inputs = {"audio": system.data.part(testset_part(testset.name))}
    if testset.segmentation != "given":
        options |= {name: value for name, value in asdict(recipe).items() if name in recipe.about.reads}
        if recipe.original_batching and recipe.about.needs_classifier:
            options["batch_size"] = recipe.batch_size  # otherwise it changes the speed, not the segments
        if recipe.about.needs_classifier:
            inputs["classifier"] = system.data.part(CLASSIFIER)
        if recipe.about.from_references:
            inputs["gold"] = system.data.part(reference_part(testset.name))
    return make_stage("segment", system.arguments, options, inputs, testset.name)


def _score(system: System, pair: Pair, testset: str, decode: Stage) -> Stage:
    """Return the scoring of one test set and pair, which every system with the same hypotheses shares."""
    gold = testset == OPEN_TESTSET
    options = {
        "testset": testset,
        "pair": pair.name,
        "target": pair.target,
        "gold": gold,
        "given": gold or system.campaign.testset(testset).segmentation == "given",
    }
    inputs = {
        "decode": decode.artifact,
        "references": system.data.part(reference_part(testset)),
        "audio": system.data.part(testset_part(testset)),
    }
    if options["given"] and not gold:
        inputs["segments"] = decode.inputs["segments"]
    return make_stage("score", system.arguments, options, inputs, decode.part)


def loss_stage(system: System) -> Stage:
    """Return the stage that measures the packed model's cross-entropy on the dev set, for the report."""
    inputs = {
        "model": system.model_stage().artifact,
        "checkpoint": system.content(system.stage("merge")),  # its processor is that of every model packed from it
        "corpus": system.content(system.stage("corpus")),
        "data": system.data.named_audio(),
    }
    options = {
        **_prompt(system.campaign),
        "languages": _target_languages(system.campaign),
        "pairs": {pair.name: pair.target for pair in system.campaign.pairs},
        "dtype": system.recipe.decode.dtype,
    }
    return make_stage("loss", system.arguments, options, inputs)


def comet_stage(system: System, folder: Path, digest: str, part: str = "") -> Stage:
    """Return the stage of COMET's figures of one <pair>/<NAME>, or of all of them together with those of score.

    folder, digest: of the checkpoint.
    """
    inputs = {"model": Input(digest=digest, path=folder)}
    if part:
        inputs["lines"] = system.stage("score", part).artifact
    else:
        parts = [f"{pair.name}/{name}" for pair, name in system.pairs_and_testsets()]
        inputs |= {part: comet_stage(system, folder, digest, part).artifact for part in parts}
        inputs["score"] = system.stage("score").artifact
    return make_stage("comet", system.arguments, {"model_sha256": digest}, inputs, part)


def _prompt(campaign: Campaign) -> dict[str, str]:
    return {"prompt": campaign.prompt, "end_token": campaign.model.end_token}


def _target_languages(campaign: Campaign) -> dict[str, str]:
    """Return code -> name in the prompt of the campaign's target languages."""
    return {pair.target: pair.target_language for pair in campaign.pairs}


def _pair_languages(campaign: Campaign) -> dict[str, str]:
    """Return pair -> name of its target language in the prompt."""
    return {pair.name: pair.target_language for pair in campaign.pairs}
