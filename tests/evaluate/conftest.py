"""A tiny real model with lively weights, and a recording to decode."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from submission.text.segments import SAMPLE_RATE, Segment

if TYPE_CHECKING:
    from tests.evaluate.bundled import Bundled

PROMPT = "<|audio_bos|><|AUDIO|><|audio_eos|>Translate this speech to German:\n"
TEXTS = ["the dog runs to the house", "der Hund läuft zum Haus", "狗跑向房子"] * 5
LIVELINESS = 6.0
"""Factor on the random weights: with it hypotheses differ from segment to segment."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, recordings, segments) -> Path:
    """Return the folder of a tiny random checkpoint of which about half of the hypotheses end by themselves."""
    import torch

    from submission.miniature.model import (
        SMALL,
        build_model,
        make_config,
        make_processor,
        save_checkpoint,
        train_tokenizer,
    )

    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = train_tokenizer(TEXTS, SMALL.vocabulary)
    processor = make_processor(tokenizer, SMALL)
    model = build_model(make_config(tokenizer, SMALL), seed=0).to(torch.bfloat16).float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed_positions" not in name:
                weight.mul_(LIVELINESS)
    teach_to_end(model, processor, recordings, segments)
    save_checkpoint(model, processor, folder)
    return folder


def teach_to_end(model, processor, recordings, segments) -> None:
    """Let the end token take the place of a token that about half of the hypotheses come to."""
    import torch
    from transformers import GenerationConfig

    from submission.runtime.audio import read_slice
    from submission.runtime.prompt import build_inputs

    waveforms = [read_slice(recordings[s.recording], s.start, s.end) for s in segments]
    inputs = build_inputs(processor, waveforms, [PROMPT] * len(waveforms))
    model.generation_config = GenerationConfig(max_new_tokens=6, pad_token_id=processor.tokenizer.pad_token_id)
    with torch.inference_mode():
        answers = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :].tolist()
    come_to = Counter(token for answer in answers for token in set(answer) - {answer[0]})
    chosen = min(sorted(come_to), key=lambda token: abs(2 * come_to[token] - len(answers)))
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        model.lm_head.weight[end] = 1.05 * model.lm_head.weight[chosen]


@pytest.fixture(scope="session")
def tiny(checkpoint):
    """Return (model, processor) of the tiny checkpoint in float32."""
    from submission.runtime.loading import load_model

    return load_model(checkpoint, "float32")


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> dict[str, Path]:
    """Return two recordings of changing noise and tones: 30 s and 20 s."""
    folder, rng, result = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0), {}
    for name, seconds in (("b.wav", 30), ("a.wav", 20)):
        time = np.arange(seconds * SAMPLE_RATE)
        noise = rng.standard_normal(len(time)) * 0.1 * (1 + np.sin(time / 9000))
        tone = 0.3 * np.sin(time**1.5 / 3000)
        result[name] = folder / name
        soundfile.write(result[name], (noise + tone).astype(np.float32), SAMPLE_RATE, subtype="FLOAT")
    return result


@pytest.fixture(scope="session")
def segments() -> list[Segment]:
    """Return fourteen segments of mixed lengths, first of b.wav, then of a.wav, some of them alike."""
    rng, result = np.random.default_rng(1), []
    for recording, count in (("b.wav", 9), ("a.wav", 5)):
        start = 0
        for _ in range(count):
            length = int(rng.integers(6_000, 60_000))
            result.append(Segment(recording=recording, start=start, end=start + length))
            start += length // 2
    return [*result, result[3]]


@pytest.fixture(scope="session")
def bundled(checkpoint, recordings, segments, tmp_path_factory) -> Bundled:
    """Return a good bundle and the recordings that it translates; to be read only."""
    from tests.evaluate.bundled import make_bundled

    return make_bundled(tmp_path_factory.mktemp("bundled"), checkpoint, recordings, segments)
