from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

from quantize.packing.pack import pack_checkpoint
from quantize.packing.unpack import unpack
from submission.errors import UserError
from submission.miniature.model import SMALL
from submission.model.codecs import Affine
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.runtime.loading import load_model
from tests.support.tiny_qwen import build_checkpoint

RULES = {
    "*": Affine(bits=4, group_size=64),
    "embedding": Affine(bits=2, group_size=64),
    "projector": Affine(bits=8, group_size=32, meta_bits=8),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)


@pytest.fixture(scope="module")
def packed(base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack_checkpoint(base, folder, resolve_codecs(read_config(base), RULES), solver="als")
    return folder


def test_a_packed_model_becomes_the_checkpoint_that_it_stands_for(packed, base, tmp_path):
    size = unpack(packed, tmp_path / "plain")
    model, _ = load_model(packed, "bfloat16")
    stock, report = Qwen2AudioForConditionalGeneration.from_pretrained(
        tmp_path / "plain", dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(report.values()), report
    expected = model.dequantize().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in stock.state_dict().items())
    assert read_config(tmp_path / "plain") == read_config(base)
    assert size == sum(path.stat().st_size for path in (tmp_path / "plain").iterdir())
    assert AutoProcessor.from_pretrained(tmp_path / "plain").tokenizer("the cat").input_ids
    assert {p.name for p in (tmp_path / "plain").iterdir()} == {p.name for p in packed.iterdir()}


def test_damaged_parts_are_refused_and_leave_nothing_under_the_name(packed, tmp_path):
    weights = load_file(packed / "model.safetensors")
    name = "language_model.lm_head.weight.scale"
    weights[name] = torch.full_like(weights[name], float("inf"))
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in packed.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="not finite"):
        unpack(broken, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_what_is_not_packed_and_a_folder_that_is_there_are_refused(packed, base, tmp_path):
    with pytest.raises(UserError, match="is not packed"):
        unpack(base, tmp_path / "plain")
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="is there already"):
        unpack(packed, tmp_path / "there")


def test_a_bundle_with_errors_is_not_unpacked(packed, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "model").symlink_to(packed)
    (tmp_path / "bundle" / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="has errors and is not unpacked"):
        unpack(tmp_path / "bundle", tmp_path / "plain", "miniature")
    assert not (tmp_path / "plain").exists()
