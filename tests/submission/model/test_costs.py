"""The forecast of time, memory and disk: counts from shapes against sums written down by hand, and known anchors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from submission.model.costs import devices, durations, operations, steps
from submission.model.costs.devices import CARDS, processor
from submission.model.costs.durations import duration_text, step_seconds
from submission.model.costs.model_shapes import ModelShapes
from submission.model.costs.steps import StepWork, step_works
from submission.model.families import family_of, shipped_config, tensors
from submission.model.moments_size import moments_size
from submission.model.sizes import GIB
from submission.system.recipe.recipe_files import read_recipe

CONFIG = shipped_config("Qwen2-Audio-7B")
assert CONFIG is not None
GEMMA = shipped_config("gemma-4-12B-it")
assert GEMMA is not None
RECIPE = read_recipe("primary", "iwslt26")
HOST = processor(2, 24 << 30)
PACKED = 4_280_000_000


def test_an_utterance_has_the_positions_that_the_processor_gives_it():
    # 30 s are 3000 frames, 1500 behind the convolutions, 750 behind the pooling: the published model's numbers
    frames, tokens, text = operations.utterance_positions(CONFIG, 30)
    assert (frames, text) == (3000, 150)
    assert tokens == 750 + 8 + 150


def test_an_utterance_of_raw_frames_has_a_position_for_each_of_them():
    frames, tokens, text = operations.utterance_positions(GEMMA, 8)
    assert (frames, tokens) == (200, 200 + 33 + text)  # of 40 ms


def test_features_that_are_padded_to_the_window_cost_the_encoder_all_of_it_unless_they_are_trimmed():
    padded, _, _ = operations.utterance_positions(CONFIG, 6)
    trimmed, _, _ = operations.utterance_positions(CONFIG, 6, trimmed=True)
    assert (padded, trimmed) == (3000, 600)
    encoder = 2 * 32 * (4 * 1280**2 + 2 * 1280 * 5120) * (1500 - 300) + 32 * 4 * 1280 * (1500**2 - 300**2)
    around = 2 * 2400 * (1280 * 128 * 3 + 1280 * 1280 * 3) + 2 * 1280 * 4096 * (750 - 150)
    saved = operations.forward_flops(CONFIG, 6) - operations.forward_flops(CONFIG, 6, trimmed=True)
    assert saved == pytest.approx(encoder + around, rel=1e-3)
    assert operations.forward_flops(GEMMA, 6) == operations.forward_flops(GEMMA, 6, trimmed=True)


def test_a_tied_head_is_computed_with_and_a_vision_embedder_is_not():
    _, tokens, text = operations.utterance_positions(GEMMA, 8)
    sliding = 3840 * (16 + 2 * 8) * 256 + 16 * 256 * 3840
    full = 3840 * (16 + 1) * 512 + 16 * 512 * 3840
    linears = 40 * sliding + 8 * full + 48 * 3 * 3840 * 15360
    expected = 2 * linears * tokens + 2 * 640 * 3840 * tokens + 2 * 262144 * 3840 * text
    expected += 4 * (40 * 16 * 256 + 8 * 16 * 512) * tokens * tokens / 2
    assert operations.forward_flops(GEMMA, 8) == pytest.approx(expected, rel=1e-3)


def test_memory_follows_the_largest_of_unlike_layers_and_the_keys_of_each():
    shapes = ModelShapes(config=GEMMA)
    by_layer = [sum(math.prod(s.shape) for s in tensors(GEMMA) if s.layer == layer) for layer in range(48)]
    assert shapes.layer_bytes == 4 * max(by_layer) > 4 * by_layer[0]
    assert shapes.cached_numbers == 2 * (40 * 8 * 256 + 8 * 1 * 512)


def test_operations_are_two_for_each_weight_and_position_and_four_for_attention():
    _, tokens, text = operations.utterance_positions(CONFIG, 10)
    encoded, heard = 500, 250
    decoder = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    encoder = 32 * (4 * 1280**2 + 2 * 1280 * 5120)
    convolutions = 2 * 1000 * (1280 * 128 * 3 + 1280 * 1280 * 3)
    expected = 2 * decoder * tokens + 2 * encoder * encoded + convolutions + 2 * 1280 * 4096 * heard
    expected += 2 * 156032 * 4096 * text
    expected += 32 * 4 * 4096 * tokens * tokens / 2 + 32 * 4 * 1280 * encoded**2
    assert operations.forward_flops(CONFIG, 10, trimmed=True) == pytest.approx(expected, rel=1e-3)


def test_a_sweep_runs_the_encoder_once_and_the_layers_above_each_fork():
    whole, *_, text = (
        operations.forward_flops(CONFIG, steps.DEV_SECONDS),
        *operations.utterance_positions(CONFIG, steps.DEV_SECONDS),
    )
    without_layers = operations.forward_flops(CONFIG, steps.DEV_SECONDS, layer_runs=0)
    head = 2 * 156032 * 4096 * text
    expected = without_layers + 32 * head + (whole - without_layers) * (32 + 32 * 33 / 2) / 32
    sweep = step_works(CONFIG, RECIPE, 2, PACKED, 30)["sensitivity"]
    assert sweep.flops == pytest.approx(expected * 2 * steps.DEV_UTTERANCES)


def test_adapters_have_a_row_and_a_column_for_each_rank():
    named = [s for s in tensors(CONFIG) if s.name.endswith("mlp.up_proj.weight")]
    assert operations.adapter_parameters(CONFIG, ["mlp.up"], 8) == sum(8 * sum(spec.shape) for spec in named)
    everything = operations.adapter_parameters(CONFIG, RECIPE.finetune.roles, 64)
    assert 200e6 < everything < 215e6  # 207 million with the paper's roles and rank


def test_fine_tuning_at_batch_8_takes_what_a_24_gb_card_just_has():
    assert 22e9 < steps.finetune_bytes(ModelShapes(config=CONFIG), RECIPE) < 25e9


def test_a_forecast_names_every_step_that_takes_long_and_only_those_of_the_recipe():
    works = step_works(CONFIG, RECIPE, 2, PACKED, 30)
    assert {"finetune", "merge", "sensitivity", "awq", "pack", "segment", "decode"} <= set(works)
    assert "calibrate" not in works
    frontier = step_works(CONFIG, read_recipe("frontier", "iwslt26"), 2, PACKED, 30)
    assert {"calibrate", "allocate"} <= set(frontier)
    assert "awq" not in frontier


def test_calibration_reads_and_writes_activations_at_every_layer():
    """Forward, and for gradients again; then inputs, gradients at outputs and at inputs."""
    frontier = read_recipe("frontier", "iwslt26")
    without, on_32 = (
        replace(frontier.quantize.moments, **changed) for changed in ({"fisher": False}, {"gradient_utterances": 32})
    )
    recipes = [replace(frontier, quantize=replace(frontier.quantize, moments=moments)) for moments in (without, on_32)]
    works = [step_works(CONFIG, recipe, 2, PACKED, 30)["calibrate"] for recipe in recipes]
    frames, tokens, _ = operations.utterance_positions(CONFIG, steps.TRAIN_SECONDS)
    layers = 32 * 4 * (frames // 2 * 1280 + tokens * 4096)
    size = moments_size(CONFIG)
    assert works[0].file_bytes == ModelShapes(config=CONFIG).plain_bytes + size.disk_bytes + 2 * 256 * layers
    assert works[1].file_bytes - works[0].file_bytes == 5 * 32 * layers
    assert works[1].flops / works[0].flops == (256 + 3 * 32) / 256


def test_awq_keeps_the_hidden_states_of_every_utterance_beside_one_part_of_the_model():
    small = replace(RECIPE, quantize=replace(RECIPE.quantize, awq=replace(RECIPE.quantize.awq, utterances=8)))
    few, all_of_dev = (step_works(CONFIG, r, 2, PACKED, 30)["awq"].memory_bytes for r in (small, RECIPE))
    # measured on a layer of each stack at full width: 12.6 MB an utterance of 30 s of features and 252 positions
    assert (all_of_dev - few) / (steps.DEV_UTTERANCES - 8) == pytest.approx(12.6e6, rel=0.1)
    assert few > 4.50 * GIB


@pytest.mark.parametrize(
    ("step", "measured"),
    [("corpus", 0.48), ("finetune", 5.10), ("merge", 0.95), ("sensitivity", 2.71), ("pack", 2.71), ("segment", 2.07)],
)
def test_no_step_of_the_full_width_rehearsal_took_more_memory_than_is_forecast(step, measured):
    config = family_of(CONFIG).with_layers(CONFIG, 1)
    assert measured * GIB < step_works(config, RECIPE, 2, 560_000_000, 30)[step].memory_bytes < 3 * measured * GIB


def test_decoding_counts_the_activations_of_the_longest_segments_of_a_batch():
    one, sixteen = (
        step_works(CONFIG, replace(RECIPE, decode=replace(RECIPE.decode, batch_size=n)), 2, PACKED, 30)[
            "decode"
        ].memory_bytes
        for n in (1, 16)
    )
    # 908 positions of 30 s, 42,496 outputs of a decoder layer's linears in bfloat16, and the keys and values
    assert (sixteen - one) / 15 > 908 * 42_496 * 2


def test_decoding_counts_what_is_heard_of_the_window():
    decoding = step_works(CONFIG, RECIPE, 2, PACKED, 30)["decode"]
    segments = 2 * steps.BLIND_HOURS * 3600 / steps.SEGMENT_SECONDS
    heard = operations.forward_flops(CONFIG, steps.SEGMENT_SECONDS, trimmed=True)
    assert decoding.flops == segments * RECIPE.decode.num_beams * heard
    assert operations.forward_flops(CONFIG, steps.SEGMENT_SECONDS) == pytest.approx(1.46 * heard, rel=0.01)


def test_the_disk_of_both_systems_with_the_base_is_about_65_gb():
    works = step_works(CONFIG, RECIPE, 2, PACKED, 30)
    base = 2 * operations.parameter_count(CONFIG)
    own = sum(works[name].disk_bytes for name in ("pack", "bundle"))
    assert base + sum(work.disk_bytes for work in works.values()) + own == pytest.approx(65e9, rel=0.05)


def test_a_card_too_small_says_so_and_the_host_does_what_cards_do_not():
    large = StepWork(step="x", flops=1e15, memory_bytes=30 * 10**9)
    assert step_seconds(large, CARDS[0], HOST) is None
    assert step_seconds(large, CARDS[1], HOST) is not None
    merging = step_works(CONFIG, RECIPE, 2, PACKED, 30)["merge"]
    assert step_seconds(merging, CARDS[0], HOST) == step_seconds(merging, CARDS[1], HOST)
    on_host = StepWork(step="x", file_bytes=durations.DISK_BYTES_PER_SECOND, on_card=False)
    assert step_seconds(on_host, CARDS[0], HOST) == pytest.approx(1)


def test_times_follow_the_rates_of_the_device():
    work = StepWork(step="x", flops=1e15, weight_bytes=1e12)
    card = CARDS[0]
    expected = 1e15 / (durations.PRODUCT_SHARE * card.flops_per_second) + 1e12 / (
        durations.BANDWIDTH_SHARE * card.bytes_per_second
    )
    assert step_seconds(work, card, HOST) == pytest.approx(expected)
    assert step_seconds(work, HOST, HOST) == pytest.approx(
        1e15 / (2 * devices.CORE_FLOPS) + 1e12 / (2 * devices.CORE_BYTES)
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (3 * 3600, "3.0 h"), (47 * 3600, "47 h"), (864_000, "10 d")],
)
def test_durations_have_no_more_digits_than_they_deserve(seconds, text):
    assert duration_text(seconds) == text
    assert duration_text(None) == "too small"


def test_the_table_has_a_row_for_each_step_and_one_for_all():
    works = step_works(CONFIG, RECIPE, 2, PACKED, 30)
    lines = durations.cost_lines(works, [HOST, *CARDS], HOST)
    assert [line.split()[0] for line in lines] == ["step", *works, "together"]
    assert math.isfinite(sum(step_seconds(work, CARDS[0], HOST) or 0 for work in works.values()))
