from __future__ import annotations

import json
from dataclasses import replace

import pytest

from submission.errors import UserError
from submission.model.checkpoint import config_text, packed_config
from submission.model.codecs import Affine, Codec
from submission.model.families import shipped_config, tensors
from submission.model.forecast import forecast, further_steps, resolve_codecs, stored_parts
from submission.model.safetensors_header import file_bytes
from submission.system.recipe.quantize_options import Override

REAL = shipped_config("Qwen2-Audio-7B")
SHALLOW = REAL | {"text_config": REAL["text_config"] | {"num_hidden_layers": 4}}
TOKENIZER_BYTES = 8_000_000  # about what tokenizer and processor of the real model weigh


def affine(bits: int, group_size: int) -> Codec:
    return Affine(bits=bits, group_size=group_size)


FOUR64, FOUR128, TWO64, TWO128, THREE128 = affine(4, 64), affine(4, 128), affine(2, 64), affine(2, 128), affine(3, 128)
SYSTEM_8 = {"*": FOUR128, "embedding": TWO128}


def mlps(layers, count="all") -> Override:
    return Override(role="mlp", layers=layers, count=count, codec=THREE128)


def three_bit_layers(codecs: dict[str, Codec]) -> list[int]:
    names = {spec.name: spec for spec in tensors(REAL)}
    return sorted({names[name].layer for name, codec in codecs.items() if codec == THREE128})


@pytest.mark.parametrize(
    ("rules", "overrides", "gib", "paper"),
    [
        ({}, (), 15.64, 15.64),
        ({"*": FOUR64}, (), 4.41, 4.41),
        ({"*": FOUR64, "embedding": TWO64}, (), 4.26, 4.26),
        (SYSTEM_8, (), 4.02, 4.03),
        (SYSTEM_8, (mlps((4, 21, 22, 24)),), 3.95, 3.98),
    ],
    ids=["bf16", "4-bit", "2-bit-embedding", "groups-of-128", "four-mlps-at-3-bits"],
)
def test_the_papers_sizes_follow_from_shapes_alone(rules, overrides, gib, paper):
    cast = forecast(REAL, rules, overrides, other_bytes=TOKENIZER_BYTES)
    assert round(cast.weights_bytes / 2**30, 2) == gib
    assert cast.total_bytes / 2**30 == pytest.approx(paper, rel=0.005)
    assert cast.parameters == 8_397_094_912


def test_roles_header_configuration_and_companions_add_up_to_the_total():
    cast = forecast(REAL, SYSTEM_8, other_bytes=1000)
    layout = {}
    for spec in tensors(REAL):
        layout |= stored_parts(spec, cast.codecs.get(spec.name), "BF16")
    config = config_text(packed_config(REAL, cast.codecs)).encode("utf-8")
    assert cast.weights_bytes == file_bytes(layout)
    assert cast.total_bytes == file_bytes(layout) + len(config) + 1000


def test_the_longest_prefix_wins():
    codecs = resolve_codecs(REAL, {"mlp": THREE128, "*": FOUR128, "mlp.up": TWO128, "audio": FOUR64})
    prefix = "language_model.model.layers.0"
    assert codecs[f"{prefix}.mlp.up_proj.weight"] == TWO128
    assert codecs[f"{prefix}.mlp.gate_proj.weight"] == THREE128
    assert codecs[f"{prefix}.self_attn.q_proj.weight"] == FOUR128
    assert codecs["audio_tower.layers.0.fc1.weight"] == FOUR64


def test_a_weight_that_no_rule_reaches_is_kept():
    assert set(resolve_codecs(REAL, {"embedding": TWO128})) == {"language_model.model.embed_tokens.weight"}


@pytest.mark.parametrize(
    ("override", "layers"),
    [
        (mlps("first", 4), [0, 1, 2, 3]),
        (mlps("middle", 4), [14, 15, 16, 17]),
        (mlps("last", 4), [28, 29, 30, 31]),
        (mlps((4, 21, 22, 24)), [4, 21, 22, 24]),
    ],
)
def test_layers_are_chosen_as_the_override_says(override, layers):
    assert three_bit_layers(resolve_codecs(REAL, SYSTEM_8, (override,))) == layers


def test_fit_takes_the_smallest_number_of_layers_that_meets_the_limit():
    limit = 4 << 30
    cast = forecast(REAL, SYSTEM_8, (mlps("middle", "fit"),), limit_bytes=limit, other_bytes=TOKENIZER_BYTES)
    count = len(three_bit_layers(cast.codecs))
    assert count > 0 and cast.total_bytes <= limit
    fewer = forecast(REAL, SYSTEM_8, (mlps("middle", count - 1),) if count > 1 else (), other_bytes=TOKENIZER_BYTES)
    assert fewer.total_bytes > limit


def test_fit_counts_every_byte_of_the_folder():
    exact = forecast(REAL, SYSTEM_8, (mlps("middle", 2),)).total_bytes
    at = resolve_codecs(REAL, SYSTEM_8, (mlps("middle", "fit"),), limit_bytes=exact)
    over = resolve_codecs(REAL, SYSTEM_8, (mlps("middle", "fit"),), limit_bytes=exact, other_bytes=1)
    assert len(three_bit_layers(at)) == 2 and len(three_bit_layers(over)) == 3


def test_fit_changes_nothing_where_the_model_fits_already():
    assert three_bit_layers(resolve_codecs(REAL, SYSTEM_8, (mlps("last", "fit"),), limit_bytes=5 << 30)) == []


@pytest.mark.parametrize(
    ("rules", "overrides", "limit", "said"),
    [
        ({"atn": FOUR64}, (), None, "quantize.codecs.atn: the model has no role 'atn'; did you mean 'attn'"),
        ({"norm": FOUR64}, (), None, "'norm' is never packed"),
        (SYSTEM_8, (mlps((3, 4)),), None, "the model has no layer 4; number them 0 to 3"),
        (SYSTEM_8, (mlps("first", 5),), None, "5 layers requested of 4"),
        (SYSTEM_8, (mlps("first", "fit"),), None, '"fit" needs a size limit'),
        (SYSTEM_8, (mlps("first", "fit"),), 1 << 29, "the limit is 536,870,912"),
        (SYSTEM_8, (mlps("first", "fit"), mlps("last", "fit")), 4 << 30, "more than one"),
        (SYSTEM_8, (Override(role="lm_head", layers="first", count=1, codec=TWO64),), None, "is in no layer"),
    ],
)
def test_choices_that_the_model_cannot_follow_are_refused(rules, overrides, limit, said):
    with pytest.raises(UserError) as caught:
        resolve_codecs(SHALLOW, rules, overrides, limit_bytes=limit)
    assert said in str(caught.value)


def test_the_least_sensitive_layers_come_first():
    ranking = [*range(31, 3, -1), 2, 0, 3, 1]
    chosen = resolve_codecs(REAL, SYSTEM_8, (mlps("sensitivity", 30),), ranking=ranking)
    assert three_bit_layers(chosen) == sorted(ranking[:30])


def test_a_ranking_of_another_model_is_refused():
    with pytest.raises(UserError, match="the ranking is of other layers"):
        resolve_codecs(SHALLOW, SYSTEM_8, (mlps("sensitivity", 2),), ranking=[1, 0, 2])


def test_before_the_ranking_is_there_the_forecast_misses_a_few_digits_of_the_header_at_most():
    before = forecast(REAL, SYSTEM_8, (mlps("sensitivity", 4),))
    for ranking in ([4, 21, 22, 24], [28, 29, 30, 31], [15, 16, 17, 18]):
        rest = [layer for layer in range(32) if layer not in ranking]
        after = forecast(REAL, SYSTEM_8, (mlps("sensitivity", 4),), ranking=[*ranking, *rest])
        assert abs(after.total_bytes - before.total_bytes) <= 64


def test_a_random_choice_is_the_same_every_time_and_another_for_another_seed():
    chosen = [
        three_bit_layers(resolve_codecs(REAL, SYSTEM_8, (replace(mlps("first", 4), layers="random", seed=seed),)))
        for seed in (1, 1, 2)
    ]
    assert chosen[0] == chosen[1] != chosen[2] and len(chosen[2]) == 4


def test_linears_are_all_that_can_be_packed_but_the_embedding():
    codecs = resolve_codecs(REAL, {"linears": FOUR64, "audio": FOUR128})
    packable = {spec.name: spec.role for spec in tensors(REAL) if spec.packable}
    assert set(packable) - set(codecs) == {"language_model.model.embed_tokens.weight"}
    assert all((codecs[name] == FOUR128) == packable[name].startswith("audio.") for name in codecs)


def test_the_packed_configuration_names_every_packed_weight():
    codecs = resolve_codecs(REAL, SYSTEM_8)
    section = json.loads(config_text(packed_config(REAL, codecs)))["quantization_config"]
    assert section["codecs"] == {"affine2g128": TWO128.to_dict(), "affine4g128": FOUR128.to_dict()}
    assert section["weights"]["language_model.lm_head"] == "affine4g128"
    assert len(section["weights"]) == sum(spec.packable for spec in tensors(REAL))


def test_a_further_step_saves_what_the_forecast_without_it_says():
    cast = forecast(SHALLOW, SYSTEM_8, other_bytes=7)
    steps = {(s.role, s.layers, s.change): s for s in further_steps(cast)}
    step = steps["lm_head", "all", "3 bits"]
    assert (
        cast.total_bytes - step.saved_bytes
        == forecast(SHALLOW, {**SYSTEM_8, "lm_head": THREE128}, other_bytes=7).total_bytes
    )
    one = forecast(SHALLOW, SYSTEM_8, (mlps((0,)),), other_bytes=7)
    assert cast.total_bytes - steps["mlp", "one", "3 bits"].saved_bytes == one.total_bytes
    assert [s.saved_bytes for s in further_steps(cast)] == sorted((s.saved_bytes for s in steps.values()), reverse=True)


def test_where_nothing_is_packed_there_is_no_further_step():
    assert further_steps(forecast(SHALLOW, {})) == []
