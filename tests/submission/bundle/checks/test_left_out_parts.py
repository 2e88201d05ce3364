"""A model for speech may leave out what its family lets it: `verify` takes it for the base without these tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from submission.bundle.checks import verify
from submission.bundle.checks.report import head
from submission.model.checkpoint import config_text, packed_config
from submission.model.codecs import Affine
from submission.model.families import FAMILIES, read_config
from submission.model.forecast import resolve_codecs
from submission.store.digests import canonical_json
from submission.system.campaign import read_campaign
from submission.system.data_folder import shipped_models

CAMPAIGN = "miniature-gemma4"
BASE = read_config(shipped_models(read_campaign(CAMPAIGN))["base"])


def model_alone(folder: Path, **changes: Any) -> Path:
    """Write the configuration of a packed model with some sections changed, as the only file of a bundle."""
    config = BASE | changes
    codecs = resolve_codecs(config, {"*": Affine(bits=4, group_size=64)})
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(config_text(packed_config(config, codecs)), encoding="utf-8")
    (folder / "campaign.json").write_text(canonical_json({"name": CAMPAIGN}), encoding="utf-8")
    return folder


def of_configuration(bundle: Path) -> dict[str, str]:
    """Return code -> what is found of the configuration."""
    return {f.code: f.what for f in verify(bundle, CAMPAIGN) if f.code.startswith("CFG")}


def test_a_model_without_its_vision_embedder_is_the_base_without_these_tensors(tmp_path):
    bundle = model_alone(tmp_path / "bundle", vision_config=None)
    assert of_configuration(bundle) == {}
    roles = ", ".join(FAMILIES["gemma4_unified"].droppable_roles)
    assert f"without the tensors of {roles}; the base model" in head(bundle, CAMPAIGN)["parameters"]


def test_a_whole_model_leaves_nothing_out(tmp_path):
    bundle = model_alone(tmp_path / "bundle")
    assert of_configuration(bundle) == {} and "without" not in head(bundle, CAMPAIGN)["parameters"]


@pytest.mark.parametrize("vision", [BASE["vision_config"], None], ids=["whole", "without vision"])
def test_a_pruned_decoder_is_worth_a_warning_with_or_without_the_embedder(tmp_path, vision):
    text = BASE["text_config"] | {"intermediate_size": BASE["text_config"]["intermediate_size"] // 2}
    found = of_configuration(model_alone(tmp_path / "bundle", vision_config=vision, text_config=text))
    assert found.keys() == {"CFG05"} and "intermediate_size" in found["CFG05"]


def test_a_smaller_vision_embedder_is_not_left_out(tmp_path):
    vision = BASE["vision_config"] | {"mm_posemb_size": 2}
    assert of_configuration(model_alone(tmp_path / "bundle", vision_config=vision)).keys() == {"CFG05"}
