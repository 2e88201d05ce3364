"""What a system's model is known to weigh before it is built: its configuration, its other files, its target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from submission.errors import UserError
from submission.model.families import read_config, shipped_config, without_parts
from submission.model.forecast import companion_bytes, forecast
from submission.system.data_folder import shipped_models
from submission.system.recipe.quantize_options import AS_PRIMARY, LIMIT, parse_target
from submission.system.recipe.recipe_files import read_recipe

if TYPE_CHECKING:
    from submission.system.system import System

WHERE = "quantize.target"
PRIMARY = "primary"
"""The recipe that `as primary` names."""


def base_model(system: System) -> tuple[dict[str, Any], int] | None:
    """Return the configuration of the base model and `companion_bytes` of it; None where it is unknown.

    Until the base model is there, the shipped copy of its configuration serves; its tokenizer then counts 0.
    """
    model = system.campaign.model.name
    folder = (
        shipped_models(system.campaign)["base"]
        if system.makes_data
        else system.given_data and system.given_data / "models" / model
    )
    if folder is not None and (folder / "config.json").is_file():
        return read_config(folder), companion_bytes(folder)
    shipped = shipped_config(model)
    return None if shipped is None else (shipped, 0)


def chooses_layers(system: System) -> bool:
    """Return whether an override chooses layers by their sensitivity.

    One with `count = "fit"` chooses none where the model meets the limit as it is: then there is nothing to rank. Where
    the bytes of the base model's own files are not known yet, it may choose some.
    """
    quantize = system.recipe.quantize
    if quantize.ranked is None or quantize.ranked.count != "fit":
        return quantize.ranked is not None
    known = base_model(system)
    if known is None or not known[1]:
        return True
    config, other_bytes = without_parts(known[0], quantize.drop), known[1]
    rest = [override for override in quantize.overrides if override.count != "fit"]
    expected = forecast(config, quantize.codecs, rest, other_bytes=other_bytes)
    return not system.campaign.meets_limit(expected.total_bytes)


def target_bytes(system: System) -> int | None:
    """Return what the model folder may weigh by the recipe's target; None for a recipe without one.

    Raises UserError where the target depends on a recipe or a model that cannot be read.
    """
    target = system.recipe.quantize.target
    if target is None:
        return None
    if target == LIMIT:
        return system.campaign.size_limit_bytes
    if target == AS_PRIMARY:
        return _primary_bytes(system)
    return parse_target(target)


def _primary_bytes(system: System) -> int:
    """Return what the recipe `primary` weighs on the same campaign and base model."""
    primary = read_recipe(PRIMARY, system.campaign.name).quantize
    if primary.target is not None:
        what = f"{AS_PRIMARY!r}, and the recipe {PRIMARY} has a target itself, {primary.target!r}"
        raise UserError(WHERE, what, "write that target")
    known = base_model(system)
    if known is None:
        what = f"{AS_PRIMARY!r}, and no configuration of {system.campaign.model.name} is here"
        raise UserError(WHERE, what, "name the data folder with --data, or write a size")
    config, other_bytes = without_parts(known[0], primary.drop), known[1]
    limit = system.campaign.size_limit_bytes
    if limit is None and any(override.count == "fit" for override in primary.overrides):
        what = f"{AS_PRIMARY!r}: {PRIMARY} is fitted to a limit, and campaign {system.campaign.name} states none"
        raise UserError(WHERE, what, "write a size")
    return forecast(config, primary.codecs, primary.overrides, limit_bytes=limit, other_bytes=other_bytes).total_bytes
