"""Checks of campaign and recipe together: what each allows by itself and both together do not."""

from __future__ import annotations

from submission.errors import UserError
from submission.model.families import FAMILIES
from submission.model.forecast import EVERY, LINEARS
from submission.system.campaign import Campaign
from submission.system.data_folder import OPEN_FOLDER
from submission.system.recipe import Recipe
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
    pairs = {pair.name for pair in campaign.pairs}
    if recipe.quantize.awq is not None and (unknown := sorted(set(recipe.quantize.awq.pairs) - pairs)):
        what = f"the campaign has no pair {unknown[0]!r}"
        raise UserError(f"recipe {recipe.name}: quantize.awq.pairs", what, nearest(unknown[0], pairs))


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
    roles = FAMILIES[campaign.model.architecture].roles
    prefixes = {role[:end] for role in roles for end, c in enumerate(role + ".") if c == "."}
    named = {
        "finetune.roles": recipe.finetune.roles,
        "quantize.codecs": tuple(k for k in recipe.quantize.codecs if k not in (EVERY, LINEARS)),
        "quantize.overrides": tuple(o.role for o in recipe.quantize.overrides),
    }
    for key, names in named.items():
        for name in names:
            if name not in prefixes:
                raise UserError(f"{where}: {key}", f"unknown role {name!r}", nearest(name, prefixes))
