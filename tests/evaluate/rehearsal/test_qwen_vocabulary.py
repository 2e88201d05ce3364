"""Qwen's vocabulary as tokenizer files: ids are ranks, texts are joined as the ranks say, special tokens follow."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evaluate.rehearsal.qwen_vocabulary import SPECIAL, last_pair, merges_of, read_ranks, write_tokenizer
from submission.errors import UserError

LONGER = (b"he", b"ll", b"llo", b"hello", b" h", b" he", "Ü".encode(), b"in", b"ing", b" hello", b"ell")


def ranked(*, longer: tuple[bytes, ...] = LONGER) -> dict[bytes, int]:
    single = [bytes([byte]) for byte in range(256)]
    return {token: rank for rank, token in enumerate([*single, *longer])}


def write_vocabulary(path: Path, ranks: dict[bytes, int]) -> Path:
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    return path


def joined(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
    """Join neighbours of the lowest rank until none is left, one at a time."""
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        pairs = [(ranks[parts[i] + parts[i + 1]], i) for i in range(len(parts) - 1) if parts[i] + parts[i + 1] in ranks]
        if not pairs:
            return [ranks[part] for part in parts]
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def test_the_merge_of_a_token_is_the_last_join_of_its_bytes():
    ranks = ranked()
    assert last_pair(b"llo", ranks) == (b"ll", b"o")
    assert last_pair(b"hello", ranks) == (b"he", b"llo")
    merges = merges_of(ranks)
    assert len(merges) == len(LONGER)
    assert [left + right for left, right in merges] == list(LONGER)


def test_texts_get_the_ids_that_ranks_give_them(tmp_path):
    ranks = ranked()
    write_tokenizer(write_vocabulary(tmp_path / "v.tiktoken", ranks), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model", local_files_only=True)
    for pieces in ((b"hello", b" hello", b" hell"), ("Ünder".encode(), b" singing")):
        text = b"".join(pieces).decode()
        assert tokenizer(text)["input_ids"] == [number for piece in pieces for number in joined(piece, ranks)]
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens_follow_the_vocabulary_and_are_never_cut(tmp_path):
    ranks = ranked()
    write_tokenizer(write_vocabulary(tmp_path / "v.tiktoken", ranks), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model", local_files_only=True)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == list(range(len(ranks), len(ranks) + len(SPECIAL)))
    assert tokenizer("<|audio_bos|><|AUDIO|><|AUDIO|><|audio_eos|>")["input_ids"] == [271, 270, 270, 272]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert json.loads((tmp_path / "model/vocab.json").read_text(encoding="utf-8"))["Ġhello"] == ranks[b" hello"]


@pytest.mark.parametrize("content", [b"", b"no vocabulary\n", b"IQ== 0\n"])
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path, content):
    (tmp_path / "v.tiktoken").write_bytes(content)
    with pytest.raises(UserError, match=r"vocabulary .*v\.tiktoken"):
        read_ranks(tmp_path / "v.tiktoken")


def test_a_token_that_no_two_make_is_refused():
    with pytest.raises(UserError, match="is not two tokens of lower rank"):
        last_pair(b"xyz", ranked(longer=(b"xyz",)))
