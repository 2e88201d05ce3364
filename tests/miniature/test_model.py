"""The miniature checkpoint is a real Qwen2-Audio folder: hub names, round widths, reproducible bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

from submission.miniature.model import END, LANGUAGES, MINIATURE, PAD, PROMPT, SMALL, Shape, sinusoids
from submission.store.digests import tree_digest
from tests.support.tiny_qwen import build_checkpoint

TEXTS = ["the old house is near the river", "das alte Haus ist am Fluss", "老房子在河边"] * 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small", TEXTS, SMALL, seed=1)


def test_tensors_on_disk_carry_the_names_of_the_hub(checkpoint: Path) -> None:
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        names = set(file.keys())
        dtypes = {file.get_slice(name).get_dtype() for name in names}
    assert {"language_model.lm_head.weight", "language_model.model.embed_tokens.weight"} <= names
    assert "language_model.model.layers.1.mlp.up_proj.weight" in names
    assert "audio_tower.layers.1.self_attn.out_proj.weight" in names
    assert "multi_modal_projector.linear.weight" in names
    assert dtypes == {"BF16"}


def test_every_linear_is_a_multiple_of_128_both_ways(checkpoint: Path) -> None:
    model = Qwen2AudioForConditionalGeneration.from_pretrained(checkpoint)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert module.in_features % 128 == module.out_features % 128 == 0, name


def test_head_is_not_tied_to_the_embedding(checkpoint: Path) -> None:
    model = Qwen2AudioForConditionalGeneration.from_pretrained(checkpoint)
    assert model.lm_head.weight.data_ptr() != model.get_input_embeddings().weight.data_ptr()


def test_same_arguments_give_the_same_bytes_and_another_seed_others(checkpoint: Path, tmp_path: Path) -> None:
    torch.rand(3)  # the global generator's state must not matter
    again = build_checkpoint(tmp_path / "again", TEXTS, SMALL, seed=1)
    other = build_checkpoint(tmp_path / "other", TEXTS, SMALL, seed=2)
    assert tree_digest(again) == tree_digest(checkpoint) != tree_digest(other)


def test_prompt_is_few_tokens_and_end_token_ends(checkpoint: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(checkpoint).tokenizer
    for language in LANGUAGES.values():
        prompt = PROMPT.format(target_language=language)
        ids = tokenizer(prompt)["input_ids"]
        assert len(ids) <= 9
        assert tokenizer.decode(ids) == prompt
    assert (tokenizer.eos_token, tokenizer.pad_token) == (END, PAD)
    settings = json.loads((checkpoint / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token_id"] == tokenizer.convert_tokens_to_ids(END)
    assert settings["pad_token_id"] == tokenizer.convert_tokens_to_ids(PAD)


def test_tokenizer_keeps_text_it_never_saw(checkpoint: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(checkpoint).tokenizer
    text = "Völlig anders: 42 ½ 龍, ok?"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_processor_and_model_generate_from_audio(checkpoint: Path) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    prompts = [PROMPT.format(target_language=language) for language in LANGUAGES.values()]
    audio = [np.sin(np.arange(length) / 9).astype(np.float32) for length in (16000, 40000)]
    inputs = processor(text=prompts, audio=audio, sampling_rate=16000, padding=True, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=3)
    assert inputs["input_features"].shape == (2, SMALL.mel_bins, SMALL.mel_frames)
    assert output.shape[1] <= inputs["input_ids"].shape[1] + 3


def test_positions_of_the_encoder_are_whispers_sinusoids(checkpoint: Path) -> None:
    model = Qwen2AudioForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    table = model.model.audio_tower.embed_positions.weight.detach().numpy()
    np.testing.assert_allclose(table, sinusoids(*table.shape), atol=2**-8)


def test_shape_refuses_a_width_that_groups_do_not_divide() -> None:
    fields = {name: getattr(SMALL, name) for name in Shape.__slots__}
    with pytest.raises(ValueError, match="hidden 192 is no multiple of 128"):
        Shape(**fields | {"hidden": 192})


def test_shipped_shape_has_at_least_eight_decoder_layers() -> None:
    assert MINIATURE.layers >= 8
