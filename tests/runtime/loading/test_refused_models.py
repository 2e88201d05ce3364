"""Packed models that are damaged or say what cannot be are refused by name, by either way of loading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from quantize.packing.pack import pack_checkpoint
from submission.errors import UserError
from submission.model.codecs import Affine
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.runtime.loading import load_model
from tests.runtime.loading.support import UP, affine, change, split, stock_model


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda w: w.pop(f"{UP}.scale"), f"1 tensors missing: {UP}.scale"),
        (lambda w: w.update({f"{UP}.g": torch.ones(1)}), f"1 tensors not part of this model: {UP}.g"),
        (lambda w: w.update({f"{UP}.codes": w[f"{UP}.codes"][:, 1:].clone()}), f"{UP}.codes: expected the shape"),
        (lambda w: w[f"{UP}.scale"].fill_(float("nan")), "up_proj.weight.scale: holds a number that is not finite"),
    ],
)
@pytest.mark.parametrize("stock", [False, True], ids=["load_model", "from_pretrained"])
def test_a_malformed_packed_model_is_refused_by_its_tensor(copy, edit, said, stock):
    from transformers import Qwen2AudioForConditionalGeneration

    change(copy, edit)
    with pytest.raises(UserError) as caught:
        if stock:
            Qwen2AudioForConditionalGeneration.from_pretrained(copy, dtype=torch.float32)
        else:
            load_model(copy, "float32")
    assert said in str(caught.value)


def test_a_truncated_file_is_refused(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="truncated"):
        load_model(copy, "float32")


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json"])
def test_a_model_without_its_tokenizer_or_feature_extractor_is_refused(copy, name):
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"has no .*{name}"):
        load_model(copy, "float32")


def test_a_tokenizer_that_is_damaged_is_refused(copy):
    (copy / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="processor cannot be loaded"):
        load_model(copy, "float32")


def test_an_unknown_dtype_is_refused(packed):
    with pytest.raises(UserError, match="unknown dtype 'int4'"):
        load_model(packed, "int4")


def refused(folder: Path, stock: bool) -> str:
    with pytest.raises(UserError) as caught:
        stock_model(folder) if stock else load_model(folder, "float32")
    return str(caught.value)


both_ways = pytest.mark.parametrize("stock", [False, True], ids=["load_model", "from_pretrained"])


@both_ways
def test_an_unknown_codec_is_refused(copy, stock):
    config = read_config(copy)
    config["quantization_config"]["codecs"]["affine4g64"]["kind"] = "afine"
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    said = refused(copy, stock)
    assert "quantization_config.codecs.affine4g64.kind: unknown codec 'afine'" in said and "affine" in said


@both_ways
def test_a_truncated_shard_is_refused(copy, stock):
    shard = split(copy)[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    said = refused(copy, stock)
    assert shard.name in said and "truncated" in said


@both_ways
def test_a_missing_shard_is_refused(copy, stock):
    shard = split(copy)[1]
    shard.unlink()
    said = refused(copy, stock)
    assert shard.name in said and "No such file" in said


def narrowed(name: str, weight: torch.Tensor) -> torch.Tensor:
    return (weight[:, :126] if "down_proj" in name else weight[:126]).clone()


@both_ways
def test_a_code_behind_the_end_of_a_row_is_refused(base, tmp_path, stock):
    base = shutil.copytree(base, tmp_path / "base")
    config = read_config(base)
    config["text_config"]["intermediate_size"] = 126  # of 3 bits each: the last byte of a row has bits to spare
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    change(base, lambda w: w.update({n: narrowed(n, t) for n, t in w.items() if ".mlp." in n}))
    (tmp_path / "packed").mkdir()
    codecs = resolve_codecs(config, {"*": affine(4, 64), "mlp.down": affine(3, 64)})
    pack_checkpoint(base, tmp_path / "packed", codecs, solver="hqq")
    load_model(tmp_path / "packed", "float32")
    down = "language_model.model.layers.1.mlp.down_proj.weight.codes"
    change(tmp_path / "packed", lambda w: w[down][3].__setitem__(-1, 0xFF))
    said = refused(tmp_path / "packed", stock)
    assert "layers.1.mlp.down_proj.weight.codes: hold more than the weight's columns" in said


@both_ways
@pytest.mark.parametrize("part", ["scale_range", "zero_range"])
def test_a_range_of_scales_in_8_bits_that_is_not_finite_is_refused(base, tmp_path, stock, part):
    codec = Affine(bits=4, group_size=64, meta_bits=8)
    pack_checkpoint(base, tmp_path, resolve_codecs(read_config(base), {"*": codec}), solver="hqq")
    change(tmp_path, lambda w: w[f"{UP}.{part}"][2].fill_(float("nan")))
    assert f"up_proj.weight.{part}: holds a number that is not finite" in refused(tmp_path, stock)
