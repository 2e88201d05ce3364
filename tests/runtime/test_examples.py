from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from submission.errors import UserError
from submission.miniature.model import PROMPT, SMALL, make_processor, train_tokenizer
from submission.runtime.audio import read_slice
from submission.runtime.examples import form_batches, load_examples
from submission.runtime.prompt import Example, encode, extract_features, render_prompt
from submission.text.corpus import Utterance

PROMPTS = {code: render_prompt(PROMPT, name) for code, name in (("de", "German"), ("zh", "Chinese"))}
END = "<|im_end|>"


@pytest.fixture(scope="module")
def processor():
    return make_processor(train_tokenizer(["der Hund schläft", "狗在睡觉"] * 9, SMALL.vocabulary), SMALL)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "wav").mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(64_000)
    soundfile.write(folder / "wav" / "talk.wav", noise, 16_000)
    return folder


def utterance(number: int, language: str, target: str, start: int, end: int) -> Utterance:
    return Utterance(
        id=f"talk/{number}",
        audio="wav/talk.wav",
        start=start,
        end=end,
        source="the dog sleeps",
        target=target,
        source_lang="en",
        target_lang=language,
        recording="talk.wav",
    )


UTTERANCES = [
    utterance(0, "de", "der Hund schläft", 0, 16_000),
    utterance(0, "zh", "狗在睡觉", 0, 16_000),
    utterance(1, "de", "ein Haus", 16_000, 60_000),
]


def load(utterances, data, processor, **options) -> list[Example]:
    return load_examples(utterances, data, processor, PROMPTS, END, label="examples", **options)


def test_examples_are_the_slices_prompts_and_targets_of_the_corpus_in_its_order(processor, data):
    for u, example in zip(UTTERANCES, load(UTTERANCES, data, processor), strict=True):
        waveform = read_slice(data / u.audio, u.start, u.end)
        expected = encode(processor, extract_features(processor, waveform), PROMPTS[u.target_lang], u.target, END)
        assert torch.equal(example.input_ids, expected.input_ids)
        assert example.prompt_tokens == expected.prompt_tokens
        assert example.audio.frames == expected.audio.frames
        for name, tensor in expected.audio.tensors.items():
            assert torch.equal(example.audio.tensors[name], tensor)


def test_the_same_stretch_of_audio_has_its_features_extracted_once(processor, data):
    german, chinese, other = load(UTTERANCES, data, processor)
    assert german.audio is chinese.audio is not other.audio


def test_without_targets_only_the_prompt_is_left(processor, data):
    whole = load(UTTERANCES, data, processor)
    for example, bare in zip(whole, load(UTTERANCES, data, processor, targets=False), strict=True):
        assert len(bare.input_ids) == bare.prompt_tokens == example.prompt_tokens
        assert torch.equal(bare.input_ids, example.input_ids[: example.prompt_tokens])


def test_a_language_without_a_prompt_is_refused_before_audio_is_read(processor, tmp_path):
    with pytest.raises(UserError, match=r"utterance talk/7: its target language 'fr' has no prompt"):
        load([*UTTERANCES, utterance(7, "fr", "le chien dort", 0, 16_000)], tmp_path, processor)


def test_audio_that_the_model_would_misread_is_refused_by_the_utterances_name(processor, data):
    with pytest.raises(UserError, match="talk/3"):
        load([utterance(3, "de", "ein Haus", 0, 10)], data, processor)


@given(lengths=st.lists(st.integers(1, 30), max_size=40), batch_size=st.integers(1, 9))
def test_batches_hold_every_example_once_from_the_longest_to_the_shortest(lengths, batch_size):
    examples = [Example(audio=None, input_ids=torch.zeros(n), prompt_tokens=0) for n in lengths]
    batches = form_batches(examples, batch_size)
    order = [index for batch in batches for index in batch]
    assert order == sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(batches)
