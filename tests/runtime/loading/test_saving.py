"""Saving a loaded packed model gives the same bytes, in one file or in many shards."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
import torch

from submission.model.families import read_config
from submission.runtime.loading import load_model
from submission.runtime.packed import PackedLinear
from submission.store.digests import tree_digest
from tests.runtime.loading.support import split, stock_model


def test_saving_a_packed_model_gives_the_same_weights_file(packed, tmp_path):
    model, processor = load_model(packed, "bfloat16")
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/model.safetensors").read_bytes() == (packed / "model.safetensors").read_bytes()
    processor.save_pretrained(tmp_path / "saved")
    again, _ = load_model(tmp_path / "saved", "float32")
    assert isinstance(again.lm_head, PackedLinear)


def test_a_saved_model_says_again_what_loads_it(packed, tmp_path):
    model, _ = load_model(packed, "bfloat16")
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/config.json").read_bytes() == (packed / "config.json").read_bytes()
    deepcopy(model).save_pretrained(tmp_path / "copied")
    assert (tmp_path / "copied/config.json").read_bytes() == (packed / "config.json").read_bytes()
    model.dequantize()
    model.save_pretrained(tmp_path / "plain")
    assert "transformers_weights" not in read_config(tmp_path / "plain")


@pytest.mark.parametrize("stock", [False, True], ids=["load_model", "from_pretrained"])
def test_a_packed_model_in_many_shards_is_the_model_in_one(packed, copy, tmp_path, stock):
    split(copy)
    model = stock_model(copy, dtype=torch.bfloat16) if stock else load_model(copy, "bfloat16")[0]
    model.save_pretrained(tmp_path / "one")
    assert (tmp_path / "one/model.safetensors").read_bytes() == (packed / "model.safetensors").read_bytes()


def test_saving_into_many_shards_and_back_gives_the_same_bytes(packed, tmp_path):
    stock_model(packed, dtype=torch.bfloat16).save_pretrained(tmp_path / "many", max_shard_size="300KB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 2
    stock_model(tmp_path / "many", dtype=torch.bfloat16).save_pretrained(tmp_path / "one")
    assert (tmp_path / "one/model.safetensors").read_bytes() == (packed / "model.safetensors").read_bytes()


def test_saving_gives_the_same_configuration(packed, tmp_path):
    stock_model(packed, dtype=torch.bfloat16).save_pretrained(tmp_path / "once")
    assert (tmp_path / "once/config.json").read_bytes() == (packed / "config.json").read_bytes()
    stock_model(tmp_path / "once", dtype=torch.bfloat16).save_pretrained(tmp_path / "twice")
    assert tree_digest(tmp_path / "once") == tree_digest(tmp_path / "twice")


def test_a_configuration_as_on_the_hub_is_filled_in_once(copy, tmp_path):
    config = read_config(copy)
    config["torch_dtype"] = config.pop("dtype")
    del config["transformers_version"], config["text_config"]["rope_parameters"], config["text_config"]["layer_types"]
    config["text_config"]["rope_theta"] = 10000
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    stock_model(copy, dtype="auto").save_pretrained(tmp_path / "once")
    stock_model(tmp_path / "once", dtype="auto").save_pretrained(tmp_path / "twice")
    assert tree_digest(tmp_path / "once") == tree_digest(tmp_path / "twice")
    assert read_config(tmp_path / "once")["quantization_config"] == config["quantization_config"]
    assert read_config(tmp_path / "once")["dtype"] == "bfloat16"
