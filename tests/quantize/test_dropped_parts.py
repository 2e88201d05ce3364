"""A recipe leaves out what speech does without: the packed model lacks these tensors, and everything else says so."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from quantize.packing.pack import pack_checkpoint
from submission.bundle.checks import verify
from submission.bundle.description import derive_facts
from submission.errors import UserError
from submission.model.checkpoint import config_text, packed_config, read_checkpoint
from submission.model.codecs import Affine
from submission.model.families import family_of, read_config, shipped_config, tensors, without_parts
from submission.model.forecast import companion_bytes, companion_files, forecast, resolve_codecs
from submission.runtime.loading import load_model
from submission.store.digests import canonical_json
from submission.system.campaign import read_campaign
from submission.system.data_folder import shipped_models
from submission.system.recipe.recipe_files import read_recipe
from submission.system.system import System
from tests.support.tiny_gemma import write_gemma

CAMPAIGN = "miniature-gemma4"
RULES = {"*": Affine(bits=8, group_size=32)}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_gemma(tmp_path_factory.mktemp("gemma"))


def packed_with(base: Path, out: Path, drop: tuple[str, ...]) -> Path:
    out.mkdir()
    config = without_parts(read_config(base), drop)
    pack_checkpoint(base, out, resolve_codecs(config, RULES), solver="hqq", drop=drop)
    return out


def test_the_packed_model_lacks_the_part_and_computes_the_same(base, tmp_path):
    whole, alone = packed_with(base, tmp_path / "whole", ()), packed_with(base, tmp_path / "alone", ("vision",))
    gone = read_checkpoint(whole).located.keys() - read_checkpoint(alone).located.keys()
    family = family_of(read_config(base))
    assert gone == {s.name for s in tensors(read_config(base)) if s.role in family.droppable_roles} != set()
    ids = torch.arange(20, 40)[None]
    with torch.inference_mode():
        logits = [load_model(folder, "float32")[0](input_ids=ids).logits for folder in (whole, alone)]
    assert torch.equal(*logits)


def test_the_forecast_counts_what_is_left(base, tmp_path):
    alone = packed_with(base, tmp_path / "alone", ("vision",))
    other_bytes = sum(path.stat().st_size for path in companion_files(base))
    expected = forecast(without_parts(read_config(base), ["vision"]), RULES, other_bytes=other_bytes)
    assert sum(path.stat().st_size for path in alone.iterdir()) == expected.total_bytes


def test_the_published_model_gets_smaller_by_its_vision_embedder():
    config = shipped_config("gemma-4-12B-it")
    alone = without_parts(config, read_recipe("primary", "iwslt27").quantize.drop)
    counts = [sum(torch.Size(spec.shape).numel() for spec in tensors(c)) for c in (config, alone)]
    assert counts == [11_959_730_224, 11_909_807_920]


@pytest.mark.parametrize(
    ("model", "part", "said"),
    [
        ("gemma-4-12B-it", "audio", "choose among: vision"),
        ("gemma-4-12B-it", "vision.norm", "choose among: vision"),
        ("Qwen2-Audio-7B", "vision", "of the family qwen2_audio; leave it out of the recipe"),
    ],
)
def test_a_part_that_the_family_needs_is_refused_by_name(model, part, said):
    with pytest.raises(UserError, match=rf"{part}' cannot be left out.*{said}"):
        without_parts(shipped_config(model), [part])


def toml(folder: Path, drop: str) -> str:
    path = folder / "mine.toml"
    path.write_text(f'extends = "contrastive"\n[campaign.{CAMPAIGN}.quantize]\ndrop = {drop}\n', encoding="utf-8")
    return str(path)


def test_a_part_named_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="names a part twice"):
        read_recipe(toml(tmp_path, '["vision", "vision"]'), CAMPAIGN)


def test_leaving_nothing_out_keeps_the_keys_and_a_part_changes_packing_alone(tmp_path):
    campaign, stages = read_campaign(CAMPAIGN), []
    for drop in ("[]", '["vision"]'):
        recipe = read_recipe(toml(tmp_path, drop), CAMPAIGN)
        stages.append({s.name: s for s in System(campaign, recipe, None, tmp_path / "store").stages()})
    assert "drop" not in stages[0]["quantize"].options and stages[1]["quantize"].options["drop"] == ["vision"]
    assert stages[0]["merge"].key == stages[1]["merge"].key
    assert stages[0]["quantize"].key != stages[1]["quantize"].key


def test_the_description_says_what_is_left_out(tmp_path):
    campaign = read_campaign(CAMPAIGN)
    config = read_config(shipped_models(campaign)["base"])
    for drop, count in (("[]", 0), ('["vision"]', 1)):
        recipe = read_recipe(toml(tmp_path, drop), CAMPAIGN)
        left = without_parts(config, recipe.quantize.drop)
        facts = derive_facts(packed_config(left, resolve_codecs(left, RULES)), 1_000, campaign, recipe)
        assert sum("left out: vision" in technique for technique in facts.techniques) == count


@pytest.mark.parametrize(
    ("drop", "has", "said"),
    [
        ('["vision"]', True, "the recipe drops the base model's vision, and the model has it"),
        ("[]", False, "the model is without the base model's vision, and the recipe does not drop it"),
        ('["vision"]', False, None),
        ("[]", True, None),
    ],
)
def test_verify_holds_the_recipe_against_the_model(tmp_path, drop, has, said):
    recipe = read_recipe(toml(tmp_path, drop), CAMPAIGN)
    folder = shipped_models(read_campaign(CAMPAIGN))["base"]
    config = without_parts(read_config(folder), [] if has else ["vision"])
    quantize = recipe.quantize
    codecs = resolve_codecs(
        config, quantize.codecs, quantize.overrides, limit_bytes=1_700_000, other_bytes=companion_bytes(folder)
    )
    bundle = tmp_path / "bundle"
    (bundle / "model").mkdir(parents=True)
    (bundle / "model" / "config.json").write_text(config_text(packed_config(config, codecs)), encoding="utf-8")
    (bundle / "campaign.json").write_text(canonical_json({"name": CAMPAIGN}), encoding="utf-8")
    (bundle / "recipe.json").write_text(canonical_json(asdict(recipe)), encoding="utf-8")
    found = [f.what for f in verify(bundle, CAMPAIGN) if f.code == "CFG08"]
    assert found == ([] if said is None else [said])
