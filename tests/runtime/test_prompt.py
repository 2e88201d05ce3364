from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from submission.errors import UserError
from submission.miniature.model import (
    PROMPT,
    SMALL,
    build_model,
    make_config,
    make_processor,
    train_tokenizer,
)
from submission.model.families import family_of, read_config
from submission.runtime.families import runtime_of
from submission.runtime.families.family import generate
from submission.runtime.prompt import (
    IGNORED,
    build_inputs,
    encode,
    end_token_id,
    extract_features,
    render_prompt,
    shortest_samples,
    window_samples,
)
from submission.system.campaign import read_campaign

MINIATURES = Path("submission/miniature")
GERMAN = render_prompt(PROMPT, "German")
CHINESE = render_prompt(PROMPT, "Chinese")


@pytest.fixture(scope="module")
def processor():
    return make_processor(
        train_tokenizer(["the dog sleeps", "der Hund schläft", "狗在睡觉"] * 9, SMALL.vocabulary), SMALL
    )


@pytest.fixture(scope="module")
def model(processor):
    return build_model(make_config(processor.tokenizer, SMALL), seed=1)


def noise(samples: int) -> np.ndarray:
    """Return noise of deviation 0.1 that depends on its length alone, float32 [samples]."""
    return (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


def test_prompts_name_the_language() -> None:
    assert GERMAN.endswith("Translate this speech to German:\n")


@pytest.mark.parametrize(("shipped", "campaign"), [("base", "iwslt26"), ("gemma4", "iwslt27")])
def test_forecasts_count_the_prompt_that_is_rendered(shipped, campaign) -> None:
    """A miniature renders its campaign's prompt as the published model does, but cuts words into more tokens."""
    folder, prompt = MINIATURES / shipped, read_campaign(campaign).prompt
    config = read_config(folder)
    runtime = runtime_of(config)
    processor = runtime.read_processor(folder)
    rendered = processor.tokenizer.decode(runtime.prompt_ids(processor, render_prompt(prompt, "German"), 0))
    words = re.findall(r"<[^<>\s]+>|\w+|[^\w\s<>]\n?|\n", rendered)
    assert len(words) == family_of(config).prompt_tokens, words


def test_generation_inputs_are_padded_on_the_left(processor) -> None:
    batch = build_inputs(processor, [noise(16_000), noise(48_000)], [GERMAN, CHINESE])
    assert batch["attention_mask"][0, 0] == 0
    assert batch["attention_mask"][:, -1].tolist() == [1, 1]
    assert "labels" not in batch
    audio = (batch["input_ids"] == processor.audio_token_id).sum(dim=1)
    assert audio.tolist() == [12, 37]  # one position is 80 ms


def test_labels_are_the_target_and_the_end_token_alone(processor) -> None:
    targets = ["der Hund schläft", "狗"]
    batch = build_inputs(processor, [noise(16_000), noise(48_000)], [GERMAN, CHINESE], targets)
    assert batch["attention_mask"][:, 0].tolist() == [1, 1]
    for row, target in enumerate(targets):
        labels = batch["labels"][row][batch["labels"][row] != IGNORED]
        assert labels[-1] == end_token_id(processor)
        assert processor.tokenizer.decode(labels[:-1]) == target
        kept = batch["labels"][row] != IGNORED
        assert torch.equal(batch["input_ids"][row][kept], labels)
        assert not kept[batch["attention_mask"][row] == 0].any()


def test_training_and_generation_read_the_same_prompt_tokens(processor) -> None:
    generation = encode(processor, extract_features(processor, noise(16_000)), GERMAN)
    training = encode(processor, extract_features(processor, noise(16_000)), GERMAN, "der Hund")
    assert torch.equal(training.input_ids[: training.prompt_tokens], generation.input_ids)


def test_the_expanded_prompt_is_what_the_processor_makes_of_it(processor) -> None:
    whole = processor(text=[GERMAN], audio=[noise(48_000)], sampling_rate=16_000, return_tensors="pt")
    ours = build_inputs(processor, [noise(48_000)], [GERMAN])
    assert ours.keys() == whole.keys()
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def test_special_tokens_within_a_target_stay_plain_text(processor) -> None:
    example = encode(processor, extract_features(processor, noise(16_000)), GERMAN, "a<|im_end|>b<|AUDIO|>")
    target = example.input_ids[example.prompt_tokens :]
    assert (target == end_token_id(processor)).sum() == 1
    assert not (target == processor.audio_token_id).any()


@pytest.mark.parametrize("targets", [None, ["der Hund", "狗", "der Hund schläft", "狗在睡觉"]])
def test_batch_composition_does_not_change_results(processor, model, targets) -> None:
    waveforms = [noise(n) for n in (16_000, 40_000, shortest_samples(processor), window_samples(processor))]
    prompts = [GERMAN, CHINESE, GERMAN, CHINESE]
    batch = build_inputs(processor, waveforms, prompts, targets)
    with torch.inference_mode():
        together = model(**batch).logits
        for row, waveform in enumerate(waveforms):
            one = build_inputs(processor, [waveform], [prompts[row]], targets and [targets[row]])
            width = one["input_ids"].shape[1]
            within = together[row, -width:] if targets is None else together[row, :width]
            assert torch.equal(one["input_features"][0], batch["input_features"][row])
            assert (model(**one).logits[0] - within).abs().max() < 1e-5


def test_the_shortest_audio_that_is_taken_can_be_decoded_alone(processor, model) -> None:
    batch = build_inputs(processor, [noise(shortest_samples(processor))], [GERMAN])
    with torch.inference_mode():
        ids = model.generate(**batch, max_new_tokens=2, do_sample=False)
    assert ids.shape[1] > batch["input_ids"].shape[1]


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_computes_logits_of_the_last_position_alone_and_chooses_the_same_tokens(
    processor, model, beams
) -> None:
    batch = build_inputs(processor, [noise(16_000), noise(40_000)], [GERMAN, CHINESE])
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "num_beams": beams}
    shapes = []
    with torch.inference_mode():
        expected = model.generate(**batch, **settings)
        handle = model.lm_head.register_forward_hook(lambda *called: shapes.append(tuple(called[-1].shape)))
        found = generate(model, **batch, **settings)
        handle.remove()
        whole = model(**batch).logits
    assert torch.equal(found, expected)
    assert {shape[1] for shape in shapes} == {1}
    assert whole.shape[:2] == batch["input_ids"].shape, "outside generation the model is as it was"


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(8 * 16_000 + 1, np.float32), "8.000 s"),
        (np.zeros(6 * 320, np.float32), "1920 samples"),
        (np.zeros(0, np.float32), "0 samples"),
        (np.full(16_000, 1000, np.int16), "int16"),
        (np.full(16_000, 1000, np.float32), "peak 1000"),
        (np.full(16_000, np.nan, np.float32), "peak nan"),
        (np.zeros((16_000, 2), np.float32), "16000, 2"),
    ],
)
def test_audio_that_the_model_would_misread_is_refused(processor, waveform: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=rf"talk1.wav/0003.*{message}"):
        build_inputs(processor, [waveform], [GERMAN], names=["talk1.wav/0003"])


def test_a_prompt_without_audio_is_refused(processor) -> None:
    with pytest.raises(UserError, match="prompt"):
        build_inputs(processor, [noise(16_000)], ["Translate this speech to German:\n"])


def test_an_end_token_that_the_tokenizer_does_not_know_is_refused(processor) -> None:
    with pytest.raises(UserError, match="<end>"):
        end_token_id(processor, "<end>")
