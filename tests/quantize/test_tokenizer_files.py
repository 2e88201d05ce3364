"""Which files of a tokenizer go into a packed model: the least that loads to the same one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from submission.model.forecast import companion_files
from submission.model.tokenizer_files import repeated_files

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
AUDIO = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
TEXTS = ("Der Hund schläft.", "狗在睡觉", "<|audio_bos|><|AUDIO|><|audio_eos|>Translate\n", "  tabs\tand 1234 ☃", "")
REPEATED = {"vocab.json", "merges.txt", "added_tokens.json"}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Write a byte-level BPE tokenizer in the files of Qwen2-Audio's on the hub."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text for text in TEXTS for _ in range(5)], trainer)
    folder = tmp_path / "published"
    folder.mkdir()
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    tokenizer.add_special_tokens([*SPECIAL, *AUDIO])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {token: tokenizer.token_to_id(token) for token in (*SPECIAL, *AUDIO)}
    (folder / "added_tokens.json").write_text(json.dumps(ids), encoding="utf-8")
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": SPECIAL[0],
        "pad_token": SPECIAL[0],
        "unk_token": None,
        "errors": "replace",
        "model_max_length": 8192,
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": [*SPECIAL, *AUDIO],
        "added_tokens_decoder": {
            str(number): {"content": token, "special": True, "normalized": False} for token, number in ids.items()
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def loaded(files: list[Path], folder: Path) -> PreTrainedTokenizerBase:
    folder.mkdir()
    for path in files:
        (folder / path.name).write_bytes(path.read_bytes())
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_the_files_that_are_kept_load_to_the_same_tokenizer(published: Path, tmp_path: Path) -> None:
    kept = companion_files(published)
    assert {path.name for path in kept} == {"tokenizer.json", "tokenizer_config.json"}
    whole, least = loaded(list(published.iterdir()), tmp_path / "whole"), loaded(kept, tmp_path / "least")
    assert type(least) is type(whole)
    assert least.backend_tokenizer.to_str() == whole.backend_tokenizer.to_str()
    assert least.get_vocab() == whole.get_vocab() and least.special_tokens_map == whole.special_tokens_map
    assert least.all_special_ids == whole.all_special_ids and len(least) == len(whole)
    for text in TEXTS:
        ids = whole(text)["input_ids"]
        assert least(text)["input_ids"] == ids and least.decode(ids) == whole.decode(ids)


@pytest.mark.parametrize("merges", ["lists", "texts"])
def test_both_spellings_of_merges_are_known(published: Path, merges: str) -> None:
    path = published / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    pairs = [merge if isinstance(merge, list) else merge.split(" ") for merge in content["model"]["merges"]]
    content["model"]["merges"] = pairs if merges == "lists" else [" ".join(pair) for pair in pairs]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert repeated_files(published) == REPEATED


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("vocab.json", lambda text: text.replace('"!"', '"!!"')),
        ("merges.txt", lambda text: text.rpartition("\n")[0].rpartition("\n")[0]),
        ("added_tokens.json", lambda text: text.replace("}", ', "<|more|>": 999}')),
        ("added_tokens.json", lambda text: text[:-2]),
    ],
)
def test_a_file_that_says_anything_else_is_kept(published: Path, name: str, changed) -> None:
    path = published / name
    before = path.read_text(encoding="utf-8")
    path.write_text(changed(before), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != before
    assert repeated_files(published) == REPEATED - {name}
    assert path in companion_files(published)


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"model": {"type": "WordPiece", "vocab": {}}, "added_tokens": []}']
)
def test_without_a_tokenizer_that_holds_them_all_files_are_kept(published: Path, content: str | None) -> None:
    path = published / "tokenizer.json"
    if content is None:
        os.remove(path)
    else:
        path.write_text(content, encoding="utf-8")
    assert repeated_files(published) == frozenset()
    assert {file.name for file in companion_files(published)} >= REPEATED
