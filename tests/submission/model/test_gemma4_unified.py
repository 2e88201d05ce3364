"""The shapes of Gemma 4 Unified: against the library's own class, and what is refused of a configuration."""

from __future__ import annotations

import argparse
import copy
import json
import math
from typing import Any

import pytest

from submission.cli import open_systems
from submission.errors import UnavailableError, UserError
from submission.model.families import family_of, shipped_config, tensors
from submission.model.moments_size import input_keys
from submission.system.campaign import read_campaign
from submission.system.consistency import check_together
from submission.system.recipe.recipe_files import read_recipe

PUBLISHED = "gemma-4-12B-it"
SMALL: dict[str, Any] = {
    "model_type": "gemma4_unified",
    "dtype": "bfloat16",
    "audio_config": {"audio_embed_dim": 80},
    "vision_config": {"patch_size": 4, "pooling_kernel_size": 2, "mm_embed_dim": 48, "mm_posemb_size": 8},
    "text_config": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_global_key_value_heads": 1,
        "head_dim": 16,
        "global_head_dim": 32,
        "attention_k_eq_v": True,
        "vocab_size": 300,
    },
}


def changed(section: str, **values: Any) -> dict[str, Any]:
    config = copy.deepcopy(SMALL)
    config[section] = config[section] | values
    return config


def library_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of the library's own model, which is made without memory for its weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        made = transformers.Gemma4UnifiedConfig.from_dict(config)
        model = transformers.Gemma4UnifiedForConditionalGeneration(made)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


CONFIGS = {
    "small": SMALL,
    PUBLISHED: shipped_config(PUBLISHED),
    "speech alone": SMALL | {"vision_config": None},
    "values of their own": changed("text_config", attention_k_eq_v=False),
    "silent": {"model_type": "gemma4_unified", "text_config": {}, "audio_config": {}, "vision_config": {}},
    "four of the published layers": family_of(shipped_config(PUBLISHED)).with_layers(shipped_config(PUBLISHED), 4),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_arithmetic_gives_every_tensor_of_the_librarys_model_and_the_tied_head_once(config):
    family, shapes = family_of(config), library_shapes(config)
    tied = family.tied_weights(config)
    specs = tensors(config)
    assert tied.keys() <= shapes.keys() and set(tied.values()) <= {spec.name for spec in specs}
    assert {family.module_name(s.name): s.shape for s in specs} == {n: s for n, s in shapes.items() if n not in tied}
    assert {family.hub_name(name) for name in shapes} == {spec.name for spec in specs} | tied.keys()
    assert all(family.hub_name(spec.name) == spec.name for spec in specs)


def test_the_published_model_has_its_published_size():
    parameters = sum(math.prod(spec.shape) for spec in tensors(shipped_config(PUBLISHED)))
    assert parameters == 11_959_730_224  # as the hub counts them


def test_a_configuration_that_the_library_saved_gives_the_same_tensors():
    transformers = pytest.importorskip("transformers")
    saved = json.loads(json.dumps(transformers.Gemma4UnifiedConfig.from_dict(SMALL).to_dict()))
    assert "per_layer_config" in saved["text_config"] and "global_head_dim" not in saved["text_config"]
    assert tensors(saved) == tensors(SMALL)
    family = family_of(SMALL)
    assert family.sizes(saved) == family.sizes(SMALL) and family.settings(saved) == family.settings(SMALL)
    assert list(family.config_shape(saved, "")) == []
    assert tensors(family.with_layers(saved, 2)) == tensors(family.with_layers(SMALL, 2))


def test_the_published_configuration_is_of_the_closed_description():
    config = shipped_config(PUBLISHED)
    assert list(family_of(config).config_shape(config, "")) == []
    with_code = config | {"auto_map": {"AutoModel": "other.Model"}}
    assert list(family_of(config).config_shape(with_code, "")) == ["auto_map: is no key of a file of its kind"]


def test_norms_scales_the_audios_linear_and_all_of_vision_are_kept_as_they_are():
    specs = tensors(SMALL)
    kept = {spec.role for spec in specs if not spec.packable}
    family = family_of(SMALL)
    assert kept == {"norm", "scale", "projector", *family.droppable_roles}
    assert {spec.role for spec in specs} == set(family.roles)
    assert {s.name for s in specs} - {s.name for s in tensors(SMALL | {"vision_config": None})} == {
        spec.name for spec in specs if spec.role in family.droppable_roles
    }


def test_layers_of_full_attention_have_their_own_shape_and_no_values():
    names = {spec.name: spec.shape for spec in tensors(SMALL)}
    prefix = "model.language_model.layers"
    assert names[f"{prefix}.5.self_attn.k_proj.weight"] == (32, 64)
    assert names[f"{prefix}.4.self_attn.k_proj.weight"] == (32, 64)
    assert names[f"{prefix}.5.self_attn.q_norm.weight"] == (32,)
    assert f"{prefix}.4.self_attn.v_proj.weight" in names and f"{prefix}.5.self_attn.v_proj.weight" not in names


@pytest.mark.parametrize(("layers", "kinds"), [(1, "f"), (2, "ff"), (3, "sff"), (7, "sssssff"), (9, "sssssff")])
def test_fewer_layers_keep_both_kinds_and_end_with_full_attention(layers, kinds):
    family = family_of(SMALL)
    assert family.settings(family.with_layers(SMALL, layers))["text_config.layer_types"] == kinds


@pytest.mark.parametrize("config", [SMALL, shipped_config(PUBLISHED)], ids=["small", PUBLISHED])
def test_a_factor_fits_everything_that_its_smoothing_group_names(config):
    shapes = {spec.name: spec for spec in tensors(config)}
    groups = family_of(config).smoothing_groups(config)
    for group in groups:
        channels = shapes[group.sources[0]].shape[0]
        assert all(shapes[name].shape[1] == channels and shapes[name].packable for name in group.targets), group.name
        assert all(shapes[name].layer == group.layer for name in group.targets), group.name
    for names in ([n for g in groups for n in g.sources], [n for g in groups for n in g.targets]):
        assert len(set(names)) == len(names)


def test_keys_that_serve_as_values_share_the_moments_of_queries_and_keys():
    keys = input_keys(SMALL)
    prefix = "model.language_model.layers"
    for layer, parts in ((0, "qkv"), (5, "qk")):
        of_layer = {
            name: key
            for name, key in keys.items()
            if name.startswith(f"{prefix}.{layer}.self_attn") and "o_proj" not in name
        }
        assert of_layer.keys() == {f"{prefix}.{layer}.self_attn.{part}_proj.weight" for part in parts}
        assert set(of_layer.values()) == {f"{prefix}.{layer}.self_attn.q_proj"}


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("text_config", {"num_kv_shared_layers": 2}, "num_kv_shared_layers"),
        ("text_config", {"attention_bias": True}, "attention_bias"),
        ("text_config", {"use_double_wide_mlp": True}, "use_double_wide_mlp"),
        ("text_config", {"enable_moe_block": True}, "enable_moe_block"),
        ("text_config", {"tie_word_embeddings": False}, "tied"),
        ("text_config", {"hidden_size": 0}, "hidden_size"),
        ("text_config", {"num_global_key_value_heads": 3}, "num_attention_heads"),
        ("text_config", {"layer_types": ["full_attention"]}, "layer_types"),
        ("text_config", {"layer_types": ["full_attention"] * 6 + ["sliding_attention"]}, "last layer"),
        ("text_config", {"per_layer_config": {"05": {"head_dim": 32}, "06": {"head_dim": 64}}}, "per_layer_config"),
        ("text_config", {"per_layer_config": {"01": {"head_dim": 32}}}, "per_layer_config"),
    ],
)
def test_a_variant_that_the_arithmetic_does_not_cover_is_refused_by_name(section, values, words):
    with pytest.raises(UserError, match=words):
        tensors(changed(section, **values))


@pytest.mark.parametrize(
    "recipe", ["finetuned", "contrastive", "primary", "ablation:g128", "ablation:random3", "frontier@4GB"]
)
def test_recipes_fit_the_campaign_of_the_model(recipe):
    campaign = read_campaign("iwslt27")
    chosen = read_recipe(recipe, "iwslt27")
    check_together(campaign, chosen)
    assert campaign.model.name == PUBLISHED and campaign.size_limit is None
    assert chosen.segment.max_seconds <= campaign.model.window_seconds


@pytest.mark.parametrize(
    ("recipe", "words"),
    [("ablation:head2", "the family gemma4_unified has no role 'lm_head'"), ("frontier@limit", "states none")],
)
def test_what_the_campaign_cannot_have_is_refused_by_name(recipe, words):
    with pytest.raises(UserError, match=words):
        check_together(read_campaign("iwslt27"), read_recipe(recipe, "iwslt27"))


def test_of_a_list_what_the_campaign_cannot_have_is_left_out_and_named(tmp_path, capsys):
    args = argparse.Namespace(campaign="miniature-gemma4", recipe="ablation", data=None, store=tmp_path)
    systems = [system.recipe.name for system, _ in open_systems(args)]
    assert "head2" not in systems and {"bf16", "emb2", "sensitive"} <= set(systems)
    assert "left out of ablation: recipe head2: quantize.codecs: the family" in capsys.readouterr().err


def test_a_list_that_is_wrong_for_every_campaign_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'extends = "finetuned"\n[[systems]]\nname = "one"\n[[systems]]\nname = "two"\n'
        'quantize.codecs.heads = { kind = "affine", bits = 4, group_size = 64 }\n',
        encoding="utf-8",
    )
    args = argparse.Namespace(campaign="miniature-gemma4", recipe=str(path), data=None, store=tmp_path)
    with pytest.raises(UserError, match="two: quantize.codecs: unknown role 'heads'"):
        open_systems(args)


def test_a_part_that_the_family_needs_is_refused_before_any_work(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "contrastive"\n[quantize]\ndrop = ["vision"]\n', encoding="utf-8")
    with pytest.raises(UnavailableError, match="of the family qwen2_audio cannot do without 'vision'"):
        check_together(read_campaign("miniature"), read_recipe(str(path), "miniature"))
