"""Hostile bundles: the checker ends in bounded time and memory, with findings and without an exception."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from submission.bundle.checks import report, verify
from submission.text.loops import LETTER_LOOP, WORD_LOOP

# Of the processor, and hundreds of times what a quiet machine needs: what is quadratic would take hours.
SECONDS = 900.0


def filled(piece: bytes, size: int = 2 << 20) -> bytes:
    """Return as much as the checks are willing to read."""
    return (piece * (size // len(piece) + 1))[: size // len(piece) * len(piece)]


HOSTILE = {
    "keys": b'{"a":1' + b"".join(b',"%d":1' % i for i in range(180_000)) + b"}",
    "brackets": filled(b"["),
    "lists": b"[" + filled(b"[],")[:-6] + b"[]]",
    "digits": filled(b"9"),
    "quotes": filled(b'"'),
    "blanks": filled(b" "),
    "lines": filled(b"\n"),
    "20,000 lines": filled(b"a " * 50 + b"\n"),
    "words": filled(b"a "),
    "one word": filled(b"a"),
    "labels": b"Storage size:\n" + filled(b"- x\n", 65_000),
    "Chinese": filled("一二三四五六七八".encode()),
    "tags": filled(b"(applause"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_two_megabytes_of_anything_in_every_file_are_answered_in_time(good, data):
    texts = ("en-de/ACL.txt", "segments/ACL.yaml", "description/en-de.txt")
    for path in ("manifest.json", "recipe.json", "model/config.json", *texts):
        (good / path).write_bytes(data)
    started = time.process_time()
    assert report(good, "miniature", verify(good, "miniature"))
    assert time.process_time() - started < SECONDS


def test_a_header_of_two_megabytes_is_answered_in_time(good):
    entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    text = ("{" + ",".join(f'"{i}":{entry}' for i in range(32_000)) + "}").encode()
    (good / "model" / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    started = time.process_time()
    assert any(f.code == "WEI06" for f in verify(good, "miniature"))
    assert time.process_time() - started < SECONDS


def test_a_huge_file_is_never_read_whole(good):
    """A sparse file of a terabyte costs neither time nor memory: its size is not the one in the manifest."""
    with (good / "model" / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 40)
    started = time.process_time()
    tracemalloc.start()
    try:
        findings = verify(good, "miniature")
        assert report(good, "miniature", findings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert {"MAN04", "SIZE01", "WEI03"} <= {f.code for f in findings}
    assert time.process_time() - started < SECONDS and peak < 64 << 20


@pytest.mark.parametrize("pattern", [WORD_LOOP, LETTER_LOOP], ids=["words", "letters"])
@pytest.mark.parametrize("text", ["a" * 10**6, "a " * 10**6, "ab cd " * 10**5, "一二" * 10**6, "a b c d e " * 10**5])
def test_looking_for_repetitions_is_linear(pattern, text):
    started = time.process_time()
    pattern.search(text + "!")
    assert time.process_time() - started < SECONDS
