"""Make the folder of a rehearsal: data folder, campaign and recipes at a size that the machine bears.

campaign.toml                    the shipped campaign with a limit that a narrow model misses as the real one does
primary.toml, contrastive.toml   the shipped recipes with fewer utterances and shorter outputs
data/                            the data folder, but for models/shas, which `segment convert` makes
published/                       what that reads: a SHAS checkpoint and its encoder
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from evaluate.rehearsal.published_data import CLIPS, SPEECH_LINES, SPEECHES, write_data
from evaluate.rehearsal.published_models import Width, base_config, write_base_model, write_classifier
from submission.model.families import read_config
from submission.model.forecast import companion_bytes, forecast
from submission.store.digests import write_text
from submission.system.campaign import FOLDER as CAMPAIGNS
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe

CAMPAIGN = "iwslt26"
RECIPES = ("primary", "contrastive")
FITTED_SHARE = 2
"""The limit is met when one layer in this many is stored at the coarser width."""
MAX_NEW_TOKENS = 24
"""Random weights never end a sentence, so every output has this many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A rehearsal's folder."""

    root: Path

    @property
    def campaign(self) -> Path:
        """The campaign file."""
        return self.root / "campaign.toml"

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.root / "data"

    @property
    def published(self) -> Path:
        """Where the classifier lies as it is published."""
        return self.root / "published"

    def recipe(self, name: str) -> Path:
        """Return the file of a recipe."""
        return self.root / f"{name}.toml"


def make_workspace(root: Path, width: Width, layers: int, vocabulary: Path) -> tuple[str, ...]:
    """Fill a folder; return the arguments of `python -m segment` that convert the classifier."""
    place = Workspace(root=root)
    campaign = read_campaign(CAMPAIGN)
    model = campaign.model.name
    config = base_config(model, width, layers)
    languages = {pair.target_language: pair.target for pair in campaign.pairs}
    write_base_model(place.data / "models" / model, config, width, vocabulary, languages)
    checkpoint, encoder = write_classifier(place.published, width)
    write_data(place.data)
    write_text(place.campaign, _campaign_text(place.data / "models" / model, layers))
    for name in RECIPES:
        write_text(place.recipe(name), _recipe_text(name))
    out = place.data / "models/shas"
    return ("convert", str(checkpoint), "--wav2vec2", str(encoder), "--out", str(out))


def _campaign_text(model: Path, layers: int) -> str:
    """Return the shipped campaign file with another limit, which groups of 128 alone miss."""
    config, codings = read_config(model), read_recipe(RECIPES[1], CAMPAIGN).quantize
    other_bytes = companion_bytes(model)
    limit = forecast(config, codings.codecs, other_bytes=other_bytes).total_bytes
    coarser = [forecast(config, codings.codecs, codings.overrides, limit_bytes=limit - 1, other_bytes=other_bytes)]
    for _ in range(1, max(1, layers // FITTED_SHARE)):
        limit = coarser[-1].total_bytes
        coarser.append(
            forecast(config, codings.codecs, codings.overrides, limit_bytes=limit - 1, other_bytes=other_bytes)
        )
    text = (CAMPAIGNS / f"{CAMPAIGN}.toml").read_text(encoding="utf-8")
    return re.sub(r'(?m)^size_limit = ".*"$', f'size_limit = "{coarser[-1].total_bytes} B"', text)


def _recipe_text(name: str) -> str:
    """Return a recipe that differs from the shipped one in the amount of data and the length of outputs."""
    spoken = SPEECHES * SPEECH_LINES
    return f"""extends = "{name}"
description = "The shipped recipe {name} on the data of a rehearsal"

[upload]
team = "REHEARSAL"

[corpus]
sources = [
    {{ name = "covost2", format = "covost2" }},
    {{ name = "europarl-st", format = "europarl-st", utterances = {{ de = {spoken} }} }},
]
utterances = {{ de = {spoken + CLIPS // 2}, zh = {CLIPS // 2} }}

[finetune]
log_every_steps = 2
save_every_steps = 6
bleu_utterances = 1

[decode]
max_new_tokens = {MAX_NEW_TOKENS}
"""
