"""A small system and its data folder, and a reference file: shared by several test modules."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import soundfile

from submission.text.segments import SAMPLE_RATE, Segment, write_segments

XML = """<?xml version="1.0" encoding="UTF-8"?>
<refset setid="x" srclang="English" trglang="German">
<doc docid="b" genre="talk"><seg id="1">Hund &amp; Katze</seg>
<seg id="2"> zwei
  Zeilen </seg></doc>
<doc docid="a" genre="talk"><seg id="{third}">R&D</seg></doc>
</refset>
"""
"""References in the mteval format; {third} is the id of its third line."""

CAMPAIGN = """
name = "probe"
edition = "Probe"
prompt = "<|audio_bos|><|AUDIO|><|audio_eos|>Translate this speech to {target_language}:\\n"
naming = "{team}_{pair}_{condition}_{kind}"
size_limit = "1 GiB"
made_here = false
model = { name = "tiny", hub = "none", architecture = "qwen2_audio", end_token = "<|im_end|>", window_seconds = 8 }
testsets = [{ name = "TALKS", segmentation = "free" }, { name = "ACCENT", segmentation = "given" }]
[[pairs]]
name = "en-de"
source = "en"
target = "de"
target_language = "German"
testsets = ["TALKS", "ACCENT"]
[[pairs]]
name = "en-zh"
source = "en"
target = "zh"
target_language = "Chinese"
testsets = ["TALKS"]
"""
RECIPE = """
extends = "primary"
[corpus]
sources = [{ name = "talks", format = "plain" }]
[segment]
method = "fixed"
max_seconds = 7
[decode]
dtype = "float32"
max_new_tokens = 6
"""


def write_wav(path: Path, seconds: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal(int(seconds * SAMPLE_RATE)) * 0.1
    soundfile.write(path, noise.astype(np.float32), SAMPLE_RATE)


def write_data(data: Path, checkpoint: Path, segments: list[Segment]) -> None:
    """Write what a system needs that is only decoded and scored; references for one pair, and for ACL 60/60."""
    shutil.copytree(checkpoint, data / "models/tiny")
    texts = [f"acl_6060/dev/text/txt/ACL.6060.dev.en-xx.{language}.txt" for language in ("en", "de", "zh")]
    for name in (
        *texts,
        "corpora/talks/utterances.tsv",
        "corpora/talks/audio/x.wav",
        "acl_6060/dev/segmented_wavs/gold/sent_1.wav",
        "acl_6060/dev/text/xml/ACL.6060.dev.en-xx.en.xml",
    ):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).touch()
    for testset in ("TALKS", "ACCENT"):
        folder = data / "testsets" / testset
        write_wav(folder / "audio" / "one.wav", 6, 1)
        (folder / "FILE_ORDER").write_text("one\n", encoding="utf-8")
    write_segments(data / "testsets/ACCENT/segments.yaml", segments)
    gold = data / "acl_6060" / "eval"
    for number, seconds in ((1, 2.0), (2, 0.01)):
        write_wav(gold / "segmented_wavs" / "gold" / f"sent_{number}.wav", seconds, number)
    for language, lines in (("de", "eins\nzwei\n"), ("zh", "一\n二\n")):
        path = gold / "text" / "txt" / f"ACL.6060.eval.en-xx.{language}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines, encoding="utf-8")
    for testset in ("TALKS", "ACCENT"):
        folder = data / "references" / testset
        folder.mkdir(parents=True)
        write_segments(folder / "segments.yaml", segments)
        (folder / "en-de.txt").write_text("x\n" * len(segments), encoding="utf-8")
