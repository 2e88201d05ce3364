"""Derive the description that goes with every upload: the server's model name, size, parameters, techniques, data.

Every word is derived: sizes from the files, parameters and techniques from the packed model's configuration, the
rest from campaign and recipe. `verify` derives the same fields again from a bundle and compares. What was measured of
its speed and memory is in `efficiency.json`, and optional.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from submission.bundle.efficiency import EfficiencyRecord, efficiency_lines
from submission.counting import counted
from submission.model.checkpoint import parse_quantization
from submission.model.families import stored_dtype, tensors
from submission.model.families.tensors import TensorSpec
from submission.model.forecast import role_matches
from submission.model.sizes import size_text
from submission.model.solvers import technique_of
from submission.system.campaign import Campaign
from submission.system.recipe.recipe import Recipe

MODEL_NAME = "Model name"
SIZE = "Storage size"
PARAMETERS = "Number of parameters"
TECHNIQUES = "Compression techniques"
DATA_SETS = "Data sets"
BASE_MODEL = "Base model"
CONDITION = "Condition"
EFFICIENCY = "Efficiency"
DEV_SET = "ACL 60/60 dev"
"""The set that layers are ranked and scales calibrated on."""
MANDATORY = (MODEL_NAME, SIZE, PARAMETERS, TECHNIQUES, DATA_SETS)
"""Fields that the evaluation server requires of every model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the description says about a packed model, for every pair."""

    size_bytes: int
    """Every file of the model folder."""
    parameters: int
    """Weights of the base model, however they are stored."""
    techniques: tuple[str, ...]
    data_sets: tuple[str, ...]
    names: dict[str, str]
    """Pair -> model name on the evaluation server."""


def model_name(campaign: Campaign, recipe: Recipe, pair: str) -> str:
    """Return the model's name on the evaluation server."""
    upload = recipe.upload
    return campaign.naming.format(team=upload.team, pair=pair, condition=upload.condition, kind=upload.kind)


def derive_facts(config: Mapping[str, Any], size_bytes: int, campaign: Campaign, recipe: Recipe) -> Facts:
    """Return the facts about the packed model with this `config.json` and this many bytes on disk.

    Raises UserError for a configuration that no architecture reads.
    """
    specs = tensors(dict(config))
    return Facts(
        size_bytes=size_bytes,
        parameters=_parameters(specs),
        techniques=(
            *_quantization(config, specs, recipe),
            *_choice(config, specs, recipe),
            *_scaling(recipe),
            *_weighing(recipe),
            *_recovery(recipe),
            *_left_out(recipe),
            _fine_tuning(recipe),
        ),
        data_sets=_data_sets(config, specs, recipe),
        names={pair.name: model_name(campaign, recipe, pair.name) for pair in campaign.pairs},
    )


def parameter_count(config: Mapping[str, Any]) -> int:
    """Return the number of parameters of a model, however they are stored; UserError for one of no architecture."""
    return _parameters(tensors(dict(config)))


def _parameters(specs: list[TensorSpec]) -> int:
    return sum(math.prod(spec.shape) for spec in specs)


def _quantization(config: Mapping[str, Any], specs: list[TensorSpec], recipe: Recipe) -> list[str]:
    """Return a line for each technique, and for what is kept: what it stores and how many parameters these are."""
    codecs = parse_quantization(config["quantization_config"])
    names: dict[str, set[str]] = {}
    for codec in sorted(set(codecs.values()), key=lambda c: c.name):
        # Codecs that differ by their budgets alone share a technique.
        names.setdefault(technique_of(codec, recipe.quantize.solver), set()).add(codec.name)
    technique_by_codec = {name: technique for technique, alike in names.items() for name in alike}
    stored_by: dict[str, list[TensorSpec]] = {}
    for spec in specs:
        if spec.name in codecs:
            stored_by.setdefault(technique_by_codec[codecs[spec.name].name], []).append(spec)
    everywhere = _layers_of_roles([spec for spec in specs if spec.packable])
    lines = []
    for technique in names:
        stored = stored_by.get(technique, [])
        lines.append(f"{technique}: {_counts(stored)} ({_places(stored, everywhere)})")
    kept = [spec for spec in specs if spec.name not in codecs]
    roles = sorted({"biases" if spec.name.endswith(".bias") else spec.role for spec in kept})
    return [*lines, f"kept in {stored_dtype(dict(config))}: {_counts(kept)} ({', '.join(roles)})"]


def _choice(config: Mapping[str, Any], specs: list[TensorSpec], recipe: Recipe) -> list[str]:
    """Return how layers were chosen, where that took data and any were."""
    ranked = recipe.quantize.ranked
    if ranked is None or not _ranked_layers(config, specs, recipe):
        return []
    how = f"by the change of cross-entropy on {DEV_SET} that each by itself makes"
    return [f"layers whose {ranked.role} is stored as {ranked.codec.name} chosen {how}"]


def _ranked_layers(config: Mapping[str, Any], specs: list[TensorSpec], recipe: Recipe) -> bool:
    """Return whether a ranking of layers decided about any weight of the packed model."""
    ranked, codecs = recipe.quantize.ranked, parse_quantization(config["quantization_config"])
    return ranked is not None and any(
        role_matches(spec.role, ranked.role) and spec.name in codecs and codecs[spec.name].name == ranked.codec.name
        for spec in specs
    )


def _scaling(recipe: Recipe) -> list[str]:
    """Return what AWQ was calibrated on, where it was used."""
    awq = recipe.quantize.awq
    if awq is None:
        return []
    size = f"{awq.utterances} utterances" if awq.utterances else "all utterances"
    read = "source and target" if awq.targets else "source"
    return [f"AWQ scales folded into the weights, calibrated on {DEV_SET}: {size}, {read} ({', '.join(awq.pairs)})"]


def _weighing(recipe: Recipe) -> list[str]:
    """Return what errors were weighed by, where second moments were measured."""
    moments = recipe.quantize.moments
    if moments is None:
        return []
    named = "training data" if moments.source == "train" else DEV_SET
    size = f"{moments.utterances} utterances" if moments.utterances else "all utterances"
    traced = "all" if moments.gradient_utterances == moments.utterances else str(moments.gradient_utterances)
    gradients = f", gradients on {traced} of them" if moments.fisher else ""
    read = f"{size}, source and target ({', '.join(moments.pairs)}){gradients}"
    return [f"quantization errors weighed by second moments, calibrated on {named}: {read}"]


def _recovery(recipe: Recipe) -> list[str]:
    """Return what was tuned after packing and on what, where that was done."""
    recovery = recipe.quantize.recovery
    if recovery is None:
        return []
    size = f"{recovery.utterances} utterances" if recovery.utterances else "all utterances"
    rate = f"learning rate {recovery.learning_rate:g} times the root of the divergence at the start"
    how = f"{recovery.steps} steps of {recovery.batch_size} utterances, {rate}"
    return [
        "scales, zero-points, norms and biases tuned after quantization, codes fixed, by Kullback-Leibler divergence "
        f"to the fine-tuned model: {how}; training data, {size}, an eighth held out, source and every target "
        f"({', '.join(recovery.pairs)})"
    ]


def _left_out(recipe: Recipe) -> list[str]:
    """Return which parts of the base model are not there, where some are left out."""
    parts = recipe.quantize.drop
    return [f"parts of the base model that speech does not need left out: {', '.join(parts)}"] if parts else []


def _counts(specs: list[TensorSpec]) -> str:
    return f"{len(specs)} tensor{'s' if len(specs) > 1 else ''}, {_parameters(specs):,} parameters"


def _places(stored: list[TensorSpec], everywhere: dict[str, set[int | None]]) -> str:
    """Return the roles of what is stored, with the layers where these are not all: `attn, mlp.up in layers 4, 21`."""
    places: dict[str, list[str]] = {}
    for role, layers in _layers_of_roles(stored).items():
        missing = everywhere[role] - layers
        numbers = _ranges([layer for layer in layers if layer is not None])
        places.setdefault(f" in layers {numbers}" if missing else "", []).append(role)
    return "; ".join(
        f"{', '.join(_families(roles, set(everywhere)))}{where}" for where, roles in sorted(places.items())
    )


def _layers_of_roles(specs: list[TensorSpec]) -> dict[str, set[int | None]]:
    layers: dict[str, set[int | None]] = {}
    for spec in specs:
        layers.setdefault(spec.role, set()).add(spec.layer)
    return layers


def _ranges(numbers: list[int]) -> str:
    """Return numbers as people write them: `0-14, 17, 19-31`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _families(roles: list[str], every: set[str]) -> list[str]:
    """Return roles with `mlp` for `mlp.down, mlp.gate, mlp.up` where none of a family is missing."""
    families = {role: {r for r in every if r.rpartition(".")[0] == role.rpartition(".")[0]} for role in roles}
    return sorted({role.rpartition(".")[0] if "." in role and families[role] <= set(roles) else role for role in roles})


def _fine_tuning(recipe: Recipe) -> str:
    options = recipe.finetune
    return (
        f"LoRA fine-tuning before quantization, merged into the weights: rank {options.rank}, alpha {options.alpha}, "
        f"learning rate {options.learning_rate:g}, {counted(options.epochs, 'epoch')}, of {', '.join(options.roles)}"
    )


def _data_sets(config: Mapping[str, Any], specs: list[TensorSpec], recipe: Recipe) -> tuple[str, ...]:
    """Return every data set that supported the compression, with what it was used for."""
    uses = {source.name: ["training"] for source in sorted(recipe.corpus.sources, key=lambda source: source.name)}
    measured = []
    if _ranked_layers(config, specs, recipe):
        measured.append("ranking of layers")
    if recipe.quantize.awq is not None:
        measured.append("calibration of AWQ")
    moments = recipe.quantize.moments
    if moments is not None and moments.source == "train":
        for use in uses.values():
            use.append("second moments")
    elif moments is not None:
        measured.append("second moments")
    if recipe.quantize.recovery is not None:
        for use in uses.values():
            use.append("recovery")
    if measured:
        uses[DEV_SET] = measured
    return tuple(f"{name} ({', '.join(use)})" for name, use in uses.items())


def description_fields(
    facts: Facts, campaign: Campaign, recipe: Recipe, pair: str, efficiency: EfficiencyRecord | None
) -> dict[str, tuple[str, ...]]:
    """Return label -> lines of the description of a pair, in the order in which it is shown.

    efficiency: as measured on some machine; None, and no field, where it was not.
    """
    measured = {} if efficiency is None else {EFFICIENCY: efficiency_lines(efficiency)}
    return {
        MODEL_NAME: (facts.names[pair],),
        SIZE: (size_text(facts.size_bytes),),
        PARAMETERS: (f"{facts.parameters:,}",),
        TECHNIQUES: facts.techniques,
        DATA_SETS: facts.data_sets,
        BASE_MODEL: (f"{campaign.model.name} ({campaign.model.hub})",),
        CONDITION: (recipe.upload.condition,),
        **measured,
    }


def render_description(fields: Mapping[str, tuple[str, ...]]) -> str:
    """Return the text to paste: a label and its value on a line, or its values below it."""
    lines = []
    for label, values in fields.items():
        if label in (TECHNIQUES, DATA_SETS, EFFICIENCY):
            lines += [f"{label}:", *(f"- {value}" for value in values)]
        else:
            lines.append(f"{label}: {' '.join(values)}")
    return "\n".join(lines) + "\n"


def parse_description(text: str) -> dict[str, tuple[str, ...]]:
    """Return label -> lines of a text that `render_description` wrote; what else stands there is left out."""
    fields: dict[str, list[str]] = {}
    label = None
    for line in text.split("\n"):
        if match := re.fullmatch(r"([A-Z][A-Za-z ]{0,40}):(.*)", line):
            label = match[1]
            value = match[2].strip()
            fields[label] = [value] if value else []
        elif label and line.startswith("- "):
            fields[label].append(line[2:].strip())
    return {label: tuple(values) for label, values in fields.items()}
