"""Published checkpoints: converted, or refused by name without being run."""

from __future__ import annotations

import os
import pickle
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Model

from segment.classifier.convert import convert, read_checkpoint, read_wav2vec2
from segment.classifier.model import load_classifier, normalise
from submission.errors import UserError
from tests.segment.tiny import HEAD_SHAPES, WIDTH, weights, write_checkpoint, write_wav2vec2

RATE = 16_000


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory) -> Path:
    return write_wav2vec2(tmp_path_factory.mktemp("wav2vec2"))


class Calls:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def test_a_converted_checkpoint_loads_and_computes_what_its_parts_compute(wav2vec2, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "shas.pt", str(wav2vec2))
    convert(checkpoint, None, tmp_path / "out")
    classifier = load_classifier(tmp_path / "out")
    audio = normalise(torch.from_numpy(np.random.default_rng(0).standard_normal((1, RATE)).astype(np.float32)))
    encoder = Wav2Vec2Model.from_pretrained(wav2vec2).eval()
    with torch.inference_mode():
        expected = encoder(audio, output_hidden_states=True).hidden_states[2]
        hidden = classifier.wav2vec2(audio).last_hidden_state
        torch.testing.assert_close(hidden, expected)
    assert classifier.wav2vec2.config.num_hidden_layers == 2
    head = {n.removeprefix("head."): t for n, t in classifier.state_dict().items() if n.startswith("head.")}
    assert all(torch.equal(head[name], tensor) for name, tensor in weights(HEAD_SHAPES).items())


def test_another_encoder_can_be_given_and_half_the_bytes_kept(wav2vec2, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "shas.pt", "nobody/has-this-model")
    for name, dtype in (("whole", torch.float32), ("half", torch.float16)):
        convert(checkpoint, str(wav2vec2), tmp_path / name, dtype)
    sizes = {p.parent.name: p.stat().st_size for p in tmp_path.glob("*/model.safetensors")}
    assert sizes["half"] < 0.55 * sizes["whole"]
    load_classifier(tmp_path / "half")


@pytest.mark.parametrize("old_format", [False, True])
def test_a_malicious_pickle_is_refused_by_name_and_not_run(old_format, tmp_path):
    trap, path = tmp_path / "trap", tmp_path / "evil.pt"
    torch.save({"state_dict": {}, "args": Calls(trap)}, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(UserError, match=r"evil\.pt: is refused: it names (posix|nt)\.system"):
        read_checkpoint(path)
    assert not trap.exists()


def test_a_bare_pickle_is_refused_too(tmp_path):
    trap, path = tmp_path / "trap", tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"args": Calls(trap)}, protocol=2))
    with pytest.raises(UserError, match=r"evil\.pt: is refused: it names (posix|nt)\.system"):
        read_checkpoint(path)
    assert not trap.exists()


@pytest.mark.parametrize("protocol", [False, True])
def test_both_of_torchs_file_formats_are_read(protocol, wav2vec2, tmp_path):
    path = write_checkpoint(tmp_path / "shas.pt", "x")
    content = torch.load(path, weights_only=False)
    content["state_dict"] = OrderedDict(content["state_dict"])
    torch.save(content, path, _use_new_zipfile_serialization=protocol)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.model_name, checkpoint.kept_layers, checkpoint.head_layers) == ("x", 2, 1)


@pytest.mark.parametrize("content", [b"", b"hello", b".", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_not_a_checkpoint_is_refused(content, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pt: is not a checkpoint"):
        read_checkpoint(tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"y\.pt: cannot be read"):
        read_checkpoint(tmp_path / "y.pt")


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"model": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="lacks what a SHAS checkpoint holds"):
        read_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("changed", "keep", "message"),
    [
        ({}, 9, "keeps 9 layers, the encoder has 3"),
        ({"layer_norm.weight": (1024,)}, 2, rf"expected shape \({WIDTH},\), the encoder's width, got \(1024,\)"),
        ({"extra.weight": (1,)}, 2, "head.extra.weight: expected shape none"),
    ],
)
def test_a_head_that_does_not_fit_the_encoder_is_refused(changed, keep, message, wav2vec2, tmp_path):
    state = weights(HEAD_SHAPES | changed)
    path = write_checkpoint(tmp_path / "shas.pt", str(wav2vec2), keep=keep, state_dict=state)
    with pytest.raises(UserError, match=message):
        convert(path, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_encoder_is_named_in_the_error(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "shas.pt", "x")
    with pytest.raises(UserError, match="hf download nobody/nothing --local-dir WAV2VEC2"):
        convert(checkpoint, "nobody/nothing", tmp_path / "out")


def test_a_local_encoder_is_never_to_be_downloaded(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "shas.pt", "x")
    (tmp_path / "empty").mkdir()
    for place in ("nowhere", "empty"):
        with pytest.raises(UserError, match="name the folder of a wav2vec 2.0 model") as error:
            convert(checkpoint, str(tmp_path / place), tmp_path / "out")
        assert "hf download" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "lacks encoder.layers.1.attention.k_proj.weight"),
        ("misshapen", "has another shape of encoder.layers.1.attention.k_proj.weight"),
        ("truncated", "cannot be loaded"),
    ],
)
def test_a_damaged_encoder_is_refused_and_not_filled_with_random_weights(damage, message, wav2vec2, tmp_path):
    copied = shutil.copytree(wav2vec2, tmp_path / "wav2vec2")
    path, name = copied / "model.safetensors", "encoder.layers.1.attention.k_proj.weight"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        state = load_file(path)
        tensor = state.pop(name)
        save_file(state | ({name: tensor[:5].clone()} if damage == "misshapen" else {}), path, {"format": "pt"})
    with pytest.raises(UserError) as error:
        read_wav2vec2(str(copied))
    assert f"wav2vec 2.0 model {copied}: {message}" in str(error.value)


def test_an_encoder_may_lack_what_only_training_uses(wav2vec2, tmp_path):
    copied = shutil.copytree(wav2vec2, tmp_path / "wav2vec2")
    state = load_file(copied / "model.safetensors")
    del state["masked_spec_embed"]
    save_file(state, copied / "model.safetensors", {"format": "pt"})
    read_wav2vec2(str(copied))
