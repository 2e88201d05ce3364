from __future__ import annotations

import math

import pytest

from submission.errors import UserError
from submission.model.families import family_of, read_config, shipped_config, stored_dtype, tensors
from submission.model.families.qwen2_audio import ROLES, hub_name, module_name, role_of

SMALL = {
    "model_type": "qwen2_audio",
    "audio_config": {
        "model_type": "qwen2_audio_encoder",
        "d_model": 64,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "num_mel_bins": 16,
        "max_source_positions": 30,
    },
    "text_config": {
        "model_type": "qwen2",
        "hidden_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 160,
        "vocab_size": 200,
    },
    "audio_token_index": 5,
    "dtype": "bfloat16",
}


def model_shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in the library's own model, which is made without memory for its weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.Qwen2AudioForConditionalGeneration(transformers.Qwen2AudioConfig.from_dict(config))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("config", [SMALL, shipped_config("Qwen2-Audio-7B")], ids=["small", "Qwen2-Audio-7B"])
def test_arithmetic_gives_the_tensors_of_the_librarys_model(config):
    shapes = model_shapes(config)
    specs = tensors(config)
    assert {module_name(spec.name): spec.shape for spec in specs} == shapes
    assert {hub_name(name) for name in shapes} == {spec.name for spec in specs}


def test_saved_checkpoints_carry_the_names_of_the_hub(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen2AudioConfig.from_dict(SMALL)
    transformers.Qwen2AudioForConditionalGeneration._from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path)
    from submission.model.checkpoint import read_checkpoint

    located = read_checkpoint(tmp_path).located
    assert {name: place.shape for name, place in located.items()} == {s.name: s.shape for s in tensors(SMALL)}


def test_a_silent_configuration_gets_the_librarys_defaults():
    bare = {"model_type": "qwen2_audio", "text_config": {"num_hidden_layers": 1}, "audio_config": {"encoder_layers": 1}}
    assert {module_name(spec.name): spec.shape for spec in tensors(bare)} == model_shapes(bare)


def test_the_competition_model_has_its_published_size():
    parameters = sum(math.prod(spec.shape) for spec in tensors(shipped_config("Qwen2-Audio-7B")))
    assert parameters == 8_397_094_912
    assert round(parameters * 2 / 2**30, 2) == 15.64


def test_every_linear_and_the_embedding_can_be_packed_and_nothing_else():
    specs = tensors(SMALL)
    kept = {spec.role for spec in specs if not spec.packable and spec.name.endswith(".weight")}
    assert kept == {"norm", "audio.norm", "audio.conv", "audio.position"}
    assert all(len(spec.shape) == 2 and spec.name.endswith(".weight") for spec in specs if spec.packable)
    assert {spec.role for spec in specs} == set(ROLES)


def test_layers_are_numbered_within_their_stack():
    layers = {spec.role: spec.layer for spec in tensors(SMALL)}
    assert layers["mlp.up"] == 2 and layers["audio.mlp.up"] == 1 and layers["lm_head"] is None


@pytest.mark.parametrize("config", [SMALL, shipped_config("Qwen2-Audio-7B")], ids=["small", "Qwen2-Audio-7B"])
def test_a_factor_fits_everything_that_its_smoothing_group_names(config):
    shapes = {spec.name: spec for spec in tensors(config)}
    groups = family_of(config).smoothing_groups(config)
    for group in groups:
        channels = shapes[group.sources[0]].shape[0]
        assert all(shapes[name].shape[0] == channels for name in group.sources), group.name
        assert all(shapes[name].shape[1] == channels and shapes[name].packable for name in group.targets), group.name
        assert all(shapes[name].layer == group.layer for name in group.targets), group.name
    for names in ([n for g in groups for n in g.sources], [n for g in groups for n in g.targets]):
        assert len(set(names)) == len(names)


def test_smoothing_groups_come_in_the_order_of_activations():
    groups = family_of(SMALL).smoothing_groups(SMALL)
    stacks = [stack.name for stack in family_of(SMALL).stacks]
    places = [(stacks.index(group.stack), group.layer or 0) for group in groups]
    assert places == sorted(places) and len({group.name for group in groups}) == len(groups)
    audio = [group.name for group in groups if group.stack == "audio" and group.layer == 1]
    assert audio == [
        f"audio_tower.layers.1.{module}" for module in ("self_attn_layer_norm", "self_attn.v_proj", "final_layer_norm")
    ]


def test_attentions_output_is_a_target_only_where_no_heads_share_their_values():
    alike = {**SMALL, "text_config": {**SMALL["text_config"], "num_key_value_heads": 6}}
    outputs = [
        {target for group in family_of(c).smoothing_groups(c) for target in group.targets if "o_proj" in target}
        for c in (SMALL, alike)
    ]
    assert not outputs[0]
    assert outputs[1] == {f"language_model.model.layers.{n}.self_attn.o_proj.weight" for n in range(3)}


def test_positions_are_those_of_the_librarys_encoder():
    torch = pytest.importorskip("torch")
    encoder = pytest.importorskip("transformers").Qwen2AudioEncoder._get_feat_extract_output_lengths
    audio, projector, text = family_of(SMALL).stacks
    for frames in (7, 8, 9, 10, 11, 399, 400, 3000):
        encoded, pooled = (int(n) for n in encoder(None, torch.tensor(frames)))
        assert (audio.positions(frames, 50), projector.positions(frames, 50)) == (encoded, pooled)
    assert text.positions(400, 50) == 50


def test_roles_are_found_by_name():
    assert role_of("language_model.model.layers.31.self_attn.q_proj.bias") == "attn.q"
    assert role_of("audio_tower.layers.7.fc1.weight") == "audio.mlp.up"
    with pytest.raises(KeyError):
        role_of("language_model.model.layers.0.self_attn.rotary_emb.inv_freq")


def test_a_tied_head_is_refused():
    with pytest.raises(UserError, match="tie_word_embeddings"):
        tensors({**SMALL, "text_config": {**SMALL["text_config"], "tie_word_embeddings": True}})


def test_a_size_that_is_none_is_refused_by_name():
    with pytest.raises(UserError, match=r"text_config.hidden_size: expected a size, got '4096'"):
        tensors({**SMALL, "text_config": {"hidden_size": "4096"}})


def test_an_unknown_model_is_refused():
    with pytest.raises(UserError, match="unknown model 'whisper'; known: qwen2_audio"):
        family_of({"model_type": "whisper"})


def test_fewer_layers_change_nothing_else():
    shallow = family_of(SMALL).with_layers(SMALL, 2)
    assert shallow["text_config"] == SMALL["text_config"] | {"num_hidden_layers": 2}
    assert shallow["audio_config"] == SMALL["audio_config"]
    assert family_of(SMALL).with_layers(SMALL, 99) == SMALL


def test_tokens_below_that_of_audio_are_ordinary():
    assert family_of(SMALL).ordinary_tokens(SMALL) == 5
    assert family_of(SMALL).ordinary_tokens({key: SMALL[key] for key in SMALL if key != "audio_token_index"}) == 200


def test_the_dtype_is_read_under_its_old_and_its_new_name():
    assert stored_dtype({"torch_dtype": "bfloat16"}) == stored_dtype({"dtype": "bfloat16"}) == "BF16"
    with pytest.raises(UserError, match="dtype"):
        stored_dtype({"dtype": "int8"})


def test_a_configuration_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is not JSON"):
        read_config(tmp_path)
