"""The forecast of what calibration takes: the longest utterance of each family, and what is held of logits."""

from __future__ import annotations

import pytest

from submission.model.families import family_of, shipped_config
from submission.model.moments_size import LOGITS_BYTES, LONGEST_TRANSLATION, longest_utterance, moments_size
from submission.system.campaign import read_campaign

QWEN, GEMMA = shipped_config("Qwen2-Audio-7B"), shipped_config("gemma-4-12B-it")
assert QWEN is not None and GEMMA is not None


def test_the_longest_utterance_of_a_family_is_its_own():
    assert longest_utterance(QWEN) == (3000, 750 + 8 + 256)  # 30 s, of which the decoder sees a position every 40 ms
    assert longest_utterance(GEMMA) == (400, 400 + 33 + 256)  # 16 s


@pytest.mark.parametrize(("config", "campaign"), [(QWEN, "iwslt26"), (GEMMA, "iwslt27")])
def test_the_window_of_a_family_is_that_of_its_campaign(config, campaign):
    family, model = family_of(config), read_campaign(campaign).model
    assert family.window_frames(config) == model.window_seconds * family.frames_per_second


def test_states_between_layers_are_those_of_the_longest_utterance():
    assert moments_size(GEMMA).state_bytes == {"text": 4 * 3840 * 689}
    assert moments_size(QWEN).state_bytes == {"audio": 4 * 1280 * 1500, "text": 4 * 4096 * 1014}


def test_activations_on_disk_are_those_of_the_pass_that_stores_most():
    """Six points of 32 stay for the backward pass, and at most eight are stored in it."""
    audio, text = moments_size(QWEN).state_bytes.values()
    few, all_of_them = (moments_size(QWEN).activation_bytes(256, traced) for traced in (32, 256))
    assert few == (audio + 2 * text) * 256 + 6 * (audio + text) * 32 + text * 256
    assert all_of_them == (audio + 6 * audio + (8 + 2) * text) * 256 + text * 256


@pytest.mark.parametrize("config", [QWEN, GEMMA])
def test_masks_and_what_the_head_reads_are_less_than_the_states_at_a_point(config):
    sizes, (_, tokens) = moments_size(config).state_bytes, longest_utterance(config)
    positions = {"text": tokens, "audio": 1500}
    masks = sum(2 * positions[stack] ** 2 for stack in sizes)  # of bools, two where a model has windows
    read = 2 * sizes["text"] * LONGEST_TRANSLATION // tokens  # states and gradients
    assert masks + read < sizes["text"]


def test_capped_logits_are_held_once_more():
    text = GEMMA["text_config"]
    narrow = text | {"hidden_size": 64, "intermediate_size": 64, "vocab_size": 1 << 20}  # nothing is as large as logits
    capped, plain = (
        GEMMA | {"text_config": narrow | {"final_logit_softcapping": cap}, "vision_config": None}
        for cap in (30.0, None)
    )
    assert moments_size(capped).memory_bytes - moments_size(plain).memory_bytes == LOGITS_BYTES
