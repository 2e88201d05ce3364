"""The stage functions of quantization: ranking layers, calibrating, allotting bytes, packing, recovery."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submission.errors import UserError
from submission.store.store import StageFunction

if TYPE_CHECKING:
    from quantize.calibration.model_moments import MomentsFolder
    from quantize.solvers.bound import SideData
    from submission.model.codecs import Codec
    from submission.system.recipe.quantize_options import Override

Options = dict[str, Any]
Inputs = dict[str, Path]


def sensitivity(options: Options, inputs: Inputs, out: Path) -> None:
    """Write ranking.json and its picture: the change of loss when each layer in turn takes the coarser codec."""
    from quantize.ranking.sensitivity import analyse
    from submission.model.codecs import parse_codec
    from submission.system.recipe.quantize_options import Override, QuantizeOptions
    from submission.system.schema import parse_options

    ranked = Override(
        role=options["role"],
        layers="sensitivity",
        count=1,  # the ranking is that of all layers
        codec=parse_codec(options["codec"], "options of a stage: codec"),
    )
    rules = parse_options(QuantizeOptions, options)
    analyse(
        inputs["merge"],
        inputs["corpus"],
        inputs["data"],
        out,
        options=QuantizeOptions(solver=rules.solver, codecs=rules.codecs, overrides=(ranked,)),
        prompts=_prompts(options),
        end_token=options["end_token"],
        dtype=options["dtype"],
    )


def awq(options: Options, inputs: Inputs, out: Path) -> None:
    """Write the scales of channels that lower the error of what is packed, and a report."""
    import torch

    from quantize.calibration.awq import calibrate
    from submission.system.recipe.quantize_options import AwqOptions
    from submission.system.schema import parse_options

    calibrate(
        inputs["merge"],
        codecs_of(options, inputs),
        inputs["corpus"],
        inputs["data"],
        out,
        solver=options["solver"],
        options=parse_options(AwqOptions, options["awq"]),
        prompts=_prompts(options),
        end_token=options["end_token"],
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def calibrate(options: Options, inputs: Inputs, out: Path) -> None:
    """Write second moments of inputs and importances of rows, of every weight that can be packed."""
    from quantize.calibration.model_moments import calibrate as measure
    from submission.store.launch import assigned_device
    from submission.system.recipe.quantize_options import MomentsOptions
    from submission.system.schema import parse_options

    measure(
        inputs["merge"],
        inputs["corpus"],
        inputs["data"],
        out,
        options=parse_options(MomentsOptions, options["moments"]),
        prompts=_prompts(options),
        end_token=options["end_token"],
        device=assigned_device(),
    )


def allocate(options: Options, inputs: Inputs, out: Path) -> None:
    """Write budgets.json: the bytes of every weight whose codec takes a budget, within the target."""
    from quantize.packing.budgets import allot

    allot(
        inputs["merge"],
        codecs_of(options, inputs),
        out,
        target_bytes=options["target_bytes"],
        moments=_moments(inputs),
        drop=options.get("drop", ()),
    )


def pack(options: Options, inputs: Inputs, out: Path) -> None:
    """Write model/ (the packed model), a report and a picture.

    With a ranking among the inputs, it is drawn again with the chosen layers in another colour.
    """
    from quantize.calibration.folding import Folding
    from quantize.packing.pack import pack_system
    from quantize.ranking.chart import draw_ranking
    from submission.model.families import read_config
    from submission.model.ranking import RANKING
    from submission.system.recipe.quantize_options import QuantizeOptions
    from submission.system.schema import parse_options

    checkpoint, codecs = inputs["merge"], codecs_of(options, inputs)
    folding = Folding.read(inputs["awq"], read_config(checkpoint), codecs) if "awq" in inputs else None
    pack_system(checkpoint, out, codecs, options["solver"], folding, side_data(inputs), options.get("drop", ()))
    ranked = parse_options(QuantizeOptions, options).ranked
    if ranked is not None:
        ranking = json.loads((inputs["sensitivity"] / RANKING).read_text(encoding="utf-8"))
        draw_ranking(ranking, out, layers_with(codecs, ranked, read_config(checkpoint)))


def recover(options: Options, inputs: Inputs, out: Path) -> None:
    """Write model/, the packed model with scales, norms and biases tuned towards the original, and a report."""
    import torch

    from quantize.recovery.recover import recover_system
    from submission.system.recipe.quantize_options import RecoveryOptions
    from submission.system.schema import parse_options

    recover_system(
        inputs["merge"],
        inputs["quantize"] / "model",
        inputs["corpus"],
        inputs["data"],
        out,
        options=parse_options(RecoveryOptions, options["recovery"]),
        prompts=_prompts(options),
        end_token=options["end_token"],
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def _moments(inputs: Mapping[str, Path]) -> MomentsFolder | None:
    from quantize.calibration.model_moments import MomentsFolder

    return MomentsFolder(inputs["calibrate"]) if "calibrate" in inputs else None


def side_data(inputs: Mapping[str, Path]) -> SideData:
    """Return weight name -> what solvers take besides it: its moments, empty where nothing was measured."""
    from quantize.solvers.feedback import Moments

    folder = _moments(inputs)
    return lambda name: {"moments": Moments() if folder is None else folder.read(name)}


def codecs_of(options: Mapping[str, Any], inputs: Mapping[str, Path]) -> dict[str, Codec]:
    """Return the codec of every weight that is packed, by name, from the options and inputs of packing or AWQ.

    Codecs that take a budget have it where the inputs hold an allocation.
    """
    from submission.model.budgets import read_budgets
    from submission.model.families import read_config, without_parts
    from submission.model.forecast import companion_bytes, resolve_codecs
    from submission.model.ranking import read_order
    from submission.system.recipe.quantize_options import QuantizeOptions
    from submission.system.schema import parse_options

    quantize, checkpoint = parse_options(QuantizeOptions, _rules(options)), inputs["merge"]
    config = without_parts(read_config(checkpoint), options.get("drop", ()))
    codecs = resolve_codecs(
        config,
        quantize.codecs,
        quantize.overrides,
        limit_bytes=options.get("limit"),
        other_bytes=companion_bytes(checkpoint),
        ranking=read_order(inputs["sensitivity"]) if "sensitivity" in inputs else None,
        budgets=read_budgets(inputs["allocate"]) if "allocate" in inputs else None,
    )
    if quantize.ranked and "sensitivity" not in inputs and (chosen := layers_with(codecs, quantize.ranked, config)):
        what = f"{len(chosen)} layers are to be chosen by sensitivity, and none were ranked: the checkpoint's files"
        fix = "name the data folder of the base model whose tokenizer the checkpoint has"
        raise UserError(f"quantize.overrides: {quantize.ranked.role}", f"{what} weigh more than the base model's", fix)
    return codecs


def _rules(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("solver", "codecs", "overrides")}


def layers_with(codecs: Mapping[str, Codec], override: Override, config: dict[str, Any]) -> set[int]:
    """Return the layers in which the role of an override has its codec; codecs: by the name of the weight."""
    from submission.model.families import tensors
    from submission.model.forecast import role_matches

    return {
        spec.layer
        for spec in tensors(config)
        if spec.layer is not None and role_matches(spec.role, override.role) and codecs.get(spec.name) == override.codec
    }


def _prompts(options: Mapping[str, Any]) -> dict[str, str]:
    """Return pair -> what the model reads before the audio's translation."""
    from submission.runtime.prompt import render_prompt

    return {pair: render_prompt(options["prompt"], language) for pair, language in options["languages"].items()}


STAGES: dict[str, StageFunction] = {
    "sensitivity": sensitivity,
    "awq": awq,
    "calibrate": calibrate,
    "allocate": allocate,
    "quantize": pack,
    "recover": recover,
}
"""Stage -> the function that builds it."""
