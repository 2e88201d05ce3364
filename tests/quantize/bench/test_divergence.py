"""Increase and divergence of a model against another: nothing of itself, and what the definition gives."""

from __future__ import annotations

import copy

import pytest
import torch

from quantize.bench.divergence import measure_divergence
from submission.miniature.model import SMALL
from submission.runtime.examples import load_examples
from submission.runtime.loading import load_model
from submission.runtime.loss import difference, measure_losses
from submission.text.corpus import Utterance
from tests.support.recordings import write_noise
from tests.support.tiny_qwen import build_checkpoint


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_noise(folder / "talk.wav", seconds=4)
    model, processor = load_model(
        build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps"], SMALL, 1), "float32"
    )
    utterances = [
        Utterance(
            id=str(number),
            audio="talk.wav",
            start=16_000 * number,
            end=16_000 * (number + 1),
            source="the cat",
            target="the cat" + " sleeps" * number,
            source_lang="en",
            target_lang="de",
            recording="talk",
        )
        for number in range(3)
    ]
    prompts = {"de": "<|audio_bos|><|AUDIO|><|audio_eos|>German:"}
    return model, load_examples(utterances, folder, processor, prompts, "<|im_end|>", label="test")


def test_a_model_does_not_diverge_from_itself(loaded):
    model, examples = loaded
    assert set(measure_divergence(model, model, examples, 0).values()) == {0}


def test_the_increase_is_that_of_the_losses(loaded):
    model, examples = loaded
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.get_output_embeddings().weight.mul_(3)
    found = measure_divergence(model, changed, examples, 0)
    losses = [measure_losses(each, examples, 0, batch_size=2, label="test") for each in (changed, model)]
    expected = difference(*losses)
    assert found["increase"] == pytest.approx(expected.value, rel=1e-3, abs=1e-5)
    assert found["increase_standard_error"] == pytest.approx(expected.standard_error, rel=1e-3, abs=1e-5)
    assert found["divergence"] > 0
