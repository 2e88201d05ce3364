from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from submission.miniature.model import PROMPT, SMALL, build_model, make_config, make_processor, train_tokenizer
from submission.model.codecs import Affine
from submission.runtime import loss as loss_module
from submission.runtime.loss import (
    Losses,
    difference,
    make_batch,
    mean_loss,
    measure_losses,
    ratio,
    standard_error,
    target_tokens,
)
from submission.runtime.packed import PackedLinear
from submission.runtime.prompt import IGNORED, collate, encode, end_token_id, extract_features, render_prompt
from submission.runtime.quantizer import packed_layer

TEXTS = ["der Hund schläft", "die Katze sieht den Hund", "ein Haus", "狗在睡觉", "猫看见狗", "一座房子和一只狗", "ja"]
GERMAN = render_prompt(PROMPT, "German")


@pytest.fixture(scope="module")
def processor():
    return make_processor(train_tokenizer(TEXTS * 9, SMALL.vocabulary), SMALL)


@pytest.fixture(scope="module")
def model(processor):
    return build_model(make_config(processor.tokenizer, SMALL), seed=1).eval()


@pytest.fixture(scope="module")
def examples(processor):
    rng = np.random.default_rng(0)
    waveforms = [(0.1 * rng.standard_normal(9_000 + 7_000 * i)).astype(np.float32) for i in range(len(TEXTS))]
    return [
        encode(processor, extract_features(processor, w), GERMAN, text)
        for w, text in zip(waveforms, TEXTS, strict=True)
    ]


def measure(model, examples, processor, batch_size: int) -> Losses:
    return measure_losses(model, examples, processor.tokenizer.pad_token_id, batch_size=batch_size, label="loss")


def test_the_loss_is_that_of_the_whole_models_logits(model, processor, examples):
    losses = measure(model, examples, processor, 3)
    for number, example in enumerate(examples):
        batch = collate([example], processor.tokenizer.pad_token_id, "right", labels=True)
        labels = batch.pop("labels")
        with torch.inference_mode():
            logits = model(**batch).logits
        expected = F.cross_entropy(logits[0, :-1].double(), labels[0, 1:], ignore_index=IGNORED, reduction="sum")
        assert float(losses.sums[number]) == pytest.approx(float(expected), rel=1e-5)


def test_every_target_token_counts_and_the_end_token_with_them(processor, examples):
    batch = make_batch(examples, processor.tokenizer.pad_token_id, "cpu")
    expected = [processor.tokenizer.encode(text) + [end_token_id(processor)] for text in TEXTS]
    assert [batch.ids[batch.rows == row].tolist() for row in range(len(TEXTS))] == expected
    assert target_tokens(examples).tolist() == [len(ids) for ids in expected]


def test_the_batch_size_does_not_change_the_loss(model, processor, examples):
    alone = measure(model, examples, processor, 1)
    for batch_size in (2, 5, 99):
        together = measure(model, examples, processor, batch_size)
        torch.testing.assert_close(together.sums, alone.sums, rtol=1e-5, atol=0)
        assert torch.equal(together.tokens, alone.tokens)


def test_logits_are_made_a_few_at_a_time(model, processor, examples, monkeypatch):
    whole = measure(model, examples, processor, 4)
    rows = []
    hook = model.lm_head.register_forward_hook(lambda head, args, logits: rows.append(len(logits)))
    monkeypatch.setattr(loss_module, "LOGITS", 5 * SMALL.vocabulary + 3)
    try:
        blocks = measure(model, examples, processor, 4)
    finally:
        hook.remove()
    assert max(rows) == 5 and sum(rows) == int(whole.tokens.sum())
    torch.testing.assert_close(blocks.sums, whole.sums, rtol=1e-6, atol=0)


def test_a_packed_head_is_measured_too(processor, examples):
    model = build_model(make_config(processor.tokenizer, SMALL), seed=1).eval()
    head = packed_layer(model.lm_head, Affine(bits=4, group_size=64), torch.float32)
    for part in head.weight.parts.values():
        part.zero_()
    model.lm_head = head
    assert isinstance(model.get_output_embeddings(), PackedLinear)
    losses = measure(model, examples, processor, 4)
    # All its codes are zero, so every token is as likely as any other.
    assert mean_loss(losses).value == pytest.approx(math.log(SMALL.vocabulary), rel=1e-6)
    assert mean_loss(losses).standard_error == pytest.approx(0, abs=1e-6)


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_mean_is_per_token_and_its_error_is_that_of_a_ratio():
    # r = 12 / 6 = 2; residuals 4 - 2, 2 - 4, 6 - 6 over 6 tokens; 3 / 2 * (4 + 4 + 0) / 36 = 1 / 3.
    estimate = mean_loss(Losses(sums=numbers(4, 2, 6), tokens=torch.tensor([1, 2, 3])))
    assert estimate.value == 2
    assert estimate.standard_error == pytest.approx(math.sqrt(1 / 3))


def test_the_error_of_a_ratio_agrees_with_drawing_many_samples():
    rng = np.random.default_rng(1)

    def draw() -> Losses:
        tokens = rng.integers(5, 40, 400)
        return Losses(sums=torch.from_numpy(tokens * rng.gamma(4, 0.5, 400)), tokens=torch.from_numpy(tokens))

    estimates = [mean_loss(draw()) for _ in range(300)]
    spread = float(np.std([estimate.value for estimate in estimates]))
    assert np.mean([estimate.standard_error for estimate in estimates]) == pytest.approx(spread, rel=0.1)


def test_differences_are_paired():
    tokens = torch.tensor([3, 5, 9])
    base = Losses(sums=numbers(9, 1, 40), tokens=tokens)
    estimate = difference(Losses(sums=base.sums + 0.25 * tokens, tokens=tokens), base)
    assert estimate.value == pytest.approx(0.25)
    assert estimate.standard_error == pytest.approx(0, abs=1e-12)


def test_losses_of_other_utterances_are_not_compared():
    with pytest.raises(ValueError, match="not of the same utterances"):
        difference(
            Losses(sums=numbers(1, 2), tokens=torch.tensor([1, 2])),
            Losses(sums=numbers(1, 2), tokens=torch.tensor([1, 3])),
        )


def test_what_is_not_defined_is_refused():
    with pytest.raises(ValueError, match="no target tokens"):
        ratio(numbers(0, 0), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="at least two"):
        standard_error(numbers(0.5))
