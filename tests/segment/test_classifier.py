"""The classifier: saved and loaded, independent of its neighbours, quiet on silence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from segment.classifier.model import Classifier, Head, build, load_classifier, normalise, save_classifier
from submission.errors import UserError

RATE = 16_000


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return build("tiny", seed=1).eval()


def noise(count: int, samples: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, samples)).astype(np.float32)


def test_a_window_of_20_s_has_999_frames(classifier):
    assert classifier.frames(20 * RATE) == 999
    assert classifier.probabilities(noise(1, 20 * RATE)).shape == (1, 999)
    assert classifier.shortest_samples == 400


def test_a_window_gives_the_same_bits_in_any_batch(classifier):
    windows = noise(3, 3 * RATE)
    alone = np.concatenate([classifier.probabilities(window[None]) for window in windows])
    assert np.array_equal(classifier.probabilities(windows), alone)
    assert np.ptp(alone) > 0


def test_padding_behind_a_mask_does_not_change_a_window(classifier):
    short, long = normalise(torch.from_numpy(noise(1, 2 * RATE))), torch.from_numpy(noise(1, 3 * RATE))
    padded = torch.cat([torch.nn.functional.pad(short, (0, RATE)), normalise(long)])
    with torch.inference_mode():
        alone = classifier(short)
        combined_error = classifier(padded, torch.tensor([2 * RATE, 3 * RATE]))[:1, : alone.shape[1]]
    torch.testing.assert_close(combined_error, alone, atol=1e-5, rtol=1e-5)


def test_loudness_and_offset_do_not_matter(classifier):
    windows = noise(1, RATE)
    expected = classifier.probabilities(windows)
    assert np.allclose(classifier.probabilities(windows * 1e-3 + 0.1), expected, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_silence_is_no_speech(classifier, value):
    probabilities = classifier.probabilities(np.full((2, RATE), value, np.float32))
    assert np.array_equal(probabilities, np.zeros((2, 49)))


def test_a_few_samples_give_one_frame(classifier):
    assert classifier.probabilities(noise(1, 3)).shape == (1, 1)


def test_saving_and_loading_keeps_every_probability(classifier, tmp_path):
    save_classifier(classifier, tmp_path)
    windows = noise(1, RATE)
    loaded = load_classifier(tmp_path)
    assert np.array_equal(loaded.probabilities(windows), classifier.probabilities(windows))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_saving_twice_gives_the_same_bytes_and_half_precision_half_of_them(classifier, tmp_path):
    for name, dtype in (("a", torch.float32), ("b", torch.float32), ("half", torch.float16)):
        save_classifier(classifier, tmp_path / name, dtype)
    weights = {p.parent.name: p.read_bytes() for p in tmp_path.glob("*/model.safetensors")}
    assert weights["a"] == weights["b"]
    assert len(weights["half"]) < 0.55 * len(weights["a"])
    windows = noise(1, RATE)
    half = load_classifier(tmp_path / "half").probabilities(windows)
    assert np.allclose(half, classifier.probabilities(windows), atol=0.01)


def test_names_and_shapes_are_those_of_published_checkpoints():
    head = Head()
    wide = {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 1, "do_stable_layer_norm": True}
    with torch.device("meta"):
        state = Classifier({**wide, "conv_dim": [8] * 7, "feat_extract_norm": "layer"}, head).state_dict()
    shapes = {name: tuple(t.shape) for name, t in state.items() if name.startswith("head.")}
    assert shapes["head.transformer.layers.0.self_attn.in_proj_weight"] == (3072, 1024)
    assert shapes["head.transformer.layers.0.linear1.weight"] == (2048, 1024)
    assert shapes["head.layer_norm.weight"] == (1024,)
    assert shapes["head.classification_layer.weight"] == (1, 1024)
    assert len(shapes) == 16
    assert "wav2vec2.encoder.layer_norm.weight" not in state


@pytest.mark.parametrize("damage", ["no config", "other format", "no weights", "torn weights", "other shapes"])
def test_a_damaged_classifier_is_refused_by_its_file(classifier, tmp_path, damage):
    save_classifier(classifier, tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    values = json.loads(config.read_text(encoding="utf-8"))
    if damage == "no config":
        config.unlink()
    elif damage == "other format":
        config.write_text(json.dumps(values | {"format": "pickle"}), encoding="utf-8")
    elif damage == "other shapes":
        config.write_text(json.dumps(values | {"head": values["head"] | {"feed_forward": 8}}), encoding="utf-8")
    elif damage == "no weights":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError) as error:
        load_classifier(tmp_path)
    assert ("config.json" if damage in ("no config", "other format") else "model.safetensors") in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_their_name(tmp_path, value):
    damaged = build("tiny", seed=1)
    with torch.no_grad():
        damaged.head.layer_norm.bias[3] = value
    save_classifier(damaged, tmp_path)
    with pytest.raises(
        UserError, match=r"model\.safetensors: head\.layer_norm\.bias: has values that are not finite numbers"
    ):
        load_classifier(tmp_path)


def test_an_unknown_configuration_is_refused():
    with pytest.raises(UserError, match="choose from tiny"):
        build("huge", seed=1)
