"""The encoder over the frames of a batch's longest audio gives what the whole window gives, where there is audio."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from transformers import WhisperFeatureExtractor

from submission.miniature.model import PROMPT, SMALL, build_model, make_config, make_processor, train_tokenizer
from submission.runtime.families.family import Inputs
from submission.runtime.families.qwen2_audio import FEATURES, MASK, RUNTIME, audio_positions
from submission.runtime.prompt import Example, collate, encode, extract_features, render_prompt, shortest_samples

HOP, WINDOW = 160, 3000
"""Samples of a frame, and frames of thirty seconds, of the published model."""
LENGTHS = {
    "alone, odd": (501,),
    "alone, even": (502,),
    "alone, as short as the model takes": (7,),
    "alone, one frame below the window": (WINDOW - 1,),
    "alone, four frames below the window": (WINDOW - 4,),
    "alone, the whole window": (WINDOW,),
    "mixed, the longest odd": (7, 8, 9, 10, 503),
    "mixed, the longest even": (11, 333, 334, 504),
    "mixed, nearly the window": (12, 999, WINDOW - 5),
    "mixed, up to the window": (998, WINDOW),
}
"""Frames of the audio of a batch's rows."""
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 0.1}
"""Of values of about 1, up to 4, which layer norm puts out and of which bfloat16 has 8 bits."""


@pytest.fixture(scope="module")
def processor():
    made = make_processor(train_tokenizer(["the dog sleeps", "der Hund schläft"] * 9, SMALL.vocabulary), SMALL)
    made.feature_extractor = WhisperFeatureExtractor(
        feature_size=SMALL.mel_bins, hop_length=HOP, chunk_length=30, return_attention_mask=True
    )
    return made


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def model(processor, request):
    """Return a model whose encoder's layers change what they read, and weigh its positions differently."""
    config = make_config(processor.tokenizer, SMALL)
    config.audio_config.max_source_positions = WINDOW // 2
    made = build_model(config, seed=1)
    with torch.no_grad():
        for name, weight in made.model.audio_tower.named_parameters():
            if weight.ndim == 2 and "embed_positions" not in name:
                weight.mul_(4)
    return made.to(request.param)


def example(processor, frames: int) -> Example:
    """Return noise of so many frames, as the extractor and the prompt make an example of it."""
    samples = (frames - 1) * HOP + 1
    generator = torch.Generator().manual_seed(frames)
    waveform = (0.1 * torch.randn(samples, generator=generator)).numpy()
    features = extract_features(processor, waveform)
    assert features.frames == frames and features.positions == audio_positions(frames)
    return encode(processor, features, render_prompt(PROMPT, "German"))


def batch_of(processor, lengths: Sequence[int]) -> Inputs:
    examples = [example(processor, frames) for frames in lengths]
    return collate(examples, processor.tokenizer.pad_token_id, "left", labels=False)


@torch.inference_mode()
def encoded(model, inputs: Inputs) -> list[torch.Tensor]:
    """Return what the encoder gives the projector for the positions of each row's audio, float32 [positions, width]."""
    seen = []
    handle = model.model.audio_tower.register_forward_hook(lambda *called: seen.append(called[-1].last_hidden_state))
    with RUNTIME.shortened_window(model)(inputs):
        model(**inputs)
    handle.remove()
    counts = [audio_positions(frames) for frames in inputs[MASK].sum(dim=1).tolist()]
    return [row[:count].float() for row, count in zip(seen[0], counts, strict=True)]


def largest_difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_positions_of_audio_are_those_of_the_whole_window(processor, model, lengths):
    inputs = batch_of(processor, lengths)
    short = RUNTIME.shorten(inputs)
    expected, found = encoded(model, inputs), encoded(model, short)
    assert inputs[FEATURES].shape[-1] == WINDOW
    assert max(lengths) <= short[FEATURES].shape[-1] <= min(WINDOW, max(lengths) + 3)
    assert [len(row) for row in found] == [audio_positions(frames) for frames in lengths]
    assert largest_difference(found, expected) < TOLERANCES[model.dtype]


def test_the_frames_after_the_audio_are_needed(processor, model):
    """A cut right behind an odd number of frames puts zeros where the window has the silence's own features."""
    inputs = batch_of(processor, (503,))
    cut = inputs | {name: inputs[name][..., :504] for name in (FEATURES, MASK)}
    assert largest_difference(encoded(model, cut), encoded(model, inputs)) > 2 * TOLERANCES[model.dtype]


@torch.inference_mode()
def test_a_model_takes_whole_windows_after_short_ones_as_before(processor, model):
    inputs = batch_of(processor, (200, 333))
    short = RUNTIME.shorten(inputs)
    before = model(**inputs).logits
    with RUNTIME.shortened_window(model)(short):
        within = model(**short).logits
    assert torch.equal(model(**inputs).logits, before)
    assert within.shape == before.shape
    with pytest.raises(ValueError, match="3000"):
        model(**short)


@torch.inference_mode()
def test_a_model_takes_whole_windows_after_an_error_within_a_short_one(processor, model):
    inputs = batch_of(processor, (200, 333))
    before = model(**inputs).logits
    with pytest.raises(RuntimeError, match="out of memory"), RUNTIME.shortened_window(model)(RUNTIME.shorten(inputs)):
        raise RuntimeError("out of memory")
    assert torch.equal(model(**inputs).logits, before)


def test_inputs_that_are_short_already_stay_as_they_are(processor):
    short = RUNTIME.shorten(batch_of(processor, (200, 333)))
    again = RUNTIME.shorten(short)
    assert all(torch.equal(again[name], short[name]) for name in short)


def test_the_shortest_audio_that_the_model_takes_has_seven_frames(processor):
    assert shortest_samples(processor) == 6 * HOP + 1
