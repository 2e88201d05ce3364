"""The miniature without an encoder: its shortcuts equal the stock model, and the same forge trains it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Gemma4UnifiedForConditionalGeneration

from submission.miniature.curriculum import TrainingExample, plan_examples
from submission.miniature.forge import Training, forge, tokenizer_sentences
from submission.miniature.gemma4 import FRAME_SAMPLES, SMALL_DECODER, filter_bank
from submission.miniature.gemma4_training import DecoderLearner, FrameSet, decoder_states, frame_translation_loss
from submission.miniature.model import LANGUAGES


@pytest.fixture(scope="module")
def learner() -> DecoderLearner:
    return DecoderLearner(SMALL_DECODER, tokenizer_sentences(1)[::20])


@pytest.fixture(scope="module")
def examples() -> list[TrainingExample]:
    return plan_examples(6, seed=3)


@pytest.fixture(scope="module")
def training_set(learner: DecoderLearner, examples: list[TrainingExample], tmp_path_factory) -> FrameSet:
    return learner.training_set(examples, tmp_path_factory.mktemp("frames") / "frames.f16", workers=1)


def test_states_and_loss_are_those_of_the_stock_model(learner: DecoderLearner, training_set: FrameSet) -> None:
    model = learner.joint_model(training_set, seed=1).model
    batch = training_set.batch(np.arange(6), np.random.default_rng(0), listening=False)
    counts = batch.counts.tolist()
    frames = torch.zeros(6, max(counts), FRAME_SAMPLES)
    known = torch.arange(max(counts))[None] < batch.counts[:, None]
    frames[known] = batch.frames
    with torch.no_grad():
        states = decoder_states(model, batch, training_set.audio, SMALL_DECODER.layers)
        ours = frame_translation_loss(model, states[-1], batch)
        stock = model(
            input_ids=batch.ids,
            attention_mask=torch.ones_like(batch.ids),
            input_features=frames,
            input_features_mask=known,
        ).logits
    expected = torch.nn.functional.cross_entropy(stock.flatten(0, 1)[batch.predicting], batch.labels)
    assert float(ours) == pytest.approx(float(expected), abs=1e-4)


def test_every_target_follows_the_whole_prompt(learner: DecoderLearner, training_set: FrameSet) -> None:
    batch = training_set.batch(np.arange(6), np.random.default_rng(0), listening=False)
    texts = [learner.tokenizer.decode(row) for row in batch.ids]
    for text, count in zip(texts, batch.counts.tolist(), strict=True):
        assert text.startswith("<bos><|turn>user\nTranslate this speech to ")
        assert any(f" to {name}:<|audio>{'<|audio|>' * count}<audio|>" in text for name in LANGUAGES.values())
        assert "<turn|>\n<|turn>model\n<|channel>thought\n<channel|>" in text


def test_text_survives_the_tokenizer_and_unknown_letters_become_bytes(learner: DecoderLearner) -> None:
    for text in ("Wann muss er elf Autos kaufen?", "他什么时候必须买十一辆汽车？", "naïve 龘"):
        assert learner.tokenizer.decode(learner.tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert len(learner.tokenizer) <= SMALL_DECODER.vocabulary


def test_a_tone_is_loudest_in_its_own_band() -> None:
    bank = filter_bank()
    pairs = bank.reshape(2, -1, 2, FRAME_SAMPLES)
    normed = pairs / np.linalg.norm(pairs, axis=-1, keepdims=True)
    for band in (4, 12, 20):
        wave = pairs[0, band, 0] + pairs[1, band, 1]
        energy = (normed @ wave) ** 2
        assert energy.sum(-1)[0].argmax() == band


def test_the_same_forge_trains_it(tmp_path: Path) -> None:
    training = Training(steps=30, listening_share=0.5, recordings=160, batch_size=16, workers=1)
    report = forge(tmp_path / "base", SMALL_DECODER, training, evaluation_sentences=0, command="as tested")
    losses = {row["step"]: row for row in report["losses"]}
    assert losses[15]["words"] < 0.8 * losses[10]["words"]
    assert losses[30]["translation"] < losses[20]["translation"]
    assert json.loads((tmp_path / "base" / "forge.json").read_text(encoding="utf-8")) == report
    trained = Gemma4UnifiedForConditionalGeneration.from_pretrained(tmp_path / "base")
    assert trained.dtype == torch.bfloat16
    head, embedding = trained.lm_head.weight, trained.get_input_embeddings().weight
    assert head.data_ptr() == embedding.data_ptr()
