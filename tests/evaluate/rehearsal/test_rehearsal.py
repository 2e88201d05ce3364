"""A rehearsal whole, and the tokenizer that it builds of Qwen's vocabulary: minutes each, with the file of a package.

`nox -s rehearse` installs the vocabulary, of which nothing is committed; without it these tests are skipped.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoProcessor, Qwen2AudioProcessor, WhisperFeatureExtractor

from evaluate.rehearsal.qwen_vocabulary import write_tokenizer
from evaluate.rehearsal.rehearsal_text import rehearsal_text
from evaluate.rehearsal.rehearse import rehearse
from submission.errors import UserError
from submission.model.families import shipped_config
from submission.runtime.prompt import collate, encode, end_token_id, extract_features, render_prompt
from submission.system.campaign import read_campaign
from submission.text.segments import SAMPLE_RATE

ROOT = Path(__file__).parents[3]
CAMPAIGN = read_campaign("iwslt26")
AUDIO = 151_646
"""The id of <|AUDIO|> in the published configuration."""


@pytest.fixture(scope="module")
def vocabulary() -> Path:
    found = next((ROOT / ".nox/rehearse").rglob("qwen.tiktoken"), None)
    if found is None:
        pytest.skip("nox -s rehearse installs Qwen's vocabulary")
    return found


@pytest.fixture(scope="module")
def processor(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Qwen2AudioProcessor:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(vocabulary, folder)
    WhisperFeatureExtractor(feature_size=128, return_attention_mask=True).save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder, local_files_only=True)


def noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


@pytest.mark.slow
def test_the_ids_are_those_of_the_published_configuration(processor):
    config = shipped_config("Qwen2-Audio-7B")
    assert config["audio_token_index"] == AUDIO == processor.tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    assert end_token_id(processor, CAMPAIGN.model.end_token) == config["text_config"]["eos_token_id"] == 151_645
    assert processor.tokenizer.convert_tokens_to_ids("<|endoftext|>") == config["text_config"]["bos_token_id"]
    assert len(processor.tokenizer) < config["text_config"]["vocab_size"]
    # of Qwen's own tokenizer: words with their blank, and Chinese, as single tokens
    assert processor.tokenizer("Hello world")["input_ids"] == [9_707, 1_879]
    for text in ("Übersetzung: der Bär läuft.", "你好，世界", "e\u0301 🙂\n\n"):
        ids = processor.tokenizer(text)["input_ids"]
        assert processor.tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "positions"), [(0.07, 2), (1.0, 25), (7.7, 192), (29.99, 750), (30.0, 750)])
def test_an_audio_token_becomes_a_position_for_every_40_ms(processor, seconds, positions):
    features = extract_features(processor, noise(seconds))
    prompt = render_prompt(CAMPAIGN.prompt, "German")
    example = encode(processor, features, prompt)
    assert features.positions == positions
    assert int((example.input_ids == AUDIO).sum()) == positions
    assert processor.tokenizer.decode(example.input_ids).endswith("<|audio_eos|>Translate this speech to German:\n")


@pytest.mark.slow
def test_the_end_token_is_the_last_label(processor):
    prompt = render_prompt(CAMPAIGN.prompt, "German")
    features = extract_features(processor, noise(0.5))
    example = encode(processor, features, prompt, "Guten Tag.", CAMPAIGN.model.end_token)
    labels = collate([example], 0, "right", labels=True)["labels"][0]
    trained = labels[labels != -100].tolist()
    assert trained[-1] == 151_645
    assert processor.tokenizer.decode(trained) == "Guten Tag.<|im_end|>"


@pytest.mark.slow
def test_a_narrow_campaign_is_built_found_again_and_survives_kills(vocabulary, tmp_path):
    record = rehearse(tmp_path / "work", "narrow", 2, vocabulary)
    titles = [command["command"] for command in record["commands"]]
    for title in ("train finetune", "quantize sensitivity", "quantize awq", "evaluate decode", "submission archive"):
        assert title in titles
    assert titles.count("submission summary") == titles.count("evaluate rerun") == 2
    assert len(record["killed"]) > 20
    assert any(entry["killed"] for entry in record["killed"])
    text = rehearsal_text(record)
    assert all(title in text for title in titles)


def test_a_folder_that_no_rehearsal_made_is_not_emptied(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="is not empty, and no rehearsal made it"):
        rehearse(tmp_path, "narrow", 2, tmp_path / "qwen.tiktoken")
    assert (tmp_path / "thesis.tex").exists()
