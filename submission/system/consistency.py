"""Checks of campaign and recipe together: what each allows by itself and both together do not."""

from __future__ import annotations

from submission.errors import UnavailableError, UserError
from submission.model.families import FAMILIES, droppable_parts
from submission.model.families.family import Family
from submission.model.forecast import EVERY, LINEARS
from submission.model.solvers import SOLVERS
from submission.system.campaign import Campaign
from submission.system.data_folder import OPEN_FOLDER
from submission.system.recipe.quantize_options import LIMIT, QuantizeOptions
from submission.system.recipe.recipe import Recipe
from submission.system.schema import nearest


def check_together(campaign: Campaign, recipe: Recipe) -> None:
    """Raise UserError for a recipe that contradicts the campaign."""
    _check_corpus(campaign, recipe, f"recipe {recipe.name}")
    if recipe.segment.max_seconds > campaign.model.window_seconds:
        what = f"{recipe.segment.max_seconds} s is over the model's window of {campaign.model.window_seconds} s"
        fix = "write less, so that no speech is truncated"
        raise UserError(f"recipe {recipe.name}: segment.max_seconds", what, fix)
    if campaign.model.architecture not in FAMILIES:
        fix = nearest(campaign.model.architecture, FAMILIES)
        raise UserError(f"campaign {campaign.name}: model.architecture", "unknown", fix)
    _check_roles(campaign, recipe, f"recipe {recipe.name}")
    _check_budgets(recipe.quantize, f"recipe {recipe.name}: quantize")
    _check_limit(campaign, recipe.quantize, f"recipe {recipe.name}: quantize")
    pairs = {pair.name for pair in campaign.pairs}
    quantize = recipe.quantize
    if quantize.recovery is not None and not quantize.codecs:
        what = "nothing is packed, so there is nothing to recover"
        raise UserError(f"recipe {recipe.name}: quantize.recovery", what, "leave it out, or write [quantize.codecs]")
    options = (("awq", quantize.awq), ("moments", quantize.moments), ("recovery", quantize.recovery))
    for name, calibration in options:
        if calibration is not None and (unknown := sorted(set(calibration.pairs) - pairs)):
            what = f"the campaign has no pair {unknown[0]!r}"
            raise UserError(f"recipe {recipe.name}: quantize.{name}.pairs", what, nearest(unknown[0], pairs))


def _check_limit(campaign: Campaign, quantize: QuantizeOptions, where: str) -> None:
    """Raise UnavailableError where a recipe is fitted to a limit that the campaign does not state."""
    if campaign.size_limit is not None:
        return
    what = f"needs a size limit, and campaign {campaign.name} states none"
    if any(override.count == "fit" for override in quantize.overrides):
        raise UnavailableError(f"{where}.overrides: count", f'"fit" {what}', "write a number of layers")
    if quantize.target == LIMIT:
        raise UnavailableError(f"{where}.target", f"{LIMIT!r} {what}", "write a size, `3.5 GB`")


def _check_budgets(quantize: QuantizeOptions, where: str) -> None:
    """Raise UserError where target, moments and the codecs that take a budget contradict each other."""
    budgeted = [f"codecs.{role}" for role, codec in quantize.codecs.items() if codec.takes_budget]
    budgeted += [f"overrides: {override.role}" for override in quantize.overrides if override.codec.takes_budget]
    if quantize.moments is not None and "moments" not in SOLVERS[quantize.solver].side_data:
        what = f"solver {quantize.solver!r} does not read them"
        readers = [name for name, solver in SOLVERS.items() if "moments" in solver.side_data]
        raise UserError(f"{where}.moments", what, f"leave them out, or choose {' or '.join(readers) or 'another'}")
    if not budgeted:
        if quantize.target is not None:
            what = "no codec takes a budget of bytes, so nothing depends on it"
            raise UserError(f"{where}.target", what, "leave it out, or choose a codec with budgets (entropy)")
        return
    if quantize.target is None:
        what = f"missing, and {budgeted[0]} takes a budget of bytes"
        raise UserError(f"{where}.target", what, 'write target = "limit", or a size, "4 GB"')
    if quantize.awq is not None:
        what = f"its scales are searched for codecs of a fixed size, and {budgeted[0]} takes a budget of bytes"
        raise UserError(f"{where}.awq", what, "leave awq out; moments do its work")
    for override in quantize.overrides:
        if override.count == "fit" or override.layers == "sensitivity":
            what = f"layers of {override.role} are chosen by size or loss, and the target decides both"
            raise UserError(f"{where}.overrides", what, "leave the override out, or list its layers")


def _check_corpus(campaign: Campaign, recipe: Recipe, where: str) -> None:
    if missing := {pair.target for pair in campaign.pairs} - recipe.corpus.utterances.keys():
        fix = "give a number per target language, 0 for all"
        raise UserError(f"{where}: corpus.utterances", f"has no entry for {sorted(missing)}", fix)
    for source in recipe.corpus.sources:
        if f"{source.part}/".startswith((f"{OPEN_FOLDER}/", "testsets/", "references/")):
            what = f"{source.part} holds what the system is tested on"
            raise UserError(f"{where}: corpus.sources: {source.name}", what, "train on something else")
    if recipe.upload.condition == "constrained" and any(not s.is_acl6060 for s in recipe.corpus.sources):
        what = "constrained means ACL 60/60 alone, and corpus.sources names others"
        raise UserError(f"{where}: upload.condition", what, 'write condition = "unconstrained"')


def _check_roles(campaign: Campaign, recipe: Recipe, where: str) -> None:
    family = FAMILIES[campaign.model.architecture]
    prefixes = _prefixes(family)
    elsewhere = set().union(*(_prefixes(other) for other in FAMILIES.values()))
    named = {
        "finetune.roles": recipe.finetune.roles,
        "quantize.codecs": tuple(k for k in recipe.quantize.codecs if k not in (EVERY, LINEARS)),
        "quantize.overrides": tuple(o.role for o in recipe.quantize.overrides),
    }
    for key, names in named.items():
        for name in names:
            if name not in prefixes and name in elsewhere:
                what = f"the family {family.name} has no role {name!r}"
                raise UnavailableError(f"{where}: {key}", what, nearest(name, prefixes))
            if name not in prefixes:
                raise UserError(f"{where}: {key}", f"unknown role {name!r}", nearest(name, prefixes))
    for part in recipe.quantize.drop:
        if part not in droppable_parts(family):
            what = f"a model of the family {family.name} cannot do without {part!r}"
            raise UnavailableError(f"{where}: quantize.drop", what, "leave it out")


def _prefixes(family: Family) -> set[str]:
    """Return the roles of a family and their prefixes: `mlp.up`, `mlp`."""
    return {role[:end] for role in family.roles for end, c in enumerate(role + ".") if c == "."}
