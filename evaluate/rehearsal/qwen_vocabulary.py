"""Build Qwen2-Audio's tokenizer files from Qwen's byte-pair vocabulary, which a package of the index carries.

The vocabulary is a list of byte strings by rank (`qwen.tiktoken`): a text is cut by a pattern, and of the neighbours in
a piece those are joined first whose whole has the lowest rank. The files on the hub say the same with merges, one pair
per token, the last that joining its own bytes leaves. Ids are ranks; behind them come the special tokens, at the ids
that the model's published configuration names. Published weights have further special tokens (languages, time stamps)
up to the embedding's 156,032 rows, which no campaign reads; they are left out here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from submission.errors import UserError
from submission.progress import progress
from submission.store.digests import canonical_json, write_text

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
"""In the order of their ids, the first behind the vocabulary: 151643 to 151648 with Qwen's."""
PAD, END = SPECIAL[0], SPECIAL[2]

Pair = tuple[bytes, bytes]


def read_ranks(path: Path) -> dict[bytes, int]:
    """Return token -> rank of a vocabulary file, `<base64> <rank>` a line; UserError where it is none."""
    fix = "pip install the pin of the dependency group `rehearsal`, which `nox -s rehearse` does"
    try:
        rows = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in rows}
    except (OSError, ValueError) as error:
        raise UserError(f"vocabulary {path}", f"cannot be read ({error})", fix) from error
    if sorted(ranks.values()) != list(range(len(ranks))) or any(bytes([byte]) not in ranks for byte in range(256)):
        raise UserError(f"vocabulary {path}", "does not rank every byte, or leaves out a rank", fix)
    return ranks


def last_pair(token: bytes, ranks: dict[bytes, int]) -> Pair:
    """Return the two parts whose joining makes a token, where only tokens of lower rank may be joined before."""
    parts = [token[index : index + 1] for index in range(len(token))]
    highest = ranks[token]
    while len(parts) > 2:
        joined = [ranks.get(parts[i] + parts[i + 1], highest) for i in range(len(parts) - 1)]
        best = min(range(len(joined)), key=joined.__getitem__)
        if joined[best] >= highest:
            break
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    if len(parts) != 2:
        raise UserError("vocabulary", f"{token!r} is not two tokens of lower rank", "fetch the package again")
    return parts[0], parts[1]


def merges_of(ranks: dict[bytes, int]) -> list[Pair]:
    """Return the merge of every token of more than one byte, in the order of rank."""
    longer = sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__)
    merges = []
    with progress("tokenizer", len(longer), "merges") as tick:
        for token in longer:
            merges.append(last_pair(token, ranks))
            tick(1)
    return merges


def printable_bytes() -> dict[int, str]:
    """Return byte -> the character that stands for it in byte-level vocabularies (GPT-2's table)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(shown)]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def write_tokenizer(vocabulary: Path, folder: Path) -> None:
    """Write the tokenizer's files as the hub has them: tokenizer.json, and the same as vocab.json and merges.txt."""
    ranks = read_ranks(vocabulary)
    table = printable_bytes()

    def text(token: bytes) -> str:
        return "".join(table[byte] for byte in token)

    vocab = {text(token): rank for token, rank in sorted(ranks.items(), key=lambda entry: entry[1])}
    merges = [(text(left), text(right)) for left, right in merges_of(ranks)]
    folder.mkdir(parents=True, exist_ok=True)
    _byte_pair_tokenizer(vocab, merges).save(str(folder / "tokenizer.json"))
    write_text(folder / "vocab.json", canonical_json(vocab))
    write_text(folder / "merges.txt", "".join(f"{line}\n" for line in _merge_lines(merges)))
    write_text(folder / "added_tokens.json", canonical_json({t: len(ranks) + i for i, t in enumerate(SPECIAL)}))
    write_text(folder / "tokenizer_config.json", canonical_json(_settings(len(ranks))))
    write_text(folder / "special_tokens_map.json", canonical_json({"eos_token": END, "pad_token": PAD}))


def _merge_lines(merges: list[tuple[str, str]]) -> Iterator[str]:
    yield "#version: 0.2"
    for left, right in merges:
        yield f"{left} {right}"


def _byte_pair_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    bpe = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    bpe.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, bytewise])
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return bpe


def _settings(first: int) -> dict[str, Any]:
    """Return tokenizer_config.json as published; first: id of the first special token."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(first + i): {"content": token} | flags for i, token in enumerate(SPECIAL)},
        "additional_special_tokens": list(SPECIAL[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "errors": "replace",
        "model_max_length": 8192,
        "pad_token": PAD,
        "processor_class": "Qwen2AudioProcessor",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
